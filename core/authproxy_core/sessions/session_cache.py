"""The recall cache: sealed values that were unsealed before.

It is bounded in bytes and forgets what was not used for long: values live in a young
generation, move to an old one when the young one is full, and come back when used.
A value that was seen only once is not kept: most of those never come again, and keeping
them costs a new session's check a third more and pushes others out.
Expiry and rules are judged by whoever asks, on every hit.
"""

from __future__ import annotations

from math import inf

from ..messages import Respond
from ..session import Session
from .invalidation import DependentEntries
from .lifetimes import SessionDeadlines
from .oauth2_proxy_format import Ticket

MAX_CANDIDATES = 4096  # values whose first sight is remembered
ENTRY_OVERHEAD = 2000  # bytes of an entry besides its texts


class SessionEntry:
    """A session that a request carries, its moments, and its ready answer.

    ``fresh_until`` is the moment from which on it needs thought (it expires, has to be
    refreshed …), ``ends_at`` the one at which it expires, ``issued_at`` the one at which its cookie was sealed. A ``cold`` entry
    has to be looked up in the store first and is never fresh; if it has a ``ticket``,
    the session itself is there and nothing is known of it yet. ``weight`` is the size
    (bytes) of its sealed form.
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
        span: SessionDeadlines,
        issued_at: float,
        *,
        ticket: Ticket | None = None,
        cold: bool = False,
        weight: int = 0,
    ) -> None:
        self.session = session
        self.sealed = sealed
        self.deadlines = span
        self.fresh_until = -inf if cold else span.fresh_until
        self.ends_at = span.ends_at
        self.issued_at = issued_at
        self.ticket = ticket
        self.needs_load = cold
        self.sealed_bytes = weight or len(sealed)
        self.response: Respond | None = None
        self.cached = False  # whether a cache holds it, so that it comes again
        self.dependencies: tuple[DependentEntries, ...] = ()

    @property
    def size(self) -> int:
        """Roughly how many bytes the entry takes, its ready answer included.

        The tokens are about as long as their sealed form, which is compressed, and half
        of them stand in the answer again.
        """
        return ENTRY_OVERHEAD + 4 * self.sealed_bytes


def is_outdated(entry: SessionEntry) -> bool:
    """Whether a ticket's session was renewed since its cookie was written."""
    return int(entry.session.created_at) > int(entry.issued_at)


class SessionCache:
    """Sealed value → `Entry`, at most ``limit`` bytes together."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._young: dict[bytes, SessionEntry] = {}
        self._old: dict[bytes, SessionEntry] = {}
        self._young_size = 0
        self._seen_once: set[int] = set()

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def get(self, sealed: bytes) -> SessionEntry | None:
        """The entry of a sealed value, or None."""
        entry = self._young.get(sealed)
        if entry is None:
            entry = self._old.pop(sealed, None)
            if entry is not None:
                self.put(entry)
        return entry

    def admit(self, entry: SessionEntry) -> None:
        """Remember an entry if its value was offered before."""
        mark = hash(entry.sealed)
        if mark in self._seen_once:
            self._seen_once.discard(mark)
            self.put(entry)
            return
        if len(self._seen_once) >= MAX_CANDIDATES:
            self._seen_once.clear()
        self._seen_once.add(mark)

    def put(self, entry: SessionEntry) -> None:
        """Remember an entry under its sealed value."""
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
        """Forget a sealed value."""
        entry = self._young.pop(sealed, None)
        if entry is not None:
            self._young_size -= entry.size
        self._old.pop(sealed, None)

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old, self._young_size = {}, {}, 0
