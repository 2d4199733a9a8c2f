"""Regular expressions in Go's syntax, as in oauth2-proxy's configurations.

Go's package is modeled on the RE2 library, which is used here. It matches in linear time
for any pattern and text, so it is safe for client input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False  # re2 writes them to standard error
MAX_PATTERN_LENGTH = 4096  # characters of a pattern
_ANCHOR = re.compile(r"(?:\^|\\A)+")
# Letters, digits and punctuation without a meaning, and any other after a backslash.
_LITERAL = re.compile(r"(?:[A-Za-z0-9/_~@:,;=&%!'#-]|\\[!-/:-@[\]^{|}~])*")
_QUANTIFIERS = frozenset("*+?{")


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


def literal_prefix(pattern: str, *, anchored: bool = False) -> str:
    """Return ASCII text that every text with a match of a valid *pattern* starts with.

    It is "" if that is unknown, or if the pattern may match further behind; *anchored*:
    the caller searches at the start only.
    """
    anchor = _ANCHOR.match(pattern)
    if anchor is None and not anchored:
        return ""
    start = anchor.end() if anchor else 0
    found = _LITERAL.match(pattern, start)
    if found is None or not found[0] or _has_alternatives(pattern):
        return ""
    text = found[0]
    if pattern[found.end() : found.end() + 1] in _QUANTIFIERS:
        text = text[:-1].removesuffix("\\")
    return text.replace("\\", "")


def _has_alternatives(pattern: str) -> bool:
    r"""Return whether ``|`` may stand outside of parentheses in a valid *pattern*.

    True if that is unknown, because of ``[…]`` or ``\Q…\E``.
    """
    if "|" not in pattern:
        return False
    if "[" in pattern or r"\Q" in pattern:
        return True
    depth = 0
    for letter in re.sub(r"\\.", "", pattern, flags=re.DOTALL):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            return True
    return False


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
