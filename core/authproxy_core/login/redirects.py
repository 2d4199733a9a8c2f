r"""Where to go after login or sign-out: only to the own host or a listed one.

A target is judged as a browser reads it (WHATWG URL standard), not as RFC 3986 would:
there a tab, CR or LF vanishes, a backslash is a slash and ``//`` starts an authority.
So what could be read in two ways is refused. The query and the fragment can't change
the host and are left alone: ``/page?next=https://other.example/`` is a page of ours.

Applications and gateways decode and normalise paths once more on the way, therefore a
path is also judged as it looks decoded once and twice, and with its dots resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_to_bytes

from ..messages import Request, single_header
from ..request.hosts import HOST_NAME, IPV6_LITERAL, PORT, listed_hosts
from ..request.original import OriginalRequest, host_name, parse_address
from ..settings.root import Settings

MAX_TARGET_LENGTH = (
    8192  # characters; longer ones don't survive a Location field anyway
)
DECODINGS = 2
ROOT = "/"

_HEADER = b"x-auth-request-redirect"
_ABSOLUTE = re.compile(
    rf"https?://(?P<host>(?i:{HOST_NAME}|{IPV6_LITERAL}))(?::(?P<port>{PORT}))?"
    r"(?P<rest>[/?#].*)?",
    re.DOTALL | re.ASCII,
)
# Hosts that a browser reads as an IPv4 address (WHATWG URL, ends-in-a-number).
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_REST = re.compile(r"[?#]")
_SLASHES = re.compile(r"/+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_INVISIBLE = re.compile(
    r"[\s\x00-\x20\x7f-\xa0\xad\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\ufeff]"
)


class RedirectPolicy:
    """Which redirects are allowed, and which one a request asks for."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.proxy_prefix + "/"
        self._listed = listed_hosts(settings.whitelist_domains)

    def allows(self, target: str, host: str) -> bool:
        """Whether *target* may be where a login on *host* ends."""
        return self.is_safe(target) and not self.is_proxy_endpoint(target, host)

    def is_safe(self, target: str) -> bool:
        """Whether a browser that follows *target* stays here or goes to a listed host.

        *target* is a path with an optional query and fragment, or an absolute URL.
        """
        if len(target) > MAX_TARGET_LENGTH or _CONTROLS.search(target):
            return False
        if target.startswith("/"):
            return _has_no_host(target)
        return self._is_listed(target)

    def is_proxy_endpoint(self, target: str, host: str) -> bool:
        """Whether *target* is one of the proxy's own endpoints on *host*.

        A login that ends at one would sign out again, or begin anew for ever.
        """
        path = target
        if not target.startswith("/"):
            match = _ABSOLUTE.fullmatch(target)
            if match is None or host_name(match["host"]) != host_name(host):
                return False
            path = match["rest"] or "/"
        return any(
            _SLASHES.sub("/", _resolve_dots(reading)).startswith(self._prefix)
            for reading in _path_variants(path)
        )

    def choose(
        self,
        request: Request,
        original: OriginalRequest,
        form: Mapping[str, str],
        *,
        own_endpoints: bool = False,
    ) -> str:
        """The first candidate that is allowed, else "/".

        *form* holds the request's form values. With *own_endpoints* (for sign-out) it
        may lead to the proxy's own pages too. An absolute URL of the original's own
        origin needs no entry in the list; it becomes its path.
        """
        for candidate in self._candidates(request, original, form):
            target = candidate
            if not self.is_safe(candidate):
                target = _strip_own_origin(candidate, original)
            if self.is_safe(target) and (
                own_endpoints or not self.is_proxy_endpoint(target, original.host)
            ):
                return target
        return ROOT

    def _candidates(
        self, request: Request, original: OriginalRequest, form: Mapping[str, str]
    ) -> Iterator[str]:
        yield form.get("rd", "")
        yield _decode_header(single_header(request.headers, _HEADER) or b"")
        uri = _decode_header(original.uri)
        if self.is_proxy_endpoint(uri, original.host):
            uri = ROOT
        if original.forwarded:
            yield f"{original.scheme}://{original.host}{uri}"
        yield uri

    def _is_listed(self, target: str) -> bool:
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            return False
        host, port = match["host"].lower(), match["port"] or ""
        if port and int(port) > 65535:
            return False
        if host.startswith("[") or _NUMERIC.fullmatch(host):
            return self._is_listed_address(host, port)
        return any(entry.matches(host, port) for entry in self._listed)

    def _is_listed_address(self, host: str, port: str) -> bool:
        """The same for an address: one spelling only, and nothing is below it."""
        return parse_address(host.strip("[]")) is not None and any(
            entry.host == host and entry.matches(host, port) for entry in self._listed
        )


def _strip_own_origin(target: str, original: OriginalRequest) -> str:
    """The path of an absolute *target* on the host of *original*, else *target*."""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return target
    scheme = target.partition(":")[0]
    host, port = match["host"], match["port"] or ""
    own_host = host_name(original.host)
    own_port = original.host[len(own_host) :].rpartition(":")[2].strip(".")
    if scheme not in ("https", original.scheme) or host_name(host) != own_host:
        return target
    if _explicit_port(port, scheme) != _explicit_port(own_port, original.scheme):
        return target
    rest = match["rest"] or "/"
    return rest if rest.startswith("/") else f"/{rest}"


def _explicit_port(port: str, scheme: str) -> str:
    """*port*, or "" if it is the one that *scheme* means without any."""
    return "" if port == {"https": "443", "http": "80"}[scheme] else port


def _decode_header(raw: bytes) -> str:
    """*raw* as text; what is no UTF-8 becomes surrogates, which no target may hold."""
    return raw.decode("utf-8", "surrogateescape")


def _has_no_host(target: str) -> bool:
    return not any(_may_name_host(reading) for reading in _path_variants(target))


def _path_variants(target: str) -> Iterator[str]:
    """The path of *target* as it stands, decoded once, and decoded twice."""
    path = _REST.split(target, maxsplit=1)[0]
    yield path
    for _ in range(DECODINGS):
        if "%" not in path:
            return
        path = _unquote(path)
        yield path


def _may_name_host(path: str) -> bool:
    """Whether *path* could be taken for something with a host in it.

    Two slashes at the start make a host before any dots are resolved, and dots can
    bring two slashes to the start.
    """
    if _INVISIBLE.match(path, 1) or _strip_invisible(path).startswith("//"):
        return True
    return _resolve_dots(path).startswith("//")


def _strip_invisible(path: str) -> str:
    """*path* without what browsers drop, backslashes as slashes."""
    return _INVISIBLE.sub("", path).replace("\\", "/")


def _resolve_dots(path: str) -> str:
    """*path* without what browsers drop, backslashes as slashes, dots resolved."""
    visible = _strip_invisible(path)
    kept: list[str] = []
    for segment in visible.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if visible.endswith(("/.", "/..")):
        kept.append("")  # dots at the end leave their slash
    return "/" + "/".join(kept)


def _unquote(path: str) -> str:
    raw = unquote_to_bytes(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
