"""Limits of password attempts: per client, per user and in total.

A client is *known* for a user if the user has signed in from its network before. The
limits do not apply to the correct password of a known client, so guesses by others (or a
script with an old password) cannot lock a user out.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable

WINDOW = 60.0  # seconds over which failed attempts are counted
# Failed attempts per window; at a limit, further ones are rejected unchecked.
MAX_ATTEMPTS_PER_CLIENT = 10
MAX_ATTEMPTS_PER_SITE = 50  # of an IPv6 /48
MAX_ATTEMPTS_PER_USER = 30
MAX_ATTEMPTS_TOTAL = 300  # above, a client has one attempt
# Wrong passwords for a user from a network that is known for it. Each is a guess that is
# compared with the correct password, so there must be a limit.
MAX_ATTEMPTS_PER_KNOWN_CLIENT = 1000
COUNTERS, KNOWN_CLIENTS = 1 << 16, 1 << 14
WORDS = COUNTERS + KNOWN_CLIENTS + 1  # the last one is the total


class AttemptMemory:
    """Counts and known clients in a fixed number of 32-bit words.

    *words* may be memory that processes share; *key* is a secret that they share. They
    write without a lock, so a concurrent count may be lost. Keys of the same word share
    a count; which ones do is secret.
    """

    def __init__(self, key: bytes, words: memoryview[int] | None = None) -> None:
        self._key = key
        own = memoryview(bytearray(4 * WORDS)).cast("I")
        self._words = own if words is None else words

    def hash(self, *parts: bytes) -> int:
        """Return a keyed hash of *parts*, 64 bits."""
        data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        digest = hashlib.blake2b(data, key=self._key, digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def counter(self, kind: bytes, *parts: str) -> int:
        """Return the index of the counter of a key."""
        if not parts:
            return WORDS - 1
        return self.hash(kind, *map(_encode, parts)) % COUNTERS

    def count(self, index: int, window: int) -> int:
        """Return the count of *window* at *index*."""
        word = self._words[index]
        return word & 0xFFFF if word >> 16 == window & 0xFFFF else 0

    def add(self, index: int, window: int, change: int) -> None:
        """Change the count at *index*, within its 16 bits."""
        count = min(max(self.count(index, window) + change, 0), 0xFFFF)
        self._words[index] = (window & 0xFFFF) << 16 | count

    def is_known(self, place: int, tag: int) -> bool:
        """Return whether *tag* was last remembered at *place* (any 64-bit numbers)."""
        return self._words[self._place(place)] == tag & 0xFFFFFFFF

    def remember(self, place: int, tag: int) -> None:
        """Remember *tag* at *place*, instead of the previous one."""
        self._words[self._place(place)] = tag & 0xFFFFFFFF

    @staticmethod
    def _place(place: int) -> int:
        return COUNTERS + place % KNOWN_CLIENTS


class AttemptLimiter:
    """Decides which attempts are verified; *memory* may be that of all workers."""

    def __init__(self, memory: AttemptMemory, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._clock = clock

    def begin(self, client: str, user: str, password: bytes) -> bool:
        """Count an attempt as failed; return whether the password is to be verified."""
        network, window = network_of(client), self._window
        counters = self._counters(network, user)
        allowed = self._is_within_limits(counters, window) or self._is_known(
            network, user, password
        )
        pair = self._pair(network, user)
        for index in (*counters, pair) if allowed else (pair,):
            self._memory.add(index, window, 1)
        return allowed

    def succeed(self, client: str, user: str, password: bytes) -> None:
        """Uncount a successful attempt; the client is known from now on."""
        network, window = network_of(client), self._window
        for index in (*self._counters(network, user), self._pair(network, user)):
            self._memory.add(index, window, -1)
        place, tag = self._known(network, user, password)
        self._memory.remember(place, tag)

    def is_guessed(self, client: str, user: str) -> bool:
        """Return whether even the correct password of a known client is rejected."""
        pair = self._pair(network_of(client), user)
        return self._memory.count(pair, self._window) >= MAX_ATTEMPTS_PER_KNOWN_CLIENT

    @property
    def _window(self) -> int:
        return int(self._clock() // WINDOW)

    def _counters(self, network: str, user: str) -> dict[int, int]:
        """Return the limit of each counter that an attempt counts for."""
        memory = self._memory
        total = memory.counter(b"total")
        is_flood = memory.count(total, self._window) >= MAX_ATTEMPTS_TOTAL
        limits = {
            total: 0xFFFF + 1,
            memory.counter(b"user", user.casefold()): MAX_ATTEMPTS_PER_USER,
            memory.counter(b"client", network): (
                1 if is_flood else MAX_ATTEMPTS_PER_CLIENT
            ),
        }
        if ":" in network:
            limits[memory.counter(b"site", _network(network, 48))] = (
                MAX_ATTEMPTS_PER_SITE
            )
        return limits

    def _is_within_limits(self, counters: dict[int, int], window: int) -> bool:
        return all(
            self._memory.count(index, window) < limit
            for index, limit in counters.items()
        )

    def _pair(self, network: str, user: str) -> int:
        return self._memory.counter(b"pair", network, user.casefold())

    def _is_known(self, network: str, user: str, password: bytes) -> bool:
        pair = self._memory.count(self._pair(network, user), self._window)
        place, tag = self._known(network, user, password)
        return pair < MAX_ATTEMPTS_PER_KNOWN_CLIENT and self._memory.is_known(
            place, tag
        )

    def _known(self, network: str, user: str, password: bytes) -> tuple[int, int]:
        """Return the place of a client and user, and a tag of them and the password.

        16 bits of the tag depend on the password. They are too few to find it from the
        memory, and enough to reject wrong ones without verifying them.
        """
        client = (_encode(network), _encode(user))
        place = self._memory.hash(b"known", *client)
        secret = self._memory.hash(b"tag", *client, password)
        return place, (place >> 32 & 0xFFFF) << 16 | secret & 0xFFFF


def _encode(text: str) -> bytes:
    return text.encode(errors="replace")


def network_of(client: str) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 client."""
    return _network(client, 64) if ":" in client else client


def _network(address: str, prefix: int) -> str:
    try:
        host = address.partition("/")[0]
        return str(ipaddress.ip_network((host, prefix), strict=False))
    except ValueError:
        return address
