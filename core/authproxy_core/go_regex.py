"""Regular expressions in the syntax of Go, which existing configurations use.

RE2 is the library that Go's package is modelled on. It matches in linear time, whatever
the pattern and the text, so that what clients send may be matched at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # it would write them to standard error
MAX_PATTERN_LENGTH = 4096  # characters of a pattern


class Match(Protocol):
    """What is used of a match."""

    def start(self) -> int: ...
    def end(self) -> int: ...
    def group(self, group: int = 0) -> str | None: ...


class Pattern(Protocol):
    """What is used of a compiled pattern."""

    groups: int
    groupindex: dict[str, int]

    def search(self, text: str) -> Match | None: ...
    def fullmatch(self, text: str) -> Match | None: ...
    def finditer(self, text: str) -> Iterator[Match]: ...


def compile_pattern(pattern: str) -> Pattern:
    """*pattern*, compiled; raises ValueError, which says what is wrong with it."""
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise ValueError(f"a pattern of more than {MAX_PATTERN_LENGTH} characters")
    try:
        found: Pattern = re2.compile(pattern, _OPTIONS)
    except (re2.error, UnicodeEncodeError) as error:
        raise ValueError(_reason(error)) from None
    return found


def _reason(error: Exception) -> str:
    [first, *_] = error.args
    return first.decode(errors="replace") if isinstance(first, bytes) else str(error)


def escape_pattern(text: str) -> str:
    """A pattern that matches *text* alone."""
    pattern: str = re2.escape(text)
    return pattern


def replace_all(
    pattern: Pattern, text: str, replacement: Callable[[Match], str]
) -> str | None:
    """*text* with every match replaced; None when there is none.

    As in Go, an empty match right behind another match does not count.
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
