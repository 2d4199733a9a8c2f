"""Routing: the upstream for a request target, and the decision to forward to it.

Paths are matched as in oauth2-proxy: decoded, and without empty and dot segments (a
path that has some is redirected to the clean one). Upstreams with rewrite_target come
first, longer patterns before shorter ones; the others follow in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from ..identity.headers import HeaderInjector
from ..messages import (
    Decision,
    Event,
    Forward,
    Headers,
    Request,
    Respond,
    ServeFile,
    Upstream,
)
from ..pages.challenge import forbidden_response, redirect_response
from ..request.original import OriginalRequest
from ..session import Session
from ..settings.root import Settings
from .headers import UpstreamHeaders
from .rewriting import (
    clean_path,
    decode_dots,
    decode_path,
    escape_path,
    requote_path,
)
from .route import NOT_FOUND, Route, build_routes
from .route_table import RouteTable
from .spellings import SpellingCheck, first_route
from .upgrades import AllowedOrigins, requested_upgrade

# Matches every path that decoding or cleaning can change.
NEEDS_CLEANING = re.compile(rb"%|//|/\.|\A[^/]")


class Upstreams:
    """The configured upstreams; raises `SettingsError` for invalid ones."""

    def __init__(
        self, settings: Settings, is_session_cookie: Callable[[bytes], bool]
    ) -> None:
        self._table = RouteTable(build_routes(settings.upstreams))
        self._spellings = SpellingCheck(self._table)
        self._raw = settings.proxy_raw_path
        self._origins = AllowedOrigins(settings.websocket_origins)
        self._headers = UpstreamHeaders(
            HeaderInjector(settings.inject_request_headers),
            is_session_cookie,
            strips_identity=settings.strip_identity_headers,
            via=settings.via.encode(),
        )
        self._follow_symlinks = settings.follow_symlinks

    def forward(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        headers: Headers,
        *,
        reusable: bool = False,
    ) -> Decision | None:
        """Return the decision for an allowed request; *headers* go to the client.

        *reusable*: the decision may be reused for an identical request. Returns None
        if all upstreams for the path have conditions and none of them matches, also if
        that is so in another spelling of the path.
        """
        path, mark, query = request.target.partition(b"?")
        decoded = path
        if NEEDS_CLEANING.search(path):
            decoded = path if self._raw else unquote_to_bytes(path)
            clean = self._clean(path, decoded)
            if clean is not None:
                return _redirect_response(clean + mark + query, headers, session)
        host, method = original.host, request.method
        matching = self._table.matching(decoded, host)
        route = first_route(matching, host, method, session)
        if route is None:
            if self._has_route(decoded):
                return None
            if not decoded.endswith(b"/") and self._has_route(decoded + b"/"):
                return _redirect_response(path + b"/" + mark + query, headers, session)
            return _static_response(NOT_FOUND, headers, session)
        if self._spellings.denies(path, route, host, method, session):
            return None
        if route.response is not None:
            return _static_response(route.response, headers, session)
        target = request.target
        if route.rewrite is not None:
            target = route.rewrite.rewrite(unquote_to_bytes(path), query)
        if route.upstream is None:
            return self._serve_file(route, target, session, headers)
        return self._forward(
            route, route.upstream, target, request, original, session, headers, reusable
        )

    def _clean(self, path: bytes, decoded: bytes) -> bytes | None:
        """Return the clean path to redirect to, None if *path* is clean.

        Encoded slashes stay, unless a server that decodes them would find more to clean.
        """
        clean = clean_path(path if self._raw else decode_dots(path))
        if clean != path:
            return requote_path(clean)
        clean = clean_path(decoded)
        return None if clean == decoded else escape_path(clean)

    def _has_route(self, path: bytes) -> bool:
        """Return whether a route matches *path*, whatever its condition."""
        return next(self._table.matching(path), None) is not None

    def _serve_file(
        self, route: Route, target: bytes, session: Session | None, headers: Headers
    ) -> ServeFile:
        return ServeFile(
            route.root,
            _file_path(route, unquote_to_bytes(target.partition(b"?")[0])),
            headers,
            user=session.name if session else "",
            verdict="allowed",
            reason=_allow_reason(session),
            upstream=route.id,
            follow=self._follow_symlinks,
        )

    def _forward(
        self,
        route: Route,
        upstream: Upstream,
        target: bytes,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        headers: Headers,
        reusable: bool,
    ) -> Decision:
        user = session.name if session else ""
        upgrade = requested_upgrade(request.headers) if route.upgrades else b""
        if upgrade and session and not self._origins.permits(request, original.host):
            return replace(
                forbidden_response(headers),
                events=(Event("denied", user, "foreign_origin"),),
                user=user,
                verdict="denied",
                reason="foreign_origin",
            )
        host = original.host.encode() if route.pass_host_header else route.authority
        fields, identity = self._headers.build(
            request, original, session, host, upgrade
        )
        return Forward(
            upstream,
            request.method,
            target,
            fields,
            headers,
            bool(upgrade),
            user=user,
            verdict="allowed",
            reason=_allow_reason(session),
            protected=self._headers.protected,
            identity=identity,
            reusable=reusable,
        )


def _static_response(
    response: Respond, headers: Headers, session: Session | None
) -> Respond:
    return replace(
        response,
        headers=(*response.headers, *headers),
        user=session.name if session else "",
        verdict="allowed",
        reason=_allow_reason(session),
    )


def _redirect_response(
    target: bytes, headers: Headers, session: Session | None
) -> Respond:
    # Two leading slashes would make it a URL of another host.
    location = b"/" + target.lstrip(b"/")
    return _static_response(redirect_response(301, location), headers, session)


def _allow_reason(session: Session | None) -> str:
    """Return why the request is allowed: its session, or a rule that requires none."""
    return "session" if session else "skipped"


def _file_path(route: Route, path: bytes) -> str:
    """Return the path below the root directory: *path* without that of the route."""
    text = decode_path(path)
    if route.rewrite is None and route.pattern is None:
        text = text.removeprefix(route.path.decode())
    return "/" + text.lstrip("/")
