"""Conditions of upstreams for the other spellings of a path.

An upstream may decode a path in another way, or ignore its case, and then serve what the
configuration gives to other users (see `access.rules`). A request that would be denied in
one of the spellings is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from ..access.rules import (
    MAX_CACHED_BYTES,
    MAX_CACHED_RESULTS,
    fold_path,
    path_variants,
)
from ..bounded_cache import BoundedCache
from ..session import Session
from .route import Route

Candidates: TypeAlias = tuple[Route, ...]


class SpellingCheck:
    """Checks the spellings of paths if any of *routes* has a condition."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._conditional = [route for route in routes if route.condition is not None]
        self._cache: BoundedCache[bytes, tuple[Candidates, ...]] = BoundedCache(
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
        if not self._conditional or route.denies:
            return False
        spellings = self._cache.get(path)
        if spellings is None:
            spellings = tuple(dict.fromkeys(self._candidates(path)))
            if len(path) <= MAX_CACHED_BYTES:
                self._cache.put(path, spellings)
        for candidates in spellings:
            other = first_route(candidates, host, method, session)
            if other is None or other.denies:
                return True
        return False

    def _candidates(self, path: bytes) -> Iterator[Candidates]:
        """Yield the routes for each spelling in which one with a condition matches."""
        for variant in path_variants(path)[0]:
            if variant is None:  # too long for its variants: all conditions count
                yield from ((route,) for route in self._conditional)
                return
            raw, folded = variant.encode("utf-8", "replace"), fold_path(variant)
            for matching in (
                (route for route in self._routes if route.matches(raw)),
                (route for route in self._routes if route.matches_folded(folded)),
            ):
                candidates = _until_unconditional(matching)
                if candidates and candidates[0].condition is not None:
                    yield candidates


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


def _until_unconditional(routes: Iterator[Route]) -> Candidates:
    found = []
    for route in routes:
        found.append(route)
        if route.condition is None:
            break
    return tuple(found)
