"""Headers to inject, of an alpha configuration: claims and secrets as rules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authproxy_core.settings.root import ClaimSource, HeaderRule, Secret

from .read import Problems

SOURCES = "one of value, fromEnv and fromFile"


def header_rules(
    key: str, tree: Mapping[str, Any], environ: Mapping[str, str], problems: Problems
) -> tuple[HeaderRule, ...]:
    """The rules of the list *key*; what is wrong is noted."""
    return tuple(
        _rule(entry, f"{key}[{number}]", environ, problems)
        for number, entry in enumerate(tree.get(key, ()))
    )


def _rule(
    entry: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> HeaderRule:
    name = entry.get("name", "")
    if not name:
        problems.wrong(f"{path}.name", "missing; expected the name of a header")
    sources = [
        _source(value, f"{path}.values[{number}]", environ, problems)
        for number, value in enumerate(entry.get("values", ()))
    ]
    exact = entry.get("InsecureSkipHeaderNormalization", False)
    if exact and not entry.get("preserveRequestValue") and "Request" in path:
        problems.warn(
            f"{path}.InsecureSkipHeaderNormalization",
            "a client's own header in another spelling, such as with _ for -, is "
            "passed on; an upstream may take it for this one",
        )
    return HeaderRule(
        name or "X-Unnamed",
        tuple(source for source in sources if source is not None),
        entry.get("preserveRequestValue", False),
        exact,
    )


def _source(
    value: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> ClaimSource | Secret | None:
    claim, secret = value.get("claimSource"), value.get("secretSource")
    if claim is not None and secret is None:
        return _claim(claim, f"{path}.claimSource", environ, problems)
    if secret is None or claim is not None:
        problems.wrong(path, "expected one of claimSource and secretSource")
        return None
    place = f"{path}.secretSource"
    content = read_source(secret, place, environ, problems)
    if content is not None and set(content) & set(b"\r\n\0"):
        # A file's last new line can't be meant: no header may have one.
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        if set(content) & set(b"\r\n\0"):
            problems.wrong(place, "it has more than one line, which no header may have")
    return None if content is None else Secret(content)


def _claim(
    claim: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> ClaimSource:
    if not claim.get("claim"):
        problems.wrong(f"{path}.claim", "missing; expected the name of a claim")
    password = None
    if "basicAuthPassword" in claim:
        place = f"{path}.basicAuthPassword"
        content = read_source(claim["basicAuthPassword"], place, environ, problems)
        password = Secret(content or b"")
    return ClaimSource(claim.get("claim", ""), claim.get("prefix", ""), password)


def read_source(
    source: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> bytes | None:
    """The secret, byte for byte; None when it can't be had, which is noted."""
    if len(source) != 1:
        problems.wrong(path, f"expected {SOURCES}")
        return None
    [(kind, value)] = source.items()
    if kind == "value":
        return bytes(value)
    if kind == "fromEnv":
        if not environ.get(value):
            problems.wrong(f"{path}.fromEnv", f"the variable {value!r} is not set")
            return None
        return environ[value].encode()
    problems.files.add(value)
    try:
        return Path(value).read_bytes()
    except OSError as error:
        problems.wrong(f"{path}.fromFile", f"can't read {value}: {error.strerror}")
    except ValueError:  # a NUL in the name
        problems.wrong(f"{path}.fromFile", "expected the name of a file")
    return None
