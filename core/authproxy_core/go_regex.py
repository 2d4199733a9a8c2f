"""Regular expressions in Go's syntax, as in oauth2-proxy's configurations.

Go's package is modeled on the RE2 library, which is used here. It matches in linear time
for any pattern and text, so it is safe for client input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # re2 writes them to standard error
MAX_PATTERN_LENGTH = 4096  # characters of a pattern


class Match(Protocol):
    """A match of re2."""

    def start(self) -> int: ...
    def end(self) -> int: ...
    def group(self, group: int = 0) -> str | None: ...


class Pattern(Protocol):
    """A compiled pattern of re2."""

    groups: int
    groupindex: dict[str, int]

    def search(self, text: str) -> Match | None: ...
    def fullmatch(self, text: str) -> Match | None: ...
    def finditer(self, text: str) -> Iterator[Match]: ...


def compile_pattern(pattern: str) -> Pattern:
    """Compile *pattern*; raises `ValueError` with the reason if it is invalid."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"longer than {MAX_PATTERN_LENGTH} characters")
    try:
        compiled: Pattern = re2.compile(pattern, _OPTIONS)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(_reason(error)) from None
    return compiled


def _reason(error: Exception) -> str:
    [first, *_] = error.args
    return first.decode(errors="replace") if isinstance(first, bytes) else str(error)


def escape_pattern(text: str) -> str:
    """Return a pattern that matches *text* literally."""
    pattern: str = re2.escape(text)
    return pattern


def replace_all(
    pattern: Pattern, text: str, replacement: Callable[[Match], str]
) -> str | None:
    """Return *text* with every match replaced; None if nothing matches.

    As in Go, an empty match directly after another match is ignored.
    """
    parts: list[str] = []
    end, matched = 0, False
    for match in pattern.finditer(text):
        start = match.start()
        if matched and start == match.end() == end:
            continue
        parts += (text[end:start], replacement(match))
        end, matched = match.end(), True
    return "".join((*parts, text[end:])) if matched else None
