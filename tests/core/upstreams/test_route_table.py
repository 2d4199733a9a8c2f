"""The index of routes: the same route as trying each of them in turn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy_core import UpstreamSettings
from authproxy_core.access.path_variants import fold_path, path_variants
from authproxy_core.settings.rules import Condition
from authproxy_core.upstreams.route import Route, build_routes
from authproxy_core.upstreams.route_table import RouteTable
from authproxy_core.upstreams.spellings import SpellingCheck, first_route

PLAIN = ("/", "/a", "/a/", "/a/b/", "/A/", "/b", "/{x}/b", "/a/{x:[0-9]+|b}", "/k/")
REWRITTEN = ("^/a", "^/a/(b|c)", "/b$", "^/(?:a|b)/", "^/K", "^/a/|^/b/")
UPSTREAMS = st.lists(
    st.tuples(
        st.sampled_from(PLAIN) | st.sampled_from(REWRITTEN),
        st.sampled_from([(), ("a.example",), ("*.example",)]),
        st.sampled_from([(), ("GET",)]),
        st.sampled_from([None, 403]),
    ),
    max_size=7,
    unique_by=lambda chosen: chosen[0],
)
SEGMENTS = st.sampled_from(["a", "A", "b", "K", "K", "7", "a.", "a%2f", "..;", "", "é"])


def routes_of(
    chosen: list[tuple[str, tuple[str, ...], tuple[str, ...], int | None]],
) -> list[Route]:
    return build_routes(
        [
            UpstreamSettings(
                id=str(number),
                path=path,
                uri="http://x",
                rewrite_target="/r" if path in REWRITTEN else "",
                condition=Condition(hosts=hosts, methods=methods),
                static_code=None if path in REWRITTEN else code,
            )
            for number, (path, hosts, methods, code) in enumerate(chosen)
        ]
    )


def denied_by_spelling(
    routes: list[Route], path: bytes, route: Route, host: str, method: bytes
) -> bool:
    """Return what `SpellingCheck.denies` does, by trying each of *routes*."""
    if route.denies:
        return False
    for variant in path_variants(path)[0]:
        assert variant is not None
        raw, folded = variant.encode("utf-8", "replace"), fold_path(variant)
        for matching in (
            [route for route in routes if route.matches(raw)],
            [route for route in routes if route.matches_folded(folded)],
        ):
            if matching and matching[0].condition is not None:
                other = first_route(matching, host, method, None)
                if other is None or other.denies:
                    return True
    return False


@settings(max_examples=150, deadline=None)
@given(
    chosen=UPSTREAMS,
    segments=st.lists(SEGMENTS, max_size=3),
    host=st.sampled_from(["a.example", "B.example:80", "c"]),
    method=st.sampled_from([b"GET", b"POST", b"get"]),
)
def test_route_table_any_routes_finds_as_each_route_in_turn(
    chosen: list[tuple[str, tuple[str, ...], tuple[str, ...], int | None]],
    segments: list[str],
    host: str,
    method: bytes,
) -> None:
    routes = routes_of(chosen)
    table = RouteTable(routes)
    path = ("/" + "/".join(segments)).encode()
    matching = [route for route in routes if route.matches(path)]
    assert list(table.matching(path)) == matching
    route = first_route(matching, host, method, None)
    assert first_route(table.matching(path, host), host, method, None) is route
    if route is not None:
        check = SpellingCheck(table)
        expected = denied_by_spelling(routes, path, route, host, method)
        for _ in range(2):  # also from the cache
            assert check.denies(path, route, host, method, None) == expected
