"""The routes in matching order, and indexes of them by path and host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..access.candidates import HostIndex, TextIndex, members
from .route import Route


class RouteTable:
    """Finds routes among all *routes*, which are in matching order.

    A set of routes is an integer, as in `access.candidates`.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._by_host = HostIndex(route.hosts for route in routes)
        self._any_hosts = any(route.hosts for route in routes)
        self._by_path: TextIndex[bytes] = TextIndex()
        self._by_folded_path: TextIndex[str] = TextIndex()
        for number, route in enumerate(routes):
            self._add(number, route)
        self.conditional = [route for route in routes if route.condition is not None]

    def _add(self, number: int, route: Route) -> None:
        by_path, folded = self._by_path, self._by_folded_path
        if route.folded_pattern is not None:
            by_path.add_prefix(route.literal.encode(), number)
            # Of the characters that re2 takes for an ASCII letter in another case, a
            # folded path has only the lower-case letter.
            folded.add_prefix(route.literal.lower(), number)
        elif route.path.endswith(b"/"):
            by_path.add_prefix(route.path, number)
            folded.add_prefix(route.folded_path, number)
            folded.add_exact(route.folded_path.removesuffix("/"), number)
        else:
            by_path.add_exact(route.path, number)
            folded.add_exact(route.folded_path, number)

    def matching(self, path: bytes, host: str | None = None) -> Iterator[Route]:
        """Yield the routes for *path*, decoded and without the query.

        With *host*, those are left out whose condition is for other hosts.
        """
        routes = self._by_path.find(path)
        if self._any_hosts and host is not None:
            routes &= self._by_host.find(host)
        while routes:  # like `members`, whose generator would cost every request time
            lowest = routes & -routes
            route = self._routes[lowest.bit_length() - 1]
            if route.matches(path):
                yield route
            routes ^= lowest

    def for_host(self, host: str) -> int:
        """Return the routes but those whose condition is for other hosts than *host*."""
        return self._by_host.find(host)

    def conditional_routes(
        self, path: bytes, folded: str, among: int
    ) -> Iterator[tuple[Route, ...]]:
        """Yield the routes for *path*, and those for *folded*, if a condition decides.

        That is so if the first route has one. They are those *among* the given ones, up
        to the first one without a condition. *folded* is a path of `fold_path`.
        """
        yield from self._conditional_routes(
            self._by_path.find(path), lambda route: route.matches(path), among
        )
        yield from self._conditional_routes(
            self._by_folded_path.find(folded),
            lambda route: route.matches_folded(folded),
            among,
        )

    def _conditional_routes(
        self, candidates: int, matches: Callable[[Route], bool], among: int
    ) -> Iterator[tuple[Route, ...]]:
        first = next(self._filter(candidates, matches), None)
        if first is None or first.condition is None:
            return
        found = []
        for route in self._filter(candidates & among, matches):
            found.append(route)
            if route.condition is None:
                break
        yield tuple(found)

    def _filter(
        self, candidates: int, matches: Callable[[Route], bool]
    ) -> Iterator[Route]:
        return filter(matches, map(self._routes.__getitem__, members(candidates)))
