"""Upstreams: which one a path belongs to, and what is sent there.

Paths are compared as oauth2-proxy does: decoded, and without empty and dot segments (a
path with some is redirected to the one without). First come the upstreams that rewrite,
those with the longer pattern before the shorter; then the others in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

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
from ..pages.challenge import forbidden_response, plain_response
from ..request.original import OriginalRequest
from ..session import Session
from ..settings.root import Settings, UpstreamSettings
from ..settings.rules import Condition
from .headers import UpstreamHeaders
from .rewriting import PathRewrite, clean_path, decode_path, escape_path
from .upgrades import AllowedOrigins, requested_upgrade

DEFAULT_PORTS = {"http": 80, "https": 443}
# HTTP/2 with TLS is h2, without it h2c.
SCHEMES = {
    "http": "http",
    "https": "https",
    "unix": "http",
    "h2c": "http",
    "h2": "https",
}
NOT_FOUND = plain_response(404, b"404 page not found\n")
# What makes decoding or cleaning change a path.
NEEDS_CLEANING = re.compile(rb"%|//|/\.|\A[^/]")
PATH_VARIABLE = re.compile(r"\{([^{}:]+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")


class Route(Struct, frozen=True):
    """An upstream at a path: everything below it when it ends in a slash.

    One of ``upstream``, ``root`` (a folder) and ``answer`` is set.
    """

    id: str
    path: bytes
    pattern: Pattern | None = None
    rewrite: PathRewrite | None = None
    upstream: Upstream | None = None
    root: str = ""
    response: Respond | None = None
    condition: ConditionMatcher | None = None
    authority: bytes = b""
    pass_host_header: bool = True
    upgrades: bool = False

    def matches(self, path: bytes) -> bool:
        """Whether a request's path, without query, belongs here."""
        if self.rewrite is not None:
            return self.rewrite.matches(path)
        if self.pattern is not None:
            return self.pattern.search(decode_path(path)) is not None
        if self.path.endswith(b"/"):
            return path.startswith(self.path)
        return path == self.path


class Upstreams:
    """The configured upstreams; raises `SettingsError` for those that can't be."""

    def __init__(
        self, settings: Settings, is_own_cookie: Callable[[bytes], bool]
    ) -> None:
        self._routes = _build_routes(settings.upstreams)
        self._raw = settings.proxy_raw_path
        self._origins = AllowedOrigins(settings.websocket_origins)
        self._heads = UpstreamHeaders(
            HeaderInjector(settings.inject_request_headers),
            is_own_cookie,
            strips_identity=settings.strip_identity_headers,
            via=settings.via.encode(),
        )
        self._follow = settings.follow_symlinks

    def forward(
        self,
        request: Request,
        original: OriginalRequest,
        session: Session | None,
        headers: Headers,
        *,
        reusable: bool = False,
    ) -> Decision | None:
        """The decision for a request that may pass; *headers* go to the client.

        *reusable*: this very object will come again. The answer is
        None when there are upstreams for the path, but none of them for this request.
        """
        path, mark, query = request.target.partition(b"?")
        if NEEDS_CLEANING.search(path):
            decoded = path if self._raw else unquote_to_bytes(path)
            clean = clean_path(decoded)
            if clean != decoded:
                target = clean if self._raw else escape_path(clean)
                return _redirect_response(target + mark + query, headers, session)
        else:
            decoded = path
        route = self._find_route(decoded, request.method, original.host, session)
        if route is None:
            if any(one.matches(decoded) for one in self._routes):
                return None
            if not decoded.endswith(b"/") and any(
                one.matches(decoded + b"/") for one in self._routes
            ):
                return _redirect_response(path + b"/" + mark + query, headers, session)
            return _static_response(NOT_FOUND, headers, session)
        if route.response is not None:
            return _static_response(route.response, headers, session)
        target = request.target
        if route.rewrite is not None:
            target = route.rewrite.rewrite(unquote_to_bytes(path), query)
        if route.upstream is None:
            file = _file_path(route, unquote_to_bytes(target.partition(b"?")[0]))
            return ServeFile(
                route.root,
                file,
                headers,
                user=session.name if session else "",
                verdict="allowed",
                reason=_allow_reason(session),
                upstream=route.id,
                follow=self._follow,
            )
        return self._forward(
            route, route.upstream, target, request, original, session, headers, reusable
        )

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
        head, identity = self._heads.build(request, original, session, host, upgrade)
        return Forward(
            upstream,
            request.method,
            target,
            head,
            headers,
            bool(upgrade),
            user=user,
            verdict="allowed",
            reason=_allow_reason(session),
            protected=self._heads.protected,
            identity=identity,
            reusable=reusable,
        )


