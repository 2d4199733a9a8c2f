"""The option ``upstreams``: an address is also the path that it answers for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec.structs import replace

from authproxy_core.encoding import is_token
from authproxy_core.settings.root import UpstreamSettings

from ..read.files import read_text
from ..read.resolved import ResolvedOptions

KEY = "upstreams"
CA_KEY = "upstream_ca_files"
ORIGIN = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?"
)
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
BAD_CHARACTER = re.compile(r"[\x00-\x20\x7f]")


def upstreams(collected: ResolvedOptions) -> tuple[UpstreamSettings, ...]:
    """What oauth2-proxy makes of each address; problems are noted."""
    found = [_upstream(collected, uri) for uri in collected.strings(KEY)]
    good = [upstream for upstream in found if upstream is not None]
    for path in _repeated([upstream.path for upstream in good]):
        collected.add_problem(
            KEY, f"two of them answer for the path {path!r}; expected one for each path"
        )
    return tuple(good)


def _repeated(texts: Sequence[str]) -> list[str]:
    return sorted({text for text in texts if texts.count(text) > 1})


def _upstream(collected: ResolvedOptions, uri: str) -> UpstreamSettings | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
        if BAD_CHARACTER.search(uri) or BAD_ESCAPE.search(parts.path):
            raise ValueError
    except ValueError:
        collected.add_mismatch(KEY, uri, "an address such as http://127.0.0.1:8080/")
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
            collected.add_mismatch(
                KEY,
                uri,
                "http://HOST, https://HOST, h2c://HOST, h2://HOST, unix:///PATH, "
                "static://CODE or file:///FOLDER/",
            )
            return None


def _proxied(
    collected: ResolvedOptions, name: str, path: str, uri: str
) -> UpstreamSettings:
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
    collected: ResolvedOptions, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    text = parts.netloc
    if not text.isascii() or not text.isdigit():
        collected.add_warning(KEY, f"{uri} has no status code; it answers 200")
        text = "200"
    if len(text) != 3 or not 200 <= int(text) <= 599:
        collected.add_mismatch(KEY, uri, "a status code from 200 to 599")
        return None
    return UpstreamSettings(id=uri, path="/", static_code=int(text))


def _file(
    collected: ResolvedOptions, uri: str, parts: SplitResult
) -> UpstreamSettings | None:
    """A folder, for the path in the fragment or else for its own.

    The null device is the customary way to say that there is no upstream.
    """
    if parts.netloc or not parts.path.startswith("/"):
        collected.add_mismatch(KEY, uri, "file:///FOLDER/ or file:///FOLDER/#/PATH/")
        return None
    path = unquote(parts.fragment) or unquote(parts.path)
    return UpstreamSettings(id=path, path=path, uri=uri.partition("#")[0])


def trusted(
    collected: ResolvedOptions, found: Sequence[UpstreamSettings]
) -> tuple[UpstreamSettings, ...]:
    """*found* with the authorities to trust, where they name none themselves.

    As in oauth2-proxy, those for the provider count for upstreams too.
    """
    own = collected.strings(CA_KEY)
    if own:
        pem = _certificates(collected, own)
    else:
        # What is wrong with these is said where the provider's client is tried out.
        files = collected.strings("provider_ca_files")
        pem = "\n".join([_text(path) for path in files])
    if not pem:
        return tuple(found)
    system = not own and collected.boolean("use_system_trust_store")
    return tuple(
        one if one.ca_pem else replace(one, ca_pem=pem, trust_system=system)
        for one in found
    )


def _certificates(collected: ResolvedOptions, files: Sequence[str]) -> str:
    pem = "\n".join([read_text(collected, CA_KEY, path) or "" for path in files])
    try:
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        if CA_KEY not in collected.failed:
            collected.add_mismatch(CA_KEY, list(files), "files of certificates in PEM")
    return pem


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return ""


def names(collected: ResolvedOptions) -> None:
    """Note what is wrong with the options that are names."""
    via = collected.string("via")
    if via and not is_token(via.encode()):
        collected.add_mismatch("via", via, "a name without blanks, such as authproxy")
    for origin in collected.strings("websocket_origins"):
        if origin != "*" and not ORIGIN.fullmatch(origin):
            collected.add_mismatch(
                "websocket_origins", origin, "scheme://host[:port], or *"
            )
