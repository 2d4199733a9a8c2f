"""Indexes of rules, routes and patterns: those that may match, without trying each.

A set of items is an integer whose bit *n* stands for item number *n*, so the lowest bit is
the first item. The sets of an index contain every item that matches, and may contain
others: the caller still matches each candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ..go_regex import literal_prefix
from ..request.original import host_name

T = TypeVar("T", str, bytes)


def members(items: int) -> Iterator[int]:
    """Yield the numbers in *items*, the lowest first."""
    while items:
        lowest = items & -items
        yield lowest.bit_length() - 1
        items ^= lowest


class TextIndex(Generic[T]):
    """Finds items by texts that a path must be equal to, or start with."""

    def __init__(self) -> None:
        self._all = 0
        self._any = 0
        self._exact: dict[T, int] = {}
        self._prefixes: dict[T, int] = {}
        self._lengths: tuple[int, ...] = ()

    def add_any(self, number: int) -> None:
        """Add an item for every path."""
        self._any |= 1 << number
        self._all |= 1 << number

    def add_exact(self, text: T, number: int) -> None:
        """Add an item for the path *text*."""
        self._exact[text] = self._exact.get(text, 0) | 1 << number
        self._all |= 1 << number

    def add_prefix(self, prefix: T, number: int) -> None:
        """Add an item for the paths that start with *prefix*."""
        if not prefix:
            self.add_any(number)
            return
        self._prefixes[prefix] = self._prefixes.get(prefix, 0) | 1 << number
        self._lengths = tuple(sorted({*self._lengths, len(prefix)}))
        self._all |= 1 << number

    def find(self, path: T | None) -> int:
        """Return the items for *path*; all of them for None, an unknown path."""
        if path is None:
            return self._all
        found = self._any | self._exact.get(path, 0)
        for length in self._lengths:
            found |= self._prefixes.get(path[:length], 0)
        return found


class HostIndex:
    """Finds items by the hosts that they are for; without hosts an item is for any."""

    def __init__(self, hosts_of_items: Iterable[Iterable[str]]) -> None:
        self._any = 0
        self._exact: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        for number, hosts in enumerate(hosts_of_items):
            bit = 1 << number
            names = [host.removesuffix(".").lower() for host in hosts]
            for name in names:
                if name.startswith("*."):
                    self._suffixes[name[1:]] = self._suffixes.get(name[1:], 0) | bit
                else:
                    self._exact[name] = self._exact.get(name, 0) | bit
            if not names:
                self._any |= bit

    def find(self, host: str | None) -> int:
        """Return the items for *host* (``host[:port]``); -1, all, if it is unknown."""
        if host is None:
            return -1
        found = self._any
        if self._exact or self._suffixes:
            name = host_name(host)
            found |= self._exact.get(name, 0)
            dot = name.find(".") if self._suffixes else -1
            while dot >= 0:
                found |= self._suffixes.get(name[dot:], 0)
                dot = name.find(".", dot + 1)
        return found


class PatternIndex:
    """Finds patterns (Go's syntax) by the literal text at the start of what they match."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._index: TextIndex[str] = TextIndex()
        for number, pattern in enumerate(patterns):
            self._index.add_prefix(literal_prefix(pattern), number)

    def find(self, text: str) -> Iterator[int]:
        """Yield the numbers of the patterns that may match *text*."""
        return members(self._index.find(text))
