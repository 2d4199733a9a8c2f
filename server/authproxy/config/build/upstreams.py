"""Build upstreams: the path of an upstream's URL is also the path that it serves."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec.structs import replace

from authproxy_core.encoding import is_token
from authproxy_core.settings import UpstreamSettings

from ...net.origin import HOST
from ..read.files import read_text
from ..read.resolved import ResolvedOptions

KEY = "upstreams"
CA_KEY = "upstream_ca_files"
HTTP_SCHEMES = ("http", "https", "h2c", "h2")
ORIGIN = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?"
)
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
BAD_CHARACTER = re.compile(r"[\x00-\x20\x7f]")


def build_upstreams(options: ResolvedOptions) -> tuple[UpstreamSettings, ...]:
    """Build the upstreams from their URLs, as oauth2-proxy does."""
    upstreams = [
        upstream
        for uri in options.strings(KEY)
        if (upstream := _build_upstream(options, uri)) is not None
    ]
    for path in _duplicates([upstream.path for upstream in upstreams]):
        options.add_problem(
            KEY, f"several upstreams have the path {path!r}, expected one"
        )
    return tuple(upstreams)


def _duplicates(texts: Sequence[str]) -> list[str]:
    return sorted({text for text in texts if texts.count(text) > 1})


def _build_upstream(options: ResolvedOptions, uri: str) -> UpstreamSettings | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
        if BAD_CHARACTER.search(uri) or BAD_ESCAPE.search(parts.path):
            raise ValueError
        check_host(parts)
    except ValueError:
        options.add_mismatch(KEY, uri, "a URL such as http://127.0.0.1:8080/")
        return None
    match parts.scheme:
        case "http" | "https" | "h2c" | "h2" if parts.hostname:
            path = unquote(parts.path) or "/"
            return _build_proxied(options, path, path, uri)
        case "unix" if parts.path and not parts.netloc:
            return _build_proxied(options, unquote(parts.path), "/", uri)
        case "static":
            return _build_static(options, uri, parts)
        case "file":
            return _build_files(options, uri, parts)
        case _:
            options.add_mismatch(
                KEY,
                uri,
                "http://HOST, https://HOST, h2c://HOST, h2://HOST, unix:///PATH, "
                "static://CODE or file:///DIRECTORY/",
            )
            return None


def check_host(parts: SplitResult) -> None:
    """Raise ValueError if no request could be sent to the host of an HTTP URL."""
    host = parts.hostname
    if not host or parts.scheme not in HTTP_SCHEMES:
        return
    if ":" in host:
        ip_address(host)
    elif not HOST.fullmatch(host.encode("idna").decode()):
        raise ValueError


def _build_proxied(
    options: ResolvedOptions, name: str, path: str, uri: str
) -> UpstreamSettings:
    return UpstreamSettings(
        id=name,
        path=path,
        uri=uri,
        pass_host_header=options.boolean("pass_host_header"),
        proxy_websockets=options.boolean("proxy_websockets"),
        disable_keep_alives=options.boolean("disable_keep_alives"),
        insecure_skip_tls_verify=options.boolean("ssl_upstream_insecure_skip_verify"),
        timeout=options.seconds("upstream_timeout"),
    )


def _build_static(
    options: ResolvedOptions, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    text = parts.netloc
    if not text.isascii() or not text.isdigit():
        options.add_warning(KEY, f"{uri} has no status code; responds with 200")
        text = "200"
    if len(text) != 3 or not 200 <= int(text) <= 599:
        options.add_mismatch(KEY, uri, "a status code from 200 to 599")
        return None
    return UpstreamSettings(id=uri, path="/", static_code=int(text))


def _build_files(
    options: ResolvedOptions, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    """Build a static file server for the path in the fragment, or the file path.

    ``file:///dev/null`` is valid: deployments without an upstream use it.
    """
    if parts.netloc or not parts.path.startswith("/"):
        expected = "file:///DIRECTORY/ or file:///DIRECTORY/#/PATH/"
        options.add_mismatch(KEY, uri, expected)
        return None
    path = unquote(parts.fragment) or unquote(parts.path)
    return UpstreamSettings(id=path, path=path, uri=uri.partition("#")[0])


def add_ca_certificates(
    options: ResolvedOptions, upstreams: Sequence[UpstreamSettings]
) -> tuple[UpstreamSettings, ...]:
    """Return *upstreams* with the CA certificates to trust, unless they have some.

    As in oauth2-proxy, the CA certificates of the provider are the default.
    """
    files = options.strings(CA_KEY)
    if files:
        pem = _read_certificates(options, files)
        trust_system = False
    else:
        # The preflight of the provider's client reports problems with these files.
        pem = "\n".join(map(_read_or_empty, options.strings("provider_ca_files")))
        trust_system = options.boolean("use_system_trust_store")
    if not pem:
        return tuple(upstreams)
    return tuple(
        upstream
        if upstream.ca_pem
        else replace(upstream, ca_pem=pem, trust_system=trust_system)
        for upstream in upstreams
    )


def _read_certificates(options: ResolvedOptions, files: Sequence[str]) -> str:
    pem = "\n".join([read_text(options, CA_KEY, path) or "" for path in files])
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        if CA_KEY not in options.failed:
            options.add_mismatch(CA_KEY, list(files), "PEM files with certificates")
    return pem


def _read_or_empty(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return ""


def check_forward_options(options: ResolvedOptions) -> None:
    """Check the options ``via`` and ``websocket_origins``."""
    via = options.string("via")
    if via and not is_token(via.encode()):
        options.add_mismatch("via", via, "a name without spaces, such as authproxy")
    for origin in options.strings("websocket_origins"):
        if origin != "*" and not ORIGIN.fullmatch(origin):
            options.add_mismatch(
                "websocket_origins", origin, "scheme://host[:port], or *"
            )
