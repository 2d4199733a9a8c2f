"""CSS contexts: strings, url() and comments; decoding of CSS escapes."""

from __future__ import annotations

import re

from .context import Context, ContextError, State
from .markup import url_step

CSS_SPECIAL = re.compile(
    r"(?P<url>(?<![A-Za-z0-9_\-\x80-\U0010ffff])url[ \t\n\f\r]*\([ \t\n\f\r]*)"
    r"(?P<quote>[\"'])?|//|/\*|[\"']",
    re.IGNORECASE | re.ASCII,
)
STRING_SPECIALS = {
    State.CSS_DQ: re.compile(r'[\\"]'),
    State.CSS_DQ_URL: re.compile(r'[\\"]'),
    State.CSS_SQ: re.compile(r"[\\']"),
    State.CSS_SQ_URL: re.compile(r"[\\']"),
    State.CSS_URL: re.compile(r"[\\\t\n\f\r )]"),
}
URL_STATES = {None: State.CSS_URL, '"': State.CSS_DQ_URL, "'": State.CSS_SQ_URL}
OPENERS = {
    "//": State.CSS_LINE_COMMENT,
    "/*": State.CSS_BLOCK_COMMENT,
    '"': State.CSS_DQ,
    "'": State.CSS_SQ,
}
LINE_END = re.compile("[\n\f\r]")
ESCAPE = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[ \t\n\f\r])?|(.?))", re.DOTALL)


def css_step(c: Context, s: str) -> tuple[Context, int]:
    """Read rules up to a string, a url() or a comment."""
    match = CSS_SPECIAL.search(s)
    if match is None:
        return c, len(s)
    if match["url"]:
        return c.with_state(URL_STATES[match["quote"]]), match.end()
    return c.with_state(OPENERS[match[0]]), match.end()


def string_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a string or url(); both are treated as URLs, which is safe for any text."""
    pattern = STRING_SPECIALS[c.state]
    at = 0
    while match := pattern.search(s, at):
        if match[0] != "\\":
            return c.with_state(State.CSS), match.end()
        if match.end() == len(s):
            raise ContextError(f"unfinished escape sequence: {s[-32:]!r}")
        at = match.end() + 1
        c, _ = url_step(c, decode_escapes(s[:at]))
    c, _ = url_step(c, decode_escapes(s[at:]))
    return c, len(s)


def line_comment_step(c: Context, s: str) -> tuple[Context, int]:
    match = LINE_END.search(s)
    return (c, len(s)) if match is None else (c.with_state(State.CSS), match.start())


def decode_escapes(text: str) -> str:
    r"""Return *text* with CSS escapes decoded: ``\41`` is A, ``\"`` is a quote.

    A trailing backslash is dropped.
    """
    return ESCAPE.sub(_unescape, text)


def _unescape(match: re.Match[str]) -> str:
    digits, character = match.groups()
    if digits is None:
        return character
    code = int(digits, 16)
    if code > 0x10FFFF:
        # The last digit does not belong to the escape.
        return chr(code >> 4) + match[0][len(digits) :]
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)