def _static_response(
    answer: Respond, headers: Headers, session: Session | None
) -> Respond:
    return replace(
        answer,
        headers=(*answer.headers, *headers),
        user=session.name if session else "",
        verdict="allowed",
        reason=_allow_reason(session),
    )


def _redirect_response(
    target: bytes, headers: Headers, session: Session | None
) -> Respond:
    # Two slashes at its start would be another host's URL.
    location = b"/" + target.lstrip(b"/")
    answer = plain_response(301, b"", ((b"location", location),))
    return _static_response(answer, headers, session)


def _allow_reason(session: Session | None) -> str:
    """Why a request may pass: by its session, or by a rule that asks for none."""
    return "session" if session else "skipped"


def _file_path(route: Route, path: bytes) -> str:
    """The path below the folder: without what the route matched."""
    text = decode_path(path)
    if route.rewrite is None and route.pattern is None:
        text = text.removeprefix(route.path.decode())
    return "/" + text.lstrip("/")


def _build_routes(settings: Sequence[UpstreamSettings]) -> list[Route]:
    """In the order of asking; of the same length, in that of the configuration."""
    routes, problems = [], []
    for upstream in settings:
        try:
            routes.append(_build_route(upstream))
        except ValueError as error:
            problems.append(f"upstreams: {upstream.id!r}: {error}")
    for name, texts in (
        ("id", [upstream.id for upstream in settings]),
        # One path may lead to several when it depends on a condition to which.
        ("path", [one.path for one in settings if one.condition == Condition()]),
    ):
        problems += [
            f"upstreams: the {name} {text!r} is there twice"
            for text in sorted({text for text in texts if texts.count(text) > 1})
        ]
    if problems:
        raise SettingsError(tuple(problems))
    return sorted(routes, key=lambda route: (route.rewrite is None, -len(route.path)))


def _build_route(settings: UpstreamSettings) -> Route:
    """Raises ValueError for what is wrong with an upstream."""
    if not settings.id:
        raise ValueError("an empty id")
    path = settings.path.encode()
    rewriting = pattern = None
    if settings.rewrite_target:
        rewriting = PathRewrite(settings.path, settings.rewrite_target)
    elif not settings.path.startswith("/"):
        raise ValueError(f"got the path {settings.path!r}, expected one that begins /")
    elif "{" in settings.path or "}" in settings.path:
        pattern = _compile_variables(settings.path)
    kind = _target(settings)
    when = (
        None
        if settings.condition == Condition()
        else ConditionMatcher(settings.condition)
    )
    return Route(settings.id, path, pattern, rewriting, condition=when, **kind)


def _target(settings: UpstreamSettings) -> dict[str, Any]:
    """What kind of upstream it is."""
    if settings.static_code is not None:
        return {"response": plain_response(settings.static_code, b"Authenticated")}
    parts = urlsplit(settings.uri)
    if parts.scheme == "file" and parts.path.startswith("/"):
        # /dev/null, the customary way to say that there is no upstream.
        if parts.path == "/dev/null":
            return {"response": NOT_FOUND}
        return {"root": unquote(parts.path)}
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ValueError(f"got {settings.uri!r}, expected a URL")
    upstream = Upstream(
        id=settings.id,
        scheme=scheme,
        host=parts.hostname or "localhost",
        port=parts.port or DEFAULT_PORTS[scheme],
        unix=unquote(parts.path) if parts.scheme == "unix" else "",
        timeout=settings.timeout,
        verify=not settings.insecure_skip_tls_verify,
        ca_pem=settings.ca_pem,
        trust_system=settings.trust_system,
        server_name=settings.server_name,
        keep_alive=not settings.disable_keep_alives,
        http2=parts.scheme in ("h2", "h2c"),
    )
    return {
        "upstream": upstream,
        "authority": (parts.netloc or "localhost").rpartition("@")[2].encode(),
        "pass_host_header": settings.pass_host_header,
        "upgrades": settings.proxy_websockets,
    }


def _compile_variables(path: str) -> Pattern:
    """A path with ``{name}`` or ``{name:pattern}``: one segment, or what it says."""
    parts: list[str] = []
    end = 0
    for variable in PATH_VARIABLE.finditer(path):
        parts += (
            escape_pattern(path[end : variable.start()]),
            f"({variable[2] or '[^/]+'})",
        )
        end = variable.end()
    rest = path[end:]
    if "{" in "".join(parts[::2]) + rest or "}" in "".join(parts[::2]) + rest:
        raise ValueError(f"got the path {path!r}, expected pairs of braces")
    whole = "" if path.endswith("/") else "$"
    return compile_pattern("^" + "".join(parts) + escape_pattern(rest) + whole)
