"""Track the context through template text, and sanitize the text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import TypeAlias

from . import css, js, markup
from .context import (
    COMMENTS,
    IN_TAG,
    SCRIPT_LITERALS,
    START,
    Attr,
    Context,
    ContextError,
    Delim,
    Element,
    State,
)

Step: TypeAlias = Callable[[Context, str], tuple[Context, int]]

STEPS: dict[State, Step] = {
    State.TEXT: markup.text_step,
    State.TAG: markup.tag_step,
    State.ATTR_NAME: markup.attr_name_step,
    State.AFTER_NAME: markup.after_name_step,
    State.BEFORE_VALUE: markup.before_value_step,
    State.HTML_COMMENT: markup.comment_step,
    State.RCDATA: markup.special_end_step,
    State.ATTR: markup.plain_step,
    State.URL: markup.url_step,
    State.SRCSET: markup.url_step,
    State.META_CONTENT: markup.meta_step,
    State.META_CONTENT_URL: markup.meta_url_step,
    State.JS: js.js_step,
    State.JS_DQ: js.literal_step,
    State.JS_SQ: js.literal_step,
    State.JS_REGEXP: js.literal_step,
    State.JS_TEMPLATE: js.template_step,
    State.JS_BLOCK_COMMENT: js.block_comment_step,
    State.JS_LINE_COMMENT: js.line_comment_step,
    State.JS_HTML_OPEN: js.line_comment_step,
    State.JS_HTML_CLOSE: js.line_comment_step,
    State.CSS: css.css_step,
    State.CSS_DQ: css.string_step,
    State.CSS_SQ: css.string_step,
    State.CSS_DQ_URL: css.string_step,
    State.CSS_SQ_URL: css.string_step,
    State.CSS_URL: css.string_step,
    State.CSS_BLOCK_COMMENT: js.block_comment_step,
    State.CSS_LINE_COMMENT: css.line_comment_step,
}

JS_TYPES = frozenset(
    [
        "application/ecmascript",
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/x-ecmascript",
        "application/x-javascript",
        "module",
        "text/ecmascript",
        "text/javascript",
        "text/javascript1.0",
        "text/javascript1.1",
        "text/javascript1.2",
        "text/javascript1.3",
        "text/javascript1.4",
        "text/javascript1.5",
        "text/jscript",
        "text/livescript",
        "text/x-ecmascript",
        "text/x-javascript",
    ]
) | {""}
SCRIPT_TAG = re.compile(r"<(script|/script|!--)", re.IGNORECASE)
STRAY_LESS = re.compile(r"<(?!!doctype)", re.IGNORECASE | re.ASCII)
ATTR_ENDS: dict[Delim, re.Pattern[str]] = {
    delim: re.compile(f"[{delim.value}]") for delim in Delim if delim is not Delim.NONE
}
BAD_UNQUOTED = re.compile("[\"'<=`]")
COMMENT_OPENERS = {State.HTML_COMMENT: 4, State.JS_HTML_OPEN: 4, State.JS_HTML_CLOSE: 3}
JS_LINE_END = re.compile("[\n\r\u2028\u2029]")


def follow_text(c: Context, text: str) -> tuple[Context, str]:
    """Return the context after *text*, and the text to render.

    Comments are dropped, a ``<`` that starts no tag becomes ``&lt;``, and a script tag
    inside a string of a script is escaped. Raises `ContextError`.
    """
    out: list[str] = []
    at = 0
    while at < len(text):
        after, read = _step(c, text[at:])
        out.append(_render_part(c, after, text[at : at + read], text[at:]))
        c, at = after, at + read
    return c, "".join(out)


def _step(c: Context, s: str) -> tuple[Context, int]:
    """Read the next part of *s* in context *c*."""
    if c.delim is Delim.NONE:
        after, end = markup.special_end_step(c, s)
        if end == 0:
            return after, 0
        return STEPS[c.state](c, s[:end])
    return _attr_step(c, s)


def _attr_step(c: Context, s: str) -> tuple[Context, int]:
    """Read an attribute's value up to its end, or the whole of *s*."""
    match = ATTR_ENDS[c.delim].search(s)
    value = s[: match.start()] if match else s
    if c.delim is Delim.SPACE_OR_TAG_END and (bad := BAD_UNQUOTED.search(value)):
        raise ContextError(f"{bad[0]!r} in unquoted attribute {value[:32]!r}")
    if match is None:
        return _follow_value(c, html.unescape(value)), len(s)
    element = c.element
    if (
        c.state is State.ATTR
        and element is Element.SCRIPT
        and c.attr is Attr.SCRIPT_TYPE
        and value.partition(";")[0].strip().lower() not in JS_TYPES
    ):
        element = Element.NONE  # a data block, not a script
    quoted = c.delim is not Delim.SPACE_OR_TAG_END
    return Context(State.TAG, element=element), len(value) + quoted


def _follow_value(c: Context, value: str) -> Context:
    """Return the context after part of an attribute's value with entities decoded."""
    while value:
        c, read = STEPS[c.state](c, value)
        value = value[read:]
    return c


def _render_part(c: Context, after: Context, part: str, rest: str) -> str:
    """Return the text to render for *part*, which leads from *c* to *after*."""
    raw = c.delim is Delim.NONE
    if c.state in (State.TEXT, State.RCDATA):
        part = _escape_text(part, rest, to_end=after.state is c.state)
    elif raw and c.state in COMMENTS:
        part = _replace_comment(c.state, part)
    elif c.state in SCRIPT_LITERALS:
        part = SCRIPT_TAG.sub(r"\\x3C\1", part)
    opens = after.state in COMMENTS and after.state is not c.state
    if opens and after.delim is Delim.NONE:
        return part[: len(part) - COMMENT_OPENERS.get(after.state, 2)]
    return part


def _escape_text(part: str, rest: str, *, to_end: bool) -> str:
    """Escape stray ``<`` in HTML text; the tag or comment at its end is unchanged."""
    end = len(part) if to_end else max(part.rfind("<"), 0)
    return STRAY_LESS.sub("&lt;", rest[:end]) + part[end:]


def _replace_comment(state: State, part: str) -> str:
    """Return the replacement of a comment: white space if it may separate tokens."""
    if state is State.JS_BLOCK_COMMENT:
        return "\n" if JS_LINE_END.search(part) else " "
    return " " if state is State.CSS_BLOCK_COMMENT else ""


def strip_tags(text: str) -> str:
    """Return the text content of trusted HTML; *text* itself if it has no tags."""
    out: list[str] = []
    c, at, only_text = START, 0, True
    while at < len(text):
        if c.delim is not Delim.NONE:
            end = ATTR_ENDS[c.delim].search(text, at)
            if end is None:
                break
            at = end.start() if c.delim is Delim.SPACE_OR_TAG_END else end.end()
            c = Context(State.TAG, element=c.element)
            continue
        try:
            after, read = _tag_step(c, text[at:])
        except ContextError:
            break
        part = text[at : at + read]
        if c.state in (State.TEXT, State.RCDATA):
            out.append(
                part if after.state is c.state else part[: max(part.rfind("<"), 0)]
            )
        else:
            only_text = False
        c, at = after, at + read
    return text if only_text else "".join(out)


def _tag_step(c: Context, s: str) -> tuple[Context, int]:
    """Read as `_step`, but treat the content of special elements as text."""
    special = c.element is not Element.NONE and c.state not in IN_TAG
    return STEPS[State.RCDATA if special else c.state](c, s)
