"""Cache of unsealed sessions, by their sealed values.

The cache is bounded in bytes and evicts entries that have not been used for long: they
start in a young generation, move to an old one when the young one is full, and move back
when used. A value is admitted when it is seen for the second time. Most others are never
seen again; admitting them would cost a new session's check a third more time and evict
useful entries. The caller checks expiry and access rules on every hit.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from msgspec import Struct

from ..messages import Headers, Respond
from ..session import Session
from .invalidation import DependentEntries
from .lifetimes import SessionDeadlines
from .oauth2_proxy_format import Ticket

MAX_CANDIDATES = 4096  # values that were seen once
ENTRY_OVERHEAD = 2000  # bytes of an entry besides its strings


class SessionEntry:
    """A session that a request carries, its deadlines, and its reusable response.

    Until ``fresh_until`` the session needs no action; at ``ends_at`` it expires;
    ``issued_at`` is when its cookie was sealed. An entry that ``needs_load`` must be
    loaded from the store and is never fresh; if it has a ``ticket``, ``session`` is
    empty until then. ``sealed_bytes`` is the size of the sealed session.
    """

    __slots__ = (
        "__weakref__",
        "cached",
        "deadlines",
        "dependencies",
        "ends_at",
        "fresh_until",
        "issued_at",
        "needs_load",
        "response",
        "sealed",
        "sealed_bytes",
        "session",
        "ticket",
    )

    def __init__(
        self,
        session: Session,
        sealed: bytes,
        deadlines: SessionDeadlines,
        issued_at: float,
        *,
        ticket: Ticket | None = None,
        needs_load: bool = False,
        sealed_bytes: int = 0,
    ) -> None:
        self.session = session
        self.sealed = sealed
        self.deadlines = deadlines
        self.fresh_until = -inf if needs_load else deadlines.fresh_until
        self.ends_at = deadlines.ends_at
        self.issued_at = issued_at
        self.ticket = ticket
        self.needs_load = needs_load
        self.sealed_bytes = sealed_bytes or len(sealed)
        self.response: Respond | None = None
        self.cached = False  # whether a later request finds the entry in a cache
        self.dependencies: tuple[DependentEntries, ...] = ()

    @property
    def size(self) -> int:
        """Approximate memory (bytes) of the entry and its response.

        The tokens are about as long as their compressed sealed form, and the response
        repeats half of them.
        """
        return ENTRY_OVERHEAD + 4 * self.sealed_bytes


class SavedSession(Struct, frozen=True):
    """The entry of a session that was written, and its Set-Cookie fields."""

    entry: SessionEntry
    headers: Headers


def newest_first(entries: Iterable[SessionEntry]) -> tuple[SessionEntry, ...]:
    """Return *entries* by the time their cookies were sealed."""
    return tuple(sorted(entries, key=lambda entry: entry.issued_at, reverse=True))


def is_outdated(entry: SessionEntry) -> bool:
    """Return whether a stored session was refreshed after its cookie was written."""
    return int(entry.session.created_at) > int(entry.issued_at)


class SessionCache:
    """Sealed value → `SessionEntry`, at most *limit* bytes in total."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, SessionEntry] = {}
        self._old: dict[bytes, SessionEntry] = {}
        self._young_size = 0
        self._candidates: set[int] = set()

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, sealed: bytes) -> SessionEntry | None:
        """Return the entry of a sealed value, or None."""
        entry = self._young.get(sealed)
        if entry is None:
            entry = self._old.pop(sealed, None)
            if entry is not None:
                self.put(entry)
        return entry

    def admit(self, entry: SessionEntry) -> None:
        """Store an entry if its value was offered before."""
        candidate = hash(entry.sealed)
        if candidate in self._candidates:
            self._candidates.discard(candidate)
            self.put(entry)
            return
        if len(self._candidates) >= MAX_CANDIDATES:
            self._candidates.clear()
        self._candidates.add(candidate)

    def put(self, entry: SessionEntry) -> None:
        """Store an entry under its sealed value."""
        size = entry.size
        if size > self._half:
            return
        self.drop(entry.sealed)
        if self._young_size + size > self._half:
            self._old, self._young, self._young_size = self._young, {}, 0
        entry.cached = True
        self._young[entry.sealed] = entry
        self._young_size += size

    def drop(self, sealed: bytes) -> None:
        """Remove the entry of a sealed value, if any."""
        entry = self._young.pop(sealed, None)
        if entry is not None:
            self._young_size -= entry.size
        self._old.pop(sealed, None)

    def clear(self) -> None:
        """Remove all entries."""
        self._young, self._old, self._young_size = {}, {}, 0
