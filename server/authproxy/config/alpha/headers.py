"""Build the injected headers of an alpha configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authproxy_core.settings import ClaimSource, HeaderRule, Secret

from .read import Problems

EXPECTED_SOURCE = "exactly one of value, fromEnv and fromFile"


def build_header_rules(
    key: str, tree: Mapping[str, Any], environ: Mapping[str, str], problems: Problems
) -> tuple[HeaderRule, ...]:
    """Build the header rules of the list *key* of *tree*."""
    return tuple(
        _build_rule(entry, f"{key}[{number}]", environ, problems)
        for number, entry in enumerate(tree.get(key, ()))
    )


def _build_rule(
    entry: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> HeaderRule:
    name = entry.get("name", "")
    if not name:
        problems.add_problem(f"{path}.name", "missing; expected a header name")
    sources = [
        _build_source(value, f"{path}.values[{number}]", environ, problems)
        for number, value in enumerate(entry.get("values", ()))
    ]
    strip_exactly = entry.get("InsecureSkipHeaderNormalization", False)
    if strip_exactly and not entry.get("preserveRequestValue") and "Request" in path:
        problems.add_warning(
            f"{path}.InsecureSkipHeaderNormalization",
            "a client's header with another spelling, such as _ for -, is forwarded; "
            "an upstream may confuse it with this one",
        )
    return HeaderRule(
        name or "X-Unnamed",
        tuple(source for source in sources if source is not None),
        entry.get("preserveRequestValue", False),
        strip_exactly,
    )


def _build_source(
    value: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> ClaimSource | Secret | None:
    claim, secret = value.get("claimSource"), value.get("secretSource")
    if claim is not None and secret is None:
        return _build_claim_source(claim, f"{path}.claimSource", environ, problems)
    if secret is None or claim is not None:
        problems.add_problem(path, "expected one of claimSource and secretSource")
        return None
    path = f"{path}.secretSource"
    content = read_secret_source(secret, path, environ, problems)
    if content is not None and set(content) & set(b"\r\n\0"):
        # A header value has no newline, so the final one of a file is not part of it.
        content = content.removesuffix(b"\n").removesuffix(b"\r")
        if set(content) & set(b"\r\n\0"):
            problems.add_problem(path, "a header value can't have more than one line")
    return None if content is None else Secret(content)


def _build_claim_source(
    claim: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> ClaimSource:
    if not claim.get("claim"):
        problems.add_problem(f"{path}.claim", "missing; expected a claim name")
    password = None
    if "basicAuthPassword" in claim:
        content = read_secret_source(
            claim["basicAuthPassword"], f"{path}.basicAuthPassword", environ, problems
        )
        password = Secret(content or b"")
    return ClaimSource(claim.get("claim", ""), claim.get("prefix", ""), password)


def read_secret_source(
    source: Mapping[str, Any],
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
) -> bytes | None:
    """Return the bytes of the secret; None after adding a problem."""
    if len(source) != 1:
        problems.add_problem(path, f"expected {EXPECTED_SOURCE}")
        return None
    [(kind, value)] = source.items()
    if kind == "value":
        return bytes(value)
    if kind == "fromEnv":
        if not environ.get(value):
            problems.add_problem(
                f"{path}.fromEnv", f"the variable {value!r} is not set"
            )
            return None
        return environ[value].encode()
    problems.files.add(value)
    try:
        return Path(value).read_bytes()
    except OSError as error:
        problems.add_problem(
            f"{path}.fromFile", f"can't read {value}: {error.strerror}"
        )
    except ValueError:  # a NUL in the name
        problems.add_problem(f"{path}.fromFile", "expected a file name")
    return None
