"""HTML contexts: tags, attributes and their kinds, comments.

Every step function takes a context and the remaining text, and returns the next
context and the number of characters read. The rules are Go's reading of the HTML
standard, because the output has to be equal.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from .context import (
    COMMENTS,
    SCRIPT_LITERALS,
    VALUE_STATES,
    Attr,
    Context,
    ContextError,
    Delim,
    Element,
    State,
    UrlPart,
)

WHITE = " \t\n\f\r"
OPENING = re.compile(r"<(?:(!--)|(/?)([A-Za-z](?:[A-Za-z0-9]|[:-][A-Za-z0-9])*))")
ATTR_NAME_END = re.compile(r"[ \t\n\f\r=>]")
META_URL = re.compile(r"url[ \t\n\f\r]*=", re.IGNORECASE | re.ASCII)
TAG_ENDS = {
    element: re.compile(rf"</{element.value}(?=[> \t\n\f/])", re.IGNORECASE | re.ASCII)
    for element in (Element.SCRIPT, Element.STYLE, Element.TEXTAREA, Element.TITLE)
}
CONTENT_STATES = {
    Element.NONE: State.TEXT,
    Element.SCRIPT: State.JS,
    Element.STYLE: State.CSS,
    Element.TEXTAREA: State.RCDATA,
    Element.TITLE: State.RCDATA,
    Element.META: State.TEXT,
}
LITERALS_AND_COMMENTS = SCRIPT_LITERALS | COMMENTS
ELEMENTS = {element.value: element for element in Element}

PLAIN_ATTRS = frozenset(
    [
        "accept",
        "alt",
        "autocomplete",
        "autofocus",
        "autoplay",
        "border",
        "checked",
        "class",
        "cols",
        "colspan",
        "contenteditable",
        "contextmenu",
        "controls",
        "coords",
        "datetime",
        "default",
        "dir",
        "dirname",
        "disabled",
        "draggable",
        "dropzone",
        "for",
        "formtarget",
        "headers",
        "height",
        "hidden",
        "high",
        "hreflang",
        "id",
        "ismap",
        "kind",
        "label",
        "lang",
        "list",
        "loop",
        "low",
        "max",
        "maxlength",
        "media",
        "mediagroup",
        "min",
        "multiple",
        "name",
        "open",
        "optimum",
        "placeholder",
        "preload",
        "pubdate",
        "radiogroup",
        "readonly",
        "required",
        "reversed",
        "rows",
        "rowspan",
        "spellcheck",
        "scope",
        "scoped",
        "seamless",
        "selected",
        "shape",
        "size",
        "sizes",
        "span",
        "srclang",
        "start",
        "step",
        "tabindex",
        "target",
        "title",
        "width",
        "wrap",
    ]
)
# These change the meaning of other content or a request. Their values are plain text,
# but a value must never supply such a name.
UNSAFE_ATTRS = frozenset(
    [
        "accept-charset",
        "async",
        "challenge",
        "charset",
        "content",
        "crossorigin",
        "defer",
        "enctype",
        "form",
        "formenctype",
        "formmethod",
        "formnovalidate",
        "http-equiv",
        "keytype",
        "language",
        "method",
        "novalidate",
        "pattern",
        "rel",
        "sandbox",
        "srcdoc",
        "type",
        "value",
    ]
)
URL_ATTRS = frozenset(
    [
        "action",
        "archive",
        "background",
        "cite",
        "classid",
        "codebase",
        "data",
        "formaction",
        "href",
        "icon",
        "longdesc",
        "manifest",
        "poster",
        "profile",
        "src",
        "usemap",
        "xmlns",
    ]
)
SPECIAL_ATTRS = {"style": Attr.STYLE, "srcset": Attr.SRCSET}


def attr_kind(name: str) -> tuple[Attr, bool]:
    """Return the kind of an attribute, and whether a value may supply its name.

    *name* is in lower case. Unknown names are classified by convention: ``on…`` is a
    script; a name with ``src``, ``uri`` or ``url`` is a URL.
    """
    if name.startswith("data-"):
        name = name[5:]
    elif ":" in name:
        prefix, _, name = name.partition(":")
        if prefix == "xmlns":
            return Attr.URL, False
    if name in PLAIN_ATTRS:
        return Attr.NONE, True
    if name in UNSAFE_ATTRS:
        return Attr.NONE, False
    if name in SPECIAL_ATTRS:
        return SPECIAL_ATTRS[name], False
    if name in URL_ATTRS:
        return Attr.URL, False
    if name.startswith("on"):
        return Attr.SCRIPT, False
    if "src" in name or "uri" in name or "url" in name:
        return Attr.URL, False
    return Attr.NONE, True


def text_step(c: Context, s: str) -> tuple[Context, int]:
    """Read HTML text up to a tag or a comment."""
    match = OPENING.search(s)
    if match is None:
        return c, len(s)
    comment, slash, name = match.groups()
    if comment:
        return Context(State.HTML_COMMENT), match.end()
    element = Element.NONE if slash else ELEMENTS.get(name.lower(), Element.NONE)
    return Context(State.TAG, element=element), match.end()


def tag_step(c: Context, s: str) -> tuple[Context, int]:
    """Read an attribute's name inside a tag, or the end of the tag."""
    start = _skip_white(s, 0)
    if start == len(s):
        return c, start
    if s[start] == ">":
        element = Element.NONE if c.element is Element.META else c.element
        return Context(CONTENT_STATES[c.element], element=element), start + 1
    end = _name_end(s, start)
    if end == start:
        raise ContextError(
            f"expected space, attribute name or end of tag, got {s[start:][:32]!r}"
        )
    attr = _attribute(c.element, s[start:end].lower())
    state = State.ATTR_NAME if end == len(s) else State.AFTER_NAME
    return Context(state, attr=attr, element=c.element), end


