"""The options about listeners and upstreams."""

from __future__ import annotations

from urllib.parse import urlsplit

from authproxy_core.settings import UpstreamSettings

from ..server_settings import Listener, TlsSettings
from .collected import Collected


def listeners(collected: Collected) -> tuple[Listener, ...]:
    """Plain text, or TLS as soon as a certificate or key is given."""
    cert, key = collected.string("tls_cert_file"), collected.string("tls_key_file")
    if not cert and not key:
        found = _plain(collected)
    else:
        found = _secure(collected, cert, key)
    if not found and not collected.problems:
        collected.wrong("http_address", "there is no listener; expected an address")
    return found


def _plain(collected: Collected) -> tuple[Listener, ...]:
    address = collected.string("http_address")
    if address in ("", "-"):
        return ()
    if address.startswith("unix://"):
        return _unix(collected, address.removeprefix("unix://"))
    if address.lower().startswith("fd:"):
        collected.wrong("http_address", "socket activation is not supported yet")
        return ()
    host_port = _host_port(address.removeprefix("http://"))
    if host_port is None:
        collected.got(
            "http_address", address, "HOST:PORT, unix://PATH[,mode=0660], or '-' for none"
        )
        return ()
    return (Listener(host=host_port[0], port=host_port[1]),)


def _unix(collected: Collected, text: str) -> tuple[Listener, ...]:
    path, *options = text.split(",")
    mode = None
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            collected.got("http_address", option, "an option such as mode=0660")
        elif name == "mode":
            try:
                mode = int(value, 8)
            except ValueError:
                collected.got("http_address", value, "an octal mode such as 0660")
    return (Listener(path=path, mode=mode),)


def _secure(collected: Collected, cert: str, key: str) -> tuple[Listener, ...]:
    if not cert or not key:
        missing = "tls_key_file" if cert else "tls_cert_file"
        collected.wrong(missing, "missing; a certificate and its key go together")
        return ()
    address = collected.string("https_address")
    host_port = _host_port(address.removeprefix("https://"))
    if host_port is None:
        collected.got("https_address", address, "HOST:PORT")
        return ()
    if collected.strings("tls_cipher_suites"):
        collected.warn("tls_cipher_suites", "has no effect yet; the system's are used")
    tls = TlsSettings(
        cert_file=cert,
        key_file=key,
        min_version=collected.string("tls_min_version") or "TLS1.2",
    )
    return (Listener(host=host_port[0], port=host_port[1], tls=tls),)


def _host_port(address: str) -> tuple[str, int] | None:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        return None
    if "/" in host or (":" in host and not host.startswith("[")):
        return None
    return host.strip("[]"), int(port)


def upstreams(collected: Collected) -> tuple[UpstreamSettings, ...]:
    """Each upstream's path is also what it matches, as in oauth2-proxy."""
    found = [_upstream(collected, uri) for uri in collected.strings("upstreams")]
    good = [upstream for upstream in found if upstream is not None]
    paths = [upstream.path for upstream in good]
    for path in sorted({path for path in paths if paths.count(path) > 1}):
        collected.wrong("upstreams", f"the path {path!r} is there twice")
    return tuple(good)


def _upstream(collected: Collected, uri: str) -> UpstreamSettings | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        collected.got("upstreams", uri, "a URL")
        return None
    match parts.scheme:
        case "http" | "https" if parts.hostname:
            return _http(collected, parts.path or "/", uri)
        case "unix":
            return _http(collected, "/", uri, name=parts.path)
        case "static":
            code = parts.netloc
            status = int(code) if code.isascii() and code.isdigit() else 200
            return UpstreamSettings(id=uri, path="/", static_code=status)
        case "file" if parts.path == "/dev/null":
            return UpstreamSettings(id="/dev/null", path="/dev/null", uri=uri)
        case "file":
            collected.wrong("upstreams", f"{uri}: files are not supported yet")
            return None
        case _:
            collected.got(
                "upstreams", uri, "a http, https, unix or static URL, or file:///dev/null"
            )
            return None


def _http(
    collected: Collected, path: str, uri: str, name: str = ""
) -> UpstreamSettings:
    return UpstreamSettings(
        id=name or path,
        path=path,
        uri=uri,
        pass_host_header=collected.boolean("pass_host_header"),
        insecure_skip_tls_verify=collected.boolean("ssl_upstream_insecure_skip_verify"),
        timeout=collected.seconds("upstream_timeout"),
    )
