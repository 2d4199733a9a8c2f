"""Build the upstreams of an alpha configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings import UpstreamSettings

from ..build.access_rules import build_condition, to_toml_names
from ..build.upstreams import BAD_CHARACTER, BAD_ESCAPE, check_host
from .read import Problems

SCHEMES = ("http", "https", "file", "unix")
EXPECTED_URI = "http://HOST, https://HOST, unix:///PATH or file:///PATH"
KEY = "upstreamConfig.upstreams"
FIELDS = {  # key to field of UpstreamSettings
    "uri": "uri",
    "rewriteTarget": "rewrite_target",
    "insecureSkipTLSVerify": "insecure_skip_tls_verify",
    "passHostHeader": "pass_host_header",
    "proxyWebSockets": "proxy_websockets",
    "timeout": "timeout",
    "disableKeepAlives": "disable_keep_alives",
}


def build_upstreams(
    config: Mapping[str, Any], problems: Problems
) -> tuple[UpstreamSettings, ...]:
    """Build the upstreams of ``upstreamConfig``."""
    entries = config.get("upstreams", ())
    for name in ("id", "path"):
        # Upstreams with a condition may share a path.
        values = [
            "" if name == "path" and "when" in entry else entry.get(name, "")
            for entry in entries
        ]
        for number, value in enumerate(values):
            if value and value in values[:number]:
                problems.add_problem(f"{KEY}[{number}].{name}", f"duplicate {value!r}")
    return tuple(
        _build_upstream(entry, f"{KEY}[{number}]", problems)
        for number, entry in enumerate(entries)
    )


def _build_upstream(
    entry: Mapping[str, Any], path: str, problems: Problems
) -> UpstreamSettings:
    for name in ("id", "path"):
        if not entry.get(name):
            problems.add_problem(f"{path}.{name}", "missing")
    if not entry.get("static") and "staticCode" in entry:
        problems.add_problem(f"{path}.staticCode", "requires static: true")
    fields = {"id": entry.get("id", path), "path": entry.get("path", "/")}
    if "when" in entry:
        add_problem = partial(problems.add_problem, f"{path}.when")
        fields["condition"] = build_condition(to_toml_names(entry["when"]), add_problem)
    if entry.get("static"):
        return UpstreamSettings(
            **fields, static_code=_static_code(entry, path, problems)
        )
    _check_uri(entry.get("uri", ""), f"{path}.uri", problems)
    fields |= {field: entry[name] for name, field in FIELDS.items() if name in entry}
    if entry.get("timeout", 0) < 0:
        problems.add_problem(
            f"{path}.timeout", "negative, expected a duration or 0s for no timeout"
        )
        del fields["timeout"]
    return UpstreamSettings(**fields)


def _static_code(entry: Mapping[str, Any], path: str, problems: Problems) -> int:
    code: int = entry.get("staticCode", 200)
    if not 200 <= code <= 599:
        problems.add_problem(
            f"{path}.staticCode", "expected a status code from 200 to 599"
        )
        return 200
    return code


def _check_uri(uri: str, path: str, problems: Problems) -> None:
    if not uri:
        problems.add_problem(path, "missing; expected a URL, or static: true")
        return
    try:
        parts = urlsplit(uri)
        _ = parts.port
        check_host(parts)
    except ValueError:
        problems.add_problem(path, f"expected {EXPECTED_URI}")
        return
    bad = BAD_CHARACTER.search(uri) or BAD_ESCAPE.search(parts.path)
    if bad or parts.scheme not in SCHEMES:
        problems.add_problem(path, f"expected {EXPECTED_URI}")
    elif parts.scheme in ("http", "https") and not parts.hostname:
        problems.add_problem(path, f"expected {parts.scheme}://HOST")
