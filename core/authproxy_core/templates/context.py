"""Escaping contexts: a position in a page as far as escaping depends on it.

A `Context` results from the preceding text: the enclosing construct of HTML,
JavaScript or CSS, the kind of attribute, and the part of a URL.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace


class State(Enum):
    """The innermost enclosing construct."""

    TEXT = "text"
    TAG = "tag"
    ATTR_NAME = "attribute name"
    AFTER_NAME = "after attribute name"
    BEFORE_VALUE = "before attribute value"
    HTML_COMMENT = "HTML comment"
    RCDATA = "title or textarea"
    ATTR = "attribute"
    URL = "URL attribute"
    SRCSET = "srcset attribute"
    META_CONTENT = "meta content"
    META_CONTENT_URL = "URL in meta content"
    JS = "script"
    JS_DQ = 'script "string"'
    JS_SQ = "script 'string'"
    JS_TEMPLATE = "script `template`"
    JS_REGEXP = "script /regexp/"
    JS_BLOCK_COMMENT = "script /* comment */"
    JS_LINE_COMMENT = "script // comment"
    JS_HTML_OPEN = "script <!-- comment"
    JS_HTML_CLOSE = "script --> comment"
    CSS = "style"
    CSS_DQ = 'style "string"'
    CSS_SQ = "style 'string'"
    CSS_DQ_URL = 'style url("")'
    CSS_SQ_URL = "style url('')"
    CSS_URL = "style url()"
    CSS_BLOCK_COMMENT = "style /* comment */"
    CSS_LINE_COMMENT = "style // comment"


class Delim(Enum):
    """The delimiter of the enclosing attribute value, if there is one."""

    NONE = ""
    DOUBLE = '"'
    SINGLE = "'"
    SPACE_OR_TAG_END = " \t\n\f\r>"


class UrlPart(Enum):
    """The part of a URL at the position."""

    NONE = "start"
    PRE_QUERY = "path"
    QUERY_OR_FRAGMENT = "query"
    UNKNOWN = "unknown"


class Slash(Enum):
    """The token that a slash in JavaScript would start at the position."""

    REGEXP = "regexp"
    DIVISION = "division"
    UNKNOWN = "unknown"


class Attr(Enum):
    """The kind of the attribute whose name precedes the position."""

    NONE = ""
    SCRIPT = "script"
    SCRIPT_TYPE = "script type"
    STYLE = "style"
    URL = "url"
    SRCSET = "srcset"
    META_CONTENT = "meta content"


class Element(Enum):
    """Elements whose content or attributes need special treatment."""

    NONE = ""
    SCRIPT = "script"
    STYLE = "style"
    TEXTAREA = "textarea"
    TITLE = "title"
    META = "meta"


COMMENTS = frozenset(
    {
        State.HTML_COMMENT,
        State.JS_BLOCK_COMMENT,
        State.JS_LINE_COMMENT,
        State.JS_HTML_OPEN,
        State.JS_HTML_CLOSE,
        State.CSS_BLOCK_COMMENT,
        State.CSS_LINE_COMMENT,
    }
)
SCRIPT_LITERALS = frozenset(
    {State.JS_DQ, State.JS_SQ, State.JS_TEMPLATE, State.JS_REGEXP}
)
IN_TAG = frozenset(
    {
        State.TAG,
        State.ATTR_NAME,
        State.AFTER_NAME,
        State.BEFORE_VALUE,
        State.ATTR,
    }
)

VALUE_STATES = {
    Attr.NONE: State.ATTR,
    Attr.SCRIPT: State.JS,
    Attr.SCRIPT_TYPE: State.ATTR,
    Attr.STYLE: State.CSS,
    Attr.URL: State.URL,
    Attr.SRCSET: State.SRCSET,
    Attr.META_CONTENT: State.META_CONTENT,
}


class Context(Struct, frozen=True):
    """A position in a page; ``braces`` counts open braces per enclosing ``${``."""

    state: State = State.TEXT
    delim: Delim = Delim.NONE
    url_part: UrlPart = UrlPart.NONE
    slash: Slash = Slash.REGEXP
    braces: tuple[int, ...] = ()
    attr: Attr = Attr.NONE
    element: Element = Element.NONE

    def with_state(self, state: State) -> Context:
        """Return the context with another innermost construct."""
        return replace(self, state=state)


class ContextError(Exception):
    """Text whose context is ambiguous or unsafe."""


START = Context()


def enter_action(c: Context) -> Context:
    """Return *c* as an action sees it: in a tag, an attribute's name or value."""
    if c.state is State.TAG:
        return c.with_state(State.ATTR_NAME)
    if c.state is State.BEFORE_VALUE:
        return replace(
            c,
            state=VALUE_STATES[c.attr],
            delim=Delim.SPACE_OR_TAG_END,
            attr=Attr.NONE,
        )
    if c.state is State.AFTER_NAME:
        return replace(c, state=State.ATTR_NAME, attr=Attr.NONE)
    return c


def join_contexts(a: Context, b: Context) -> Context | None:
    """Return the context after branches that end in *a* and *b*; None if ambiguous."""
    if a == b:
        return a
    if replace(a, url_part=b.url_part) == b:
        return replace(a, url_part=UrlPart.UNKNOWN)
    if replace(a, slash=b.slash) == b:
        return replace(a, slash=Slash.UNKNOWN)
    # <p title={{if .C}}{{.X}}{{end}} ends in an unquoted value either way.
    c, d = enter_action(a), enter_action(b)
    return None if (c, d) == (a, b) else join_contexts(c, d)
