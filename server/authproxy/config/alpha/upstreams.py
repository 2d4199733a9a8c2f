"""Upstreams of an alpha configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings.root import UpstreamSettings

from ..build.access_rules import condition, snake_case
from ..build.upstreams import BAD_CHARACTER, BAD_ESCAPE
from .read import Problems

SCHEMES = ("http", "https", "file", "unix")
ADDRESS = "http://HOST, https://HOST, unix:///PATH or file:///PATH"
KEY = "upstreamConfig.upstreams"
# Which setting each key fills.
FIELDS = {
    "uri": "uri",
    "rewriteTarget": "rewrite_target",
    "insecureSkipTLSVerify": "insecure_skip_tls_verify",
    "flushInterval": "flush_interval",
    "passHostHeader": "pass_host_header",
    "proxyWebSockets": "proxy_websockets",
    "timeout": "timeout",
    "disableKeepAlives": "disable_keep_alives",
}


def upstreams(
    config: Mapping[str, Any], problems: Problems
) -> tuple[UpstreamSettings, ...]:
    """The upstreams; what is wrong is noted."""
    entries = config.get("upstreams", ())
    for name in ("id", "path"):
        # One path may lead to several when it depends on a condition to which.
        values = [
            "" if name == "path" and "when" in entry else entry.get(name, "")
            for entry in entries
        ]
        for number, value in enumerate(values):
            if value and value in values[:number]:
                problems.wrong(f"{KEY}[{number}].{name}", f"{value!r} is there twice")
    return tuple(
        _upstream(entry, f"{KEY}[{number}]", problems)
        for number, entry in enumerate(entries)
    )


def _upstream(
    entry: Mapping[str, Any], path: str, problems: Problems
) -> UpstreamSettings:
    for name in ("id", "path"):
        if not entry.get(name):
            problems.wrong(f"{path}.{name}", "missing")
    if not entry.get("static") and "staticCode" in entry:
        problems.wrong(f"{path}.staticCode", "needs static: true")
    values = {"id": entry.get("id", path), "path": entry.get("path", "/")}
    if "when" in entry:
        wrong = partial(problems.wrong, f"{path}.when")
        values["condition"] = condition(snake_case(entry["when"]), wrong)
    if entry.get("static"):
        return UpstreamSettings(
            **values, static_code=_static_code(entry, path, problems)
        )
    _judge_uri(entry.get("uri", ""), f"{path}.uri", problems)
    values |= {field: entry[name] for name, field in FIELDS.items() if name in entry}
    if entry.get("timeout", 0) < 0:
        problems.wrong(
            f"{path}.timeout", "negative, expected a duration or 0s for none"
        )
        del values["timeout"]
    return UpstreamSettings(**values)


def _static_code(entry: Mapping[str, Any], path: str, problems: Problems) -> int:
    code: int = entry.get("staticCode", 200)
    if not 200 <= code <= 599:
        problems.wrong(f"{path}.staticCode", "expected a status code from 200 to 599")
        return 200
    return code


def _judge_uri(uri: str, path: str, problems: Problems) -> None:
    if not uri:
        problems.wrong(path, "missing; expected an address, or static: true")
        return
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        problems.wrong(path, f"expected {ADDRESS}")
        return
    bad = BAD_CHARACTER.search(uri) or BAD_ESCAPE.search(parts.path)
    if bad or parts.scheme not in SCHEMES:
        problems.wrong(path, f"expected {ADDRESS}")
    elif parts.scheme in ("http", "https") and not parts.hostname:
        problems.wrong(path, f"expected {parts.scheme}://HOST")
