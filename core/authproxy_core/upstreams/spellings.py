"""Conditions of upstreams for the other spellings of a path.

An upstream may decode a path in another way, or ignore its case, and then serve what the
configuration gives to other users (see `access.rules`). A request that would be denied in
one of the spellings is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..access.candidates import members
from ..access.path_variants import fold_path, path_variants
from ..access.rules import MAX_CACHED_BYTES, MAX_CACHED_RESULTS
from ..bounded_cache import BoundedCache
from ..session import Session
from .route import Route
from .route_table import RouteTable


class SpellingCheck:
    """Checks the spellings of paths if any route of *table* has a condition."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        # By path: for each spelling, the routes whose conditions decide.
        self._cache: BoundedCache[bytes, tuple[int, ...]] = BoundedCache(
            MAX_CACHED_RESULTS
        )

    def denies(
        self,
        path: bytes,
        route: Route,
        host: str,
        method: bytes,
        session: Session | None,
    ) -> bool:
        """Return whether *path*, still escaped, is denied in another spelling.

        *route* is that of the path as received.
        """
        if not self._table.conditional or route.denies:
            return False
        spellings = self._cache.get(path)
        if spellings is None:
            spellings = tuple(dict.fromkeys(self._candidates(path)))
            if len(path) <= MAX_CACHED_BYTES:
                self._cache.put(path, spellings)
        for candidates in spellings:
            routes = self._table.for_host(candidates, host)
            other = first_route(routes, host, method, session)
            if other is None or other.denies:
                return True
        return False

    def _candidates(self, path: bytes) -> Iterator[int]:
        """Yield the routes for each spelling in which one with a condition matches."""
        conditional = self._table.conditional
        for variant in path_variants(path)[0]:
            if variant is None:  # too long for its variants: all conditions count
                yield from (1 << number for number in members(conditional))
                return
            raw = variant.encode("utf-8", "replace")
            for routes in self._table.candidates(raw, fold_path(variant)):
                if routes & -routes & conditional:
                    yield routes


def first_route(
    routes: Iterable[Route], host: str, method: bytes, session: Session | None
) -> Route | None:
    """Return the first of *routes* whose condition matches.

    Return None without one, and if it depends on how the upstream reads the method.
    """
    for route in routes:
        if route.condition is None:
            return route
        matches = route.condition.matches(host, method, session)
        if matches is not False:
            return route if matches else None
    return None