def _attribute(element: Element, name: str) -> Attr:
    if element is Element.SCRIPT and name == "type":
        return Attr.SCRIPT_TYPE
    if element is Element.META and name == "content":
        return Attr.META_CONTENT
    return attr_kind(name)[0]


def attr_name_step(c: Context, s: str) -> tuple[Context, int]:
    """Read the rest of an attribute's name after an action."""
    end = _name_end(s, 0)
    return (c if end == len(s) else c.with_state(State.AFTER_NAME)), end


def after_name_step(c: Context, s: str) -> tuple[Context, int]:
    """Read from an attribute's name to the equals sign, if there is one."""
    at = _skip_white(s, 0)
    if at == len(s):
        return c, at
    if s[at] != "=":
        return c.with_state(State.TAG), at
    return c.with_state(State.BEFORE_VALUE), at + 1


def before_value_step(c: Context, s: str) -> tuple[Context, int]:
    """Read from the equals sign to the value."""
    at = _skip_white(s, 0)
    if at == len(s):
        return c, at
    delim = Delim.SPACE_OR_TAG_END
    if s[at] in "\"'":
        delim, at = Delim(s[at]), at + 1
    return replace(c, state=VALUE_STATES[c.attr], delim=delim), at


def comment_step(c: Context, s: str) -> tuple[Context, int]:
    end = s.find("-->")
    return (c, len(s)) if end < 0 else (Context(), end + 3)


def special_end_step(c: Context, s: str) -> tuple[Context, int]:
    """Read up to the end tag of the enclosing script, style, title or textarea.

    At the end tag, the result is the start context and 0 characters.
    """
    pattern = TAG_ENDS.get(c.element)
    if c.element is Element.SCRIPT and c.state in LITERALS_AND_COMMENTS:
        pattern = None  # the text is escaped instead
    match = pattern.search(s) if pattern else None
    return (c, len(s)) if match is None else (Context(), match.start())


def plain_step(c: Context, s: str) -> tuple[Context, int]:
    """Read all of the text without a change of the context."""
    return c, len(s)


def url_step(c: Context, s: str) -> tuple[Context, int]:
    """Read a URL; ? and # start its query or fragment."""
    part = c.url_part
    if "#" in s or "?" in s:
        part = UrlPart.QUERY_OR_FRAGMENT
    elif part is UrlPart.NONE and s.strip(WHITE):
        part = UrlPart.PRE_QUERY
    return replace(c, url_part=part), len(s)


def meta_step(c: Context, s: str) -> tuple[Context, int]:
    """Read the content of a meta element up to ``url=``."""
    match = META_URL.search(s)
    if match is None:
        return c, len(s)
    return c.with_state(State.META_CONTENT_URL), match.end()


def meta_url_step(c: Context, s: str) -> tuple[Context, int]:
    end = s.find(";")
    return (c, len(s)) if end < 0 else (c.with_state(State.META_CONTENT), end + 1)


def _skip_white(s: str, at: int) -> int:
    return len(s) - len(s[at:].lstrip(WHITE))


def _name_end(s: str, start: int) -> int:
    """Return the end of the attribute name at *start*; reject quotes and < in it."""
    match = ATTR_NAME_END.search(s, start)
    end = match.start() if match else len(s)
    for character in s[start:end]:
        if character in "\"'<":
            raise ContextError(f"{character!r} in attribute name {s[start:][:32]!r}")
    return end
