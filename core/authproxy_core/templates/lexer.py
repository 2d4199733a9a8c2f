"""Lexer: template source to tokens.

Spaces inside actions are tokens, because they separate arguments: ``$x .Y`` is not
``$x.Y``. Comments and trimmed white space yield no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias

from .syntax import TemplateError

Kind: TypeAlias = Literal[
    "text", "open", "close", "space", "string", "raw", "char", "number", "declare",
    "assign", "comma", "pipe", "left", "right", "variable", "field", "dot", "name",
    "end",
]  # fmt: skip

SPACE = " \t\r\n"

# The space before a trimming delimiter belongs to the delimiter.
TOKEN = re.compile(
    r"""
      (?P<close>[ \t\r\n]-\}\}|\}\})
    | (?P<space>[ \t\r\n]+?(?=[ \t\r\n]-\}\})|[ \t\r\n]+)
    | (?P<string>"(?:\\[^\n]|[^"\\\n])*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:\\[^\n]|[^'\\\n])*')
    | (?P<declare>:=) | (?P<assign>=) | (?P<comma>,) | (?P<pipe>\|)
    | (?P<left>\() | (?P<right>\))
    | (?P<variable>\$\w*)
    | (?P<number>[+-]?\.?[0-9](?:[eEpP][+-]|[\w.])*)
    | (?P<field>\.\w+)
    | (?P<dot>\.)
    | (?P<name>\w+)
    """,
    re.VERBOSE,
)
# May follow a name, a field or a variable.
TERMINATOR = re.compile(r"[ \t\r\n.,|:)(]|\}\}|\Z")
COMMENT_CLOSE = re.compile(r"([ \t\r\n]-)?\}\}")


class Token(NamedTuple):
    """A token of a template; ``line`` (from 1) is where it starts."""

    kind: Kind
    text: str
    line: int


def tokenize(file: str, source: str) -> Iterator[Token]:
    """Yield the tokens of *source*, the last of kind "end"; raises `TemplateError`."""
    at, line = 0, 1
    trim = False
    while True:
        opening = source.find("{{", at)
        text = source[at:] if opening < 0 else source[at:opening]
        shown = text.lstrip(SPACE) if trim else text
        skipped = text[: len(text) - len(shown)].count("\n")
        if opening < 0:
            if shown:
                yield Token("text", shown, line + skipped)
            yield Token("end", "", line + text.count("\n"))
            return
        marker = source[opening + 2 : opening + 4]
        trims_left = marker[:1] == "-" and marker[1:] in tuple(SPACE)
        if trims_left:
            shown = shown.rstrip(SPACE)
        if shown:
            yield Token("text", shown, line + skipped)
        line += text.count("\n")
        at = opening + (4 if trims_left else 2)
        if source.startswith("/*", at):
            end = _comment_end(file, source, at, line)
        else:
            yield Token("open", "{{", line)
            end = at
            for token, end in _action_tokens(file, source, at, line):  # noqa: B007
                yield token
        line += source[opening + 2 : end].count("\n")
        trim = source.startswith("-}}", end - 3) and source[end - 4] in SPACE
        at = end


def _comment_end(file: str, source: str, at: int, line: int) -> int:
    """Return the end of the action at *at*, which is a comment."""
    end = source.find("*/", at + 2)
    if end < 0:
        raise TemplateError(file, line, "unclosed comment")
    close = COMMENT_CLOSE.match(source, end + 2)
    if close is None:
        raise TemplateError(file, line, "comment ends before closing delimiter")
    return close.end()


def _action_tokens(
    file: str, source: str, at: int, line: int
) -> Iterator[tuple[Token, int]]:
    """Yield the tokens of one action and their end positions; the last is "close".

    The space before the first word is skipped.
    """
    start = at
    while True:
        match = TOKEN.match(source, at)
        if match is None:
            raise TemplateError(file, line, _describe_error(source, at))
        kind: Kind = match.lastgroup  # type: ignore[assignment] # names are kinds
        first, at = at == start, match.end()
        if kind in ("name", "field", "variable") and not TERMINATOR.match(source, at):
            raise TemplateError(file, line, f"bad character {source[at]!r}")
        if kind != "space" or not first:
            yield Token(kind, match[0], line), at
        if kind == "close":
            return
        line += match[0].count("\n")


def _describe_error(source: str, at: int) -> str:
    if at >= len(source):
        return "unclosed action"
    character = source[at]
    if character in "\"'`":
        return "unterminated quoted string"
    if character == ":":
        return "expected :="
    return f"unexpected {character!r} in action"
