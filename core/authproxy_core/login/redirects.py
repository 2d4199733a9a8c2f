r"""Redirect targets after login and sign-out: the request's host or whitelist_domains.

A target is checked as browsers parse it (WHATWG URL standard), not as RFC 3986 says:
browsers drop tab, CR and LF, read a backslash as a slash, and ``//`` starts an
authority. Ambiguous targets are rejected. Query and fragment cannot change the host
and are not checked: ``/page?next=https://other.example/`` is allowed.

Gateways and applications may decode and normalize a path again, so a path is also
checked decoded once and twice, and with its dot segments resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote_to_bytes

from ..errors import RequestError
from ..messages import Request, single_header
from ..request.forms import parse_form
from ..request.hosts import HOST_NAME, IPV6_LITERAL, PORT, listed_hosts
from ..request.original import OriginalRequest, host_name, parse_address
from ..settings.root import Settings, is_proxy_endpoint

MAX_TARGET_BYTES = 16 << 10  # in UTF-8; a login state must hold a redirect target
MAX_WRAPPINGS = 4  # logins around a redirect target
DECODINGS = 2
ROOT = "/"

_HEADER = b"x-auth-request-redirect"
_ABSOLUTE = re.compile(
    rf"https?://(?P<host>(?i:{HOST_NAME}|{IPV6_LITERAL}))(?::(?P<port>{PORT}))?"
    r"(?P<rest>[/?#].*)?",
    re.DOTALL | re.ASCII,
)
# Hosts that browsers parse as an IPv4 address (WHATWG URL, "ends in a number").
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_REST = re.compile(r"[?#]")
_SLASHES = re.compile(r"/+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_INVISIBLE = re.compile(
    r"[\s\x00-\x20\x7f-\xa0\xad\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\ufeff]"
)


class RedirectPolicy:
    """Validates redirect targets, and chooses the target of a request."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.proxy_prefix
        self._listed = listed_hosts(settings.whitelist_domains)
        # Exact paths: other spellings of them are rejected like all endpoints.
        self._harmless = {f"{self._prefix}/{name}" for name in ("auth", "userinfo")}
        self._logins = {f"{self._prefix}/{name}" for name in ("sign_in", "start")}

    def allows(self, target: str, host: str) -> bool:
        """Return whether a login on *host* may redirect to *target*."""
        return self.is_safe(target) and (
            not self.is_proxy_endpoint(target, host)
            or _path_on(host, target) in self._harmless
        )

    def is_safe(self, target: str) -> bool:
        """Return whether *target* leads to the request's host or a whitelisted one.

        *target* is a path with optional query and fragment, or an absolute URL.
        """
        if is_too_long(target) or _CONTROLS.search(target):
            return False
        if target.startswith("/"):
            return _has_no_host(target)
        return self._is_listed(target)

    def is_proxy_endpoint(self, target: str, host: str) -> bool:
        """Return whether *target* is below proxy_prefix on *host*.

        A login that ends at most of these paths would sign out, or start another login.
        """
        path = _uri_on(host, target)
        return path is not None and any(
            is_proxy_endpoint(self._prefix, _SLASHES.sub("/", _resolve_dots(variant)))
            for variant in _path_variants(path)
        )

    def choose(
        self,
        request: Request,
        original: OriginalRequest,
        form: Mapping[str, str],
        *,
        allow_proxy_endpoints: bool = False,
    ) -> str:
        """Return the first allowed candidate, else "/".

        Candidates are ``rd`` of the request's *form* values, X-Auth-Request-Redirect
        and the original URL. An absolute URL of the origin of *original* needs no
        whitelist entry; its path is returned. A URL of the sign-in page or of the start
        endpoint counts as its own ``rd``, which is checked alike. Sign-out sets
        *allow_proxy_endpoints*.
        """
        for candidate in self._candidates(request, original, form):
            for wrapped in self._unwrap(candidate, original.host):
                target = wrapped
                if not self.is_safe(target):
                    target = _strip_own_origin(target, original)
                if self.allows(target, original.host) or (
                    allow_proxy_endpoints and self.is_safe(target)
                ):
                    return target
        return ROOT

    def _unwrap(self, target: str, host: str) -> Iterator[str]:
        """Yield *target*, and while it is the URL of a login, the target of that."""
        yield target
        for _ in range(MAX_WRAPPINGS):
            if _path_on(host, target) not in self._logins:
                return
            query = target.partition("?")[2].partition("#")[0]
            try:
                target = parse_form(query.encode()).get("rd", "")
            except (RequestError, UnicodeEncodeError):
                return
            yield target

    def is_target_too_long(
        self, request: Request, original: OriginalRequest, form: Mapping[str, str]
    ) -> bool:
        """Return whether the first candidate of `choose` is longer than the limit.

        A login would then end at another page without notice.
        """
        candidates = self._candidates(request, original, form)
        return is_too_long(next(filter(None, candidates), ""))

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
        """Return whether the address *host* is whitelisted; subdomains do not exist."""
        return parse_address(host.strip("[]")) is not None and any(
            entry.host == host and entry.matches(host, port) for entry in self._listed
        )


def _uri_on(host: str, target: str) -> str | None:
    """Return *target* from its path on if its host is *host*, else None."""
    if target.startswith("/"):
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or host_name(match["host"]) != host_name(host):
        return None
    return match["rest"] or "/"


def _path_on(host: str, target: str) -> str | None:
    """Return the raw path of *target* if its host is *host*, else None."""
    uri = _uri_on(host, target)
    return None if uri is None else _REST.split(uri, maxsplit=1)[0]


def is_too_long(target: str) -> bool:
    """Return whether *target* is longer than `MAX_TARGET_BYTES`."""
    return len(target.encode("utf-8", "surrogatepass")) > MAX_TARGET_BYTES


def _strip_own_origin(target: str, original: OriginalRequest) -> str:
    """Return the path of an absolute *target* on *original*'s origin, else *target*."""
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
    """Return *port*, or "" if it is the default port of *scheme*."""
    return "" if port == {"https": "443", "http": "80"}[scheme] else port


def _decode_header(raw: bytes) -> str:
    """Decode *raw*; invalid UTF-8 becomes surrogates, which no safe target contains."""
    return raw.decode("utf-8", "surrogateescape")


def _has_no_host(target: str) -> bool:
    return not any(_may_name_host(variant) for variant in _path_variants(target))


def _path_variants(target: str) -> Iterator[str]:
    """Yield the path of *target* as received, decoded once, and decoded twice."""
    path = _REST.split(target, maxsplit=1)[0]
    yield path
    for _ in range(DECODINGS):
        if "%" not in path:
            return
        path = _unquote(path)
        yield path


def _may_name_host(path: str) -> bool:
    """Return whether a parser could find a host in *path*.

    Two leading slashes start an authority before dot segments are resolved, and
    resolving dot segments can produce two leading slashes.
    """
    if _INVISIBLE.match(path, 1) or _strip_invisible(path).startswith("//"):
        return True
    return _resolve_dots(path).startswith("//")


def _strip_invisible(path: str) -> str:
    """Return *path* without characters that browsers drop, backslashes as slashes."""
    return _INVISIBLE.sub("", path).replace("\\", "/")


def _resolve_dots(path: str) -> str:
    """Return `_strip_invisible` of *path* with dot segments resolved."""
    visible = _strip_invisible(path)
    segments: list[str] = []
    for segment in visible.split("/")[1:]:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if visible.endswith(("/.", "/..")):
        segments.append("")  # a final dot segment leaves its slash
    return "/" + "/".join(segments)


def _unquote(path: str) -> str:
    raw = unquote_to_bytes(path)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
