"""Routing: the upstream for a request target, and the decision to forward to it.

Paths are matched as in oauth2-proxy: decoded, and without empty and dot segments (a
path that has some is redirected to the clean one). Upstreams with rewrite_target come
first, longer patterns before shorter ones; the others follow in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import SplitResult, unquote, unquote_to_bytes, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from ..access.matchers import ConditionMatcher
from ..errors import SettingsError
from ..go_regex import Pattern, compile_pattern, escape_pattern
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
from ..pages.challenge import forbidden_response, plain_response, redirect_response
from ..request.original import OriginalRequest
from ..session import Session
from ..settings.root import Settings, UpstreamSettings
from ..settings.rules import Condition
from .headers import UpstreamHeaders
from .rewriting import (
    PathRewrite,
    clean_path,
    decode_dots,
    decode_path,
    escape_path,
    requote_path,
)
from .upgrades import AllowedOrigins, requested_upgrade

DEFAULT_PORTS = {"http": 80, "https": 443}
# h2 is HTTP/2 over TLS, h2c is HTTP/2 without TLS.
SCHEMES = {
    "http": "http",
    "https": "https",
    "unix": "http",
    "h2c": "http",
    "h2": "https",
}
NOT_FOUND = plain_response(404, b"404 page not found\n")
# Matches every path that decoding or cleaning can change.
NEEDS_CLEANING = re.compile(rb"%|//|/\.|\A[^/]")
PATH_VARIABLE = re.compile(r"\{([^{}:]+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")


class Route(Struct, frozen=True):
    """An upstream at a path: everything below it if the path ends in a slash.

    Exactly one of ``upstream``, ``root`` (root directory of static files) and
    ``response`` is set. ``authority`` replaces the Host header unless
    ``pass_host_header``.
    """

    id: str
    path: bytes
    pattern: Pattern | None = None
    rewrite: PathRewrite | None = None
    condition: ConditionMatcher | None = None
    upstream: Upstream | None = None
    root: str = ""
    response: Respond | None = None
    authority: bytes = b""
    pass_host_header: bool = True
    upgrades: bool = False

    def matches(self, path: bytes) -> bool:
        """Return whether *path*, decoded and without the query, matches the route."""
        if self.rewrite is not None:
            return self.rewrite.matches(path)
        if self.pattern is not None:
            return self.pattern.search(decode_path(path)) is not None
        if self.path.endswith(b"/"):
            return path.startswith(self.path)
        return path == self.path


class Upstreams:
    """The configured upstreams; raises `SettingsError` for invalid ones."""

    def __init__(
        self, settings: Settings, is_session_cookie: Callable[[bytes], bool]
    ) -> None:
        self._routes = _build_routes(settings.upstreams)
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
        if all upstreams for the path have conditions and none of them matches.
        """
        path, mark, query = request.target.partition(b"?")
        decoded = path
        if NEEDS_CLEANING.search(path):
            decoded = path if self._raw else unquote_to_bytes(path)
            clean = self._clean(path, decoded)
            if clean is not None:
                return _redirect_response(clean + mark + query, headers, session)
        route = self._find_route(decoded, request.method, original.host, session)
        if route is None:
            if self._has_route(decoded):
                return None
            if not decoded.endswith(b"/") and self._has_route(decoded + b"/"):
                return _redirect_response(path + b"/" + mark + query, headers, session)
            return _static_response(NOT_FOUND, headers, session)
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

    def _find_route(
        self, path: bytes, method: bytes, host: str, session: Session | None
    ) -> Route | None:
        for route in self._routes:
            if route.matches(path) and (
                route.condition is None
                or route.condition.matches(host, method, session)
            ):
                return route
        return None

    def _has_route(self, path: bytes) -> bool:
        """Return whether a route matches *path*, whatever its condition."""
        return any(route.matches(path) for route in self._routes)

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


# -- routes from settings


def _build_routes(settings: Sequence[UpstreamSettings]) -> list[Route]:
    """Return the routes in matching order; equal lengths keep the configured order."""
    routes, problems = [], []
    for upstream in settings:
        try:
            routes.append(_build_route(upstream))
        except ValueError as error:
            problems.append(f"upstreams: {upstream.id!r}: {error}")
    for name, texts in (
        ("id", [upstream.id for upstream in settings]),
        # Upstreams with conditions may share a path.
        ("path", [one.path for one in settings if one.condition == Condition()]),
    ):
        problems += [
            f"upstreams: duplicate {name} {text!r}"
            for text in sorted({text for text in texts if texts.count(text) > 1})
        ]
    if problems:
        raise SettingsError(tuple(problems))
    return sorted(routes, key=lambda route: (route.rewrite is None, -len(route.path)))


def _build_route(settings: UpstreamSettings) -> Route:
    """Return the route of an upstream; raises `ValueError` if it is invalid."""
    if not settings.id:
        raise ValueError("an empty id")
    rewrite = pattern = condition = None
    if settings.rewrite_target:
        rewrite = PathRewrite(settings.path, settings.rewrite_target)
    elif not settings.path.startswith("/"):
        raise ValueError(
            f"got path {settings.path!r}, expected a path that starts with /"
        )
    elif "{" in settings.path or "}" in settings.path:
        pattern = _compile_variables(settings.path)
    if settings.condition != Condition():
        condition = ConditionMatcher(settings.condition)
    route = Route(settings.id, settings.path.encode(), pattern, rewrite, condition)
    if settings.static_code is not None:
        response = plain_response(settings.static_code, b"Authenticated")
        return replace(route, response=response)
    uri = urlsplit(settings.uri)
    if uri.scheme == "file" and uri.path.startswith("/"):
        # oauth2-proxy users write /dev/null for "no upstream".
        if uri.path == "/dev/null":
            return replace(route, response=NOT_FOUND)
        return replace(route, root=unquote(uri.path))
    return replace(
        route,
        upstream=_build_upstream(settings, uri),
        authority=(uri.netloc or "localhost").rpartition("@")[2].encode(),
        pass_host_header=settings.pass_host_header,
        upgrades=settings.proxy_websockets,
    )


def _build_upstream(settings: UpstreamSettings, uri: SplitResult) -> Upstream:
    scheme = SCHEMES.get(uri.scheme)
    if scheme is None:
        raise ValueError(f"got {settings.uri!r}, expected a URL")
    return Upstream(
        id=settings.id,
        scheme=scheme,
        host=uri.hostname or "localhost",
        port=uri.port or DEFAULT_PORTS[scheme],
        unix=unquote(uri.path) if uri.scheme == "unix" else "",
        timeout=settings.timeout,
        verify=not settings.insecure_skip_tls_verify,
        ca_pem=settings.ca_pem,
        trust_system=settings.trust_system,
        server_name=settings.server_name,
        keep_alive=not settings.disable_keep_alives,
        http2=uri.scheme in ("h2", "h2c"),
    )


def _compile_variables(path: str) -> Pattern:
    """Compile a path with ``{name}`` (one segment) or ``{name:pattern}``."""
    parts: list[str] = []
    end = 0
    for variable in PATH_VARIABLE.finditer(path):
        parts += (
            escape_pattern(path[end : variable.start()]),
            f"({variable[2] or '[^/]+'})",
        )
        end = variable.end()
    rest = path[end:]
    literals = "".join(parts[::2]) + rest
    if "{" in literals or "}" in literals:
        raise ValueError(f"got path {path!r}, expected balanced braces")
    anchor = "" if path.endswith("/") else "$"
    return compile_pattern("^" + "".join(parts) + escape_pattern(rest) + anchor)
