"""JavaScript contexts: strings, template literals, regular expressions, comments."""

from __future__ import annotations

import re

from msgspec.structs import replace

from .context import Context, ContextError, Slash, State

SPACE = "\f\n\r\t\v \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
SPECIAL = re.compile(r"[\"`'/{}<\-#]")
LAST_WORD = re.compile(r"(?<![$0-9A-Za-z_])[$0-9A-Za-z_]*\Z")
LINE_END = re.compile("[\n\r\u2028\u2029]")
# A slash after one of these starts a regular expression.
OPERATORS = frozenset(",<>=*%&|^?!~([:;{}")
KEYWORDS = frozenset(
    {
        "break", "case", "continue", "delete", "do", "else", "finally", "in",
        "instanceof", "return", "throw", "try", "typeof", "void",
    }
)  # fmt: skip
LITERAL_SPECIALS = {
    State.JS_DQ: re.compile(r'[\\"]'),
    State.JS_SQ: re.compile(r"[\\']"),
    State.JS_REGEXP: re.compile(r"[\\/\[\]]"),
}
TEMPLATE_SPECIAL = re.compile(r"\\|\$\{|`")
OPENERS = (
    ('"', State.JS_DQ, Slash.REGEXP),
    ("'", State.JS_SQ, Slash.REGEXP),
    ("`", State.JS_TEMPLATE, Slash.REGEXP),
    ("//", State.JS_LINE_COMMENT, None),
    ("/*", State.JS_BLOCK_COMMENT, None),
    ("<!--", State.JS_HTML_OPEN, None),
    ("-->", State.JS_HTML_CLOSE, None),
    ("#!", State.JS_LINE_COMMENT, None),
)


def next_slash(s: str, before: Slash) -> Slash:
    """Return what a slash after *s* starts; *s* has no strings, comments or regexps.

    As in Go, the preceding token decides: after an operand it is a division.
    """
    s = s.rstrip(SPACE)
    if not s:
        return before
    last = s[-1]
    if last in "+-":
        # ++ and -- end an operand; a single sign is an operator.
        run = len(s) - len(s.rstrip(last))
        return Slash.REGEXP if run % 2 else Slash.DIVISION
    if last == ".":
        number = len(s) > 1 and s[-2] in "0123456789"
        return Slash.DIVISION if number else Slash.REGEXP
    if last in OPERATORS:
        return Slash.REGEXP
    word = LAST_WORD.search(s)
    return Slash.REGEXP if word and word[0] in KEYWORDS else Slash.DIVISION


def js_step(c: Context, s: str) -> tuple[Context, int]:
    """Read code up to a literal, a comment, a slash or a brace."""
    match = SPECIAL.search(s)
    if match is None:
        return replace(c, slash=next_slash(s, c.slash)), len(s)
    at = match.start()
    slash = next_slash(s[:at], c.slash)
    for opener, state, after in OPENERS:
        if s.startswith(opener, at):
            return replace(c, state=state, slash=after or slash), at + len(opener)
    if s[at] == "/":
        return _slash(replace(c, slash=slash), s, at)
    if s[at] in "{}":
        return _brace(replace(c, slash=slash), s, at)
    return replace(c, slash=slash), at + 1


def _slash(c: Context, s: str, at: int) -> tuple[Context, int]:
    if c.slash is Slash.REGEXP:
        return c.with_state(State.JS_REGEXP), at + 1
    if c.slash is Slash.DIVISION:
        return replace(c, slash=Slash.REGEXP), at + 1
    raise ContextError(f"'/' could start a division or regexp: {s[at:][:32]!r}")


def _brace(c: Context, s: str, at: int) -> tuple[Context, int]:
    """Count braces, inside ``${}`` of a template literal only."""
    after = replace(c, slash=next_slash(s[at], c.slash))
    if not c.braces:
        return after, at + 1
    *outer, depth = c.braces
    depth += 1 if s[at] == "{" else -1
    if depth < 0:
        return replace(c, state=State.JS_TEMPLATE, braces=tuple(outer)), at + 1
    return replace(after, braces=(*outer, depth)), at + 1


def template_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a template literal up to its end or a ``${``."""
    at = 0
    while match := TEMPLATE_SPECIAL.search(s, at):
        at = match.end()
        if match[0] == "`":
            return c.with_state(State.JS), at
        if match[0] == "${":
            return replace(c, state=State.JS, braces=(*c.braces, 0)), at
        at = _skip_escaped(s, at)
    return c, len(s)


def literal_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a string or a regular expression up to its end."""
    pattern = LITERAL_SPECIALS[c.state]
    at, in_set = 0, False
    while found := pattern.search(s, at):
        at = found.end()
        match found[0]:
            case "\\":
                at = _skip_escaped(s, at)
            case "[":
                in_set = True
            case "]":
                in_set = False
            case "/" if s[at - 2 : at + 6].lower() == "</script":
                at += 1  # stays in the literal; the text is escaped
            case _ if not in_set:
                return replace(c, state=State.JS, slash=Slash.DIVISION), at
    if in_set:
        raise ContextError(f"unfinished set in regexp: {s[:32]!r}")
    return c, len(s)


def _skip_escaped(s: str, at: int) -> int:
    if at == len(s):
        raise ContextError(f"unfinished escape sequence: {s[-32:]!r}")
    return at + 1


def block_comment_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a block comment of JavaScript or CSS up to its end."""
    end = s.find("*/")
    if end < 0:
        return c, len(s)
    after = State.JS if c.state is State.JS_BLOCK_COMMENT else State.CSS
    return c.with_state(after), end + 2


def line_comment_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a comment up to the end of its line, which is not part of it."""
    match = LINE_END.search(s)
    return (c, len(s)) if match is None else (c.with_state(State.JS), match.start())
