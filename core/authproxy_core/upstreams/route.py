"""Routes: the upstreams of the settings, compiled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from ..access.matchers import ConditionMatcher
from ..access.path_variants import fold_path
from ..errors import SettingsError
from ..go_regex import Pattern, compile_pattern, escape_pattern, literal_prefix
from ..messages import Respond, Upstream
from ..pages.challenge import plain_response
from ..settings.root import UpstreamSettings
from ..settings.rules import Condition
from .rewriting import PathRewrite, decode_path

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
PATH_VARIABLE = re.compile(r"\{([^{}:]+)(?::((?:[^{}]|\{[^{}]*\})+))?\}")


class Route(Struct, frozen=True):
    """An upstream at a path: everything below it if the path ends in a slash.

    Exactly one of ``upstream``, ``root`` (root directory of static files) and
    ``response`` is set. ``authority`` replaces the Host header unless
    ``pass_host_header``. ``folded_path`` or ``folded_pattern`` match other spellings.
    ``literal`` is the start of the paths that the pattern matches, as far as it is known.
    """

    id: str
    path: bytes
    pattern: Pattern | None = None
    rewrite: PathRewrite | None = None
    condition: ConditionMatcher | None = None
    upstream: Upstream | None = None
    root: str = ""
    response: Respond | None = None
    folded_path: str = ""
    folded_pattern: Pattern | None = None
    literal: str = ""
    hosts: tuple[str, ...] = ()
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

    def matches_folded(self, path: str) -> bool:
        """Return whether *path*, as returned by `fold_path`, matches in some spelling.

        Most servers treat /admin like /admin/.
        """
        if self.folded_pattern is not None:
            return self.folded_pattern.search(path) is not None
        if self.folded_path.endswith("/"):
            return f"{path}/".startswith(self.folded_path)
        return path == self.folded_path

    @property
    def denies(self) -> bool:
        """Whether the response is an error that authproxy sends by itself."""
        return self.response is not None and self.response.status >= 400


def build_routes(settings: Sequence[UpstreamSettings]) -> list[Route]:
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
    rewrite = pattern = folded_pattern = condition = None
    literal = ""
    if settings.rewrite_target:
        rewrite = PathRewrite(settings.path, settings.rewrite_target)
        folded_pattern = compile_pattern(f"(?i)(?:{settings.path})")
        literal = literal_prefix(settings.path)
    elif not settings.path.startswith("/"):
        raise ValueError(
            f"got path {settings.path!r}, expected a path that starts with /"
        )
    elif "{" in settings.path or "}" in settings.path:
        text = _variables_pattern(settings.path)
        pattern, folded_pattern = compile_pattern(text), compile_pattern("(?i)" + text)
        literal = literal_prefix(text)
    if settings.condition != Condition():
        condition = ConditionMatcher(settings.condition)
    route = Route(
        settings.id,
        settings.path.encode(),
        pattern,
        rewrite,
        condition,
        folded_path=fold_path(settings.path),
        folded_pattern=folded_pattern,
        literal=literal,
        hosts=settings.condition.hosts,
    )
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


def _variables_pattern(path: str) -> str:
    """Return the pattern of a path with ``{name}`` (one segment) or ``{name:pattern}``."""
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
    return "^" + "".join(parts) + escape_pattern(rest) + anchor
