"""Upstreams: which one a path belongs to, and the whole head that it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from .challenge import plain
from .errors import SettingsError
from .headers import Injector, forwarded_headers
from .messages import (
    Decision,
    Forward,
    Headers,
    Request,
    Respond,
    Upstream,
    header_values,
)
from .original import Original
from .session import Session
from .settings import UpstreamSettings

DEFAULT_PORTS = {"http": 80, "https": 443}
NOT_FOUND = plain(404, b"404 page not found\n")


class Route(Struct, frozen=True):
    """An upstream at a path: everything below it when it ends in a slash."""

    path: bytes
    upstream: Upstream | None
    answer: Respond | None
    pass_host_header: bool
    authority: bytes

    def matches(self, path: bytes) -> bool:
        """Whether a request's path, without query, belongs here."""
        return (
            path.startswith(self.path)
            if self.path.endswith(b"/")
            else path == self.path
        )


class Upstreams:
    """The configured upstreams, longest path first."""

    def __init__(
        self,
        settings: Sequence[UpstreamSettings],
        injector: Injector,
        is_own_cookie: Callable[[bytes], bool],
    ) -> None:
        routes = [_route(upstream) for upstream in settings]
        self._routes = sorted(routes, key=lambda route: len(route.path), reverse=True)
        self._injector = injector
        self._is_own_cookie = is_own_cookie

    def pass_on(
        self,
        request: Request,
        original: Original,
        session: Session | None,
        headers: Headers,
    ) -> Decision:
        """The decision for a request that may pass; *headers* go to the client."""
        path = request.target.partition(b"?")[0]
        for route in self._routes:
            if route.matches(path):
                break
        else:
            return _own_answer(NOT_FOUND, headers, session)
        if route.answer is not None:
            return _own_answer(route.answer, headers, session)
        assert route.upstream is not None  # noqa: S101 - a route has one of the two
        return Forward(
            route.upstream,
            request.method,
            request.target,
            self._head(request, original, session, route),
            headers,
            user=session.name if session else "",
            verdict="allowed",
            reason=_reason(session),
        )

    def _head(
        self,
        request: Request,
        original: Original,
        session: Session | None,
        route: Route,
    ) -> Headers:
        host = original.host.encode() if route.pass_host_header else route.authority
        chain = [*header_values(request.headers, b"x-forwarded-for")]
        if request.peer:
            chain.append(request.peer.encode())
        replaced: Headers = (
            (b"host", host),
            (b"x-forwarded-for", b", ".join(chain)),
            (b"x-forwarded-host", original.host.encode()),
            (b"x-forwarded-proto", original.scheme.encode()),
        )
        return forwarded_headers(
            request.headers,
            self._injector.headers(session),
            stripped=self._injector.stripped,
            is_own_cookie=self._is_own_cookie,
            replaced=replaced,
        )


def _own_answer(answer: Respond, headers: Headers, session: Session | None) -> Respond:
    return replace(
        answer,
        headers=(*answer.headers, *headers),
        user=session.name if session else "",
        verdict="allowed",
        reason=_reason(session),
    )


def _reason(session: Session | None) -> str:
    """Why a request may pass: by its session, or by a rule that asks for none."""
    return "session" if session else "skipped"


def _route(settings: UpstreamSettings) -> Route:
    path = settings.path.encode()
    if settings.static_code is not None:
        answer = plain(settings.static_code, b"Authenticated")
        return Route(path, None, answer, True, b"")
    if settings.uri.startswith("file:"):
        # /dev/null, the customary way to say that there is no upstream.
        return Route(path, None, NOT_FOUND, True, b"")
    parts = urlsplit(settings.uri)
    if parts.scheme not in ("http", "https", "unix"):
        raise SettingsError((f"upstreams: got {settings.uri!r}, expected a URL",))
    scheme = "http" if parts.scheme == "unix" else parts.scheme
    upstream = Upstream(
        id=settings.id,
        scheme=scheme,
        host=parts.hostname or "localhost",
        port=parts.port or DEFAULT_PORTS[scheme],
        unix=parts.path if parts.scheme == "unix" else "",
        timeout=settings.timeout,
        verify=not settings.insecure_skip_tls_verify,
        ca_pem=settings.ca_pem,
        trust_system=settings.trust_system,
        server_name=settings.server_name,
        keep_alive=not settings.disable_keep_alives,
    )
    authority = (parts.netloc or "localhost").rpartition("@")[2].encode()
    return Route(path, upstream, None, settings.pass_host_header, authority)
