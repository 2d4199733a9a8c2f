"""The option ``upstreams``: an address is also the path that it answers for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from authproxy_core.settings import UpstreamSettings

from .collected import Collected

KEY = "upstreams"
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
BAD_CHARACTER = re.compile(r"[\x00-\x20\x7f]")


def upstreams(collected: Collected) -> tuple[UpstreamSettings, ...]:
    """What oauth2-proxy makes of each address; problems are noted."""
    found = [_upstream(collected, uri) for uri in collected.strings(KEY)]
    good = [upstream for upstream in found if upstream is not None]
    for path in _repeated([upstream.path for upstream in good]):
        collected.wrong(
            KEY, f"two of them answer for the path {path!r}; expected one for each path"
        )
    return tuple(good)


def _repeated(texts: Sequence[str]) -> list[str]:
    return sorted({text for text in texts if texts.count(text) > 1})


def _upstream(collected: Collected, uri: str) -> UpstreamSettings | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
        if BAD_CHARACTER.search(uri) or BAD_ESCAPE.search(parts.path):
            raise ValueError
    except ValueError:
        collected.got(KEY, uri, "an address such as http://127.0.0.1:8080/")
        return None
    match parts.scheme:
        case "http" | "https" | "h2c" | "h2" if parts.hostname:
            path = unquote(parts.path) or "/"
            return _proxied(collected, path, path, uri)
        case "unix" if parts.path and not parts.netloc:
            return _proxied(collected, unquote(parts.path), "/", uri)
        case "static":
            return _static(collected, uri, parts)
        case "file":
            return _file(collected, uri, parts)
        case _:
            collected.got(
                KEY,
                uri,
                "http://HOST, https://HOST, h2c://HOST, h2://HOST, unix:///PATH, "
                "static://CODE or "
                "file:///dev/null",
            )
            return None


def _proxied(collected: Collected, name: str, path: str, uri: str) -> UpstreamSettings:
    return UpstreamSettings(
        id=name,
        path=path,
        uri=uri,
        pass_host_header=collected.boolean("pass_host_header"),
        proxy_websockets=collected.boolean("proxy_websockets"),
        flush_interval=collected.seconds("flush_interval"),
        disable_keep_alives=collected.boolean("disable_keep_alives"),
        insecure_skip_tls_verify=collected.boolean("ssl_upstream_insecure_skip_verify"),
        timeout=collected.seconds("upstream_timeout"),
    )


def _static(
    collected: Collected, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    text = parts.netloc
    if not text.isascii() or not text.isdigit():
        collected.warn(KEY, f"{uri} has no status code; it answers 200")
        text = "200"
    if len(text) != 3 or not 200 <= int(text) <= 599:
        collected.got(KEY, uri, "a status code from 200 to 599")
        return None
    return UpstreamSettings(id=uri, path="/", static_code=int(text))


def _file(
    collected: Collected, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    """The null device is the customary way to say that there is no upstream."""
    if parts.path != "/dev/null" or parts.netloc:
        collected.wrong(
            KEY, f"{uri}: serving files is not supported yet, except file:///dev/null"
        )
        return None
    path = unquote(parts.fragment) or parts.path
    return UpstreamSettings(id=path, path=path, uri="file:///dev/null")
