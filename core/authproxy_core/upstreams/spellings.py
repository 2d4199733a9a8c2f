"""Conditions of upstreams for the other spellings of a path.

An upstream may decode a path in another way, or ignore its case, and then serve what the
configuration gives to other users (see `access.rules`). A request that would be denied in
one of the spellings is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ..access.path_variants import fold_path, path_variants
from ..access.rules import MAX_CACHED_BYTES, MAX_CACHED_RESULTS
from ..bounded_cache import BoundedCache
from ..session import Session
from .route import Route
from .route_table import RouteTable

Candidates: TypeAlias = tuple[Route, ...]


class SpellingCheck:
    """Checks the spellings of paths if any route of *table* has a condition."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        # By the routes for the host, and the path.
        self._cache: BoundedCache[tuple[int, bytes], tuple[Candidates, ...]] = (
            BoundedCache(MAX_CACHED_RESULTS)
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
        key = (self._table.for_host(host), path)
        spellings = self._cache.get(key)
        if spellings is None:
            spellings = tuple(dict.fromkeys(self._candidates(*key)))
            if len(path) <= MAX_CACHED_BYTES:
                self._cache.put(key, spellings)
        for candidates in spellings:
            other = first_route(candidates, host, method, session)
            if other is None or other.denies:
                return True
        return False

    def _candidates(self, for_host: int, path: bytes) -> Iterator[Candidates]:
        """Yield the routes for each spelling in which one with a condition matches."""
        for variant in path_variants(path)[0]:
            if variant is None:  # too long for its variants: all conditions count
                yield from ((route,) for route in self._table.conditional)
                return
            raw = variant.encode("utf-8", "replace")
            yield from self._table.conditional_routes(raw, fold_path(variant), for_host)


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
