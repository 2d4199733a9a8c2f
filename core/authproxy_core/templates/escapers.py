"""Escapers: one function per context, which turns a value into safe text.

`ESCAPERS` maps the names that compilation stores in actions to the functions. Their
output is byte for byte that of Go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from .css import decode_escapes
from .functions import escape_html, escape_query
from .markup import attr_kind
from .steps import strip_tags
from .values import Html, to_text

FAILSAFE = "ZgotmplZ"  # Go's replacement for an unsafe value

_NORM = {
    "\0": "\ufffd", '"': "&#34;", "'": "&#39;", "+": "&#43;", "<": "&lt;", ">": "&gt;",
}  # fmt: skip
_NOSPACE_NORM = _NORM | {
    "\0": "&#xfffd;", "\t": "&#9;", "\n": "&#10;", "\v": "&#11;", "\f": "&#12;",
    "\r": "&#13;", " ": "&#32;", "=": "&#61;", "`": "&#96;",
}  # fmt: skip
# Old browsers misparse these code points in unquoted attributes.
_NOSPACE_NORM |= {
    chr(code): f"&#x{code:x};"
    for code in (*range(0xFDD0, 0xFDF0), *range(0xFFF0, 1 << 16))
}
NORM = str.maketrans(_NORM)
HTML = str.maketrans(_NORM | {"&": "&amp;"})
NOSPACE_NORM = str.maketrans(_NOSPACE_NORM)
NOSPACE = str.maketrans(_NOSPACE_NORM | {"&": "&amp;"})

_JS_LOW = {chr(code): f"\\u{code:04x}" for code in range(32)} | {
    "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r",
    "\u2028": "\\u2028", "\u2029": "\\u2029",
}  # fmt: skip
_JS = _JS_LOW | {
    '"': "\\u0022", "&": "\\u0026", "'": "\\u0027", "+": "\\u002b", "/": "\\/",
    "<": "\\u003c", ">": "\\u003e", "\\": "\\\\",
}  # fmt: skip
JS_STRING = str.maketrans(_JS | {"`": "\\u0060"})
JS_TEMPLATE = str.maketrans(
    _JS | {"`": "\\u0060", "$": "\\u0024", "{": "\\u007b", "}": "\\u007d"}
)
JS_REGEXP = str.maketrans(_JS | {letter: "\\" + letter for letter in "$()*-.?[]^{|}"})
JSON = str.maketrans(
    {
        "<": "\\u003c", ">": "\\u003e", "&": "\\u0026",
        "\u2028": "\\u2028", "\u2029": "\\u2029",
    }
)  # fmt: skip

CSS_SPECIAL = re.compile(r"[\0\t\n\f\r\"&'()+/:;<>\\{}]")
CSS_CLASH = frozenset("0123456789abcdefABCDEF \t\n\f\r")
CSS_UNSAFE = re.compile(r"[\0\"'()/;@\[\\\]`{}<>]|--")
CSS_NOT_NAME = re.compile(r"[^A-Za-z0-9_]")
SAFE_SCHEMES = frozenset({"http", "https", "mailto"})
URL_KEPT = re.compile(rb"[^A-Za-z0-9\-._~]")
URL_NORMAL = re.compile(rb"%(?![0-9a-fA-F]{2})|[^A-Za-z0-9\-._~!#$&*+,/:;=?@\[\]%]")
SRCSET_PART = re.compile(r"([\t\n\f\r ]*)([^\t\n\f\r ]*)([\t\n\f\r 0-9A-Za-z]*)")
NAME = re.compile(r"[0-9a-z]+")


def html_text(value: object) -> str:
    """Escape HTML text; trusted HTML is unchanged."""
    return value if isinstance(value, Html) else to_text(value).translate(HTML)


def rcdata(value: object) -> str:
    """Escape text of a title or textarea; entities of trusted HTML are unchanged."""
    return to_text(value).translate(NORM if isinstance(value, Html) else HTML)


def attr(value: object) -> str:
    """Escape a quoted attribute value; tags of trusted HTML are stripped."""
    if isinstance(value, Html):
        return strip_tags(value).translate(NORM)
    return to_text(value).translate(HTML)


def attr_unquoted(value: object) -> str:
    """Escape an unquoted attribute value, which must not be empty."""
    text = to_text(value)
    if not text:
        return FAILSAFE
    if isinstance(value, Html):
        return strip_tags(text).translate(NOSPACE_NORM)
    return text.translate(NOSPACE)


def attr_name(value: object) -> str:
    """Return an attribute name whose value is plain text, else `FAILSAFE`."""
    name = to_text(value).lower()
    return name if NAME.fullmatch(name) and attr_kind(name)[1] else FAILSAFE


def comment(value: object) -> str:
    """Return "": values in comments are dropped."""
    return ""


def js_value(value: object) -> str:
    """Return a JavaScript literal; spaces separate numbers and words from neighbors."""
    text = json.dumps(
        _json_value(value), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ).translate(JSON)
    return text if text[0] in '"[{' else f" {text} "


def _json_value(value: object) -> object:
    """Return *value* as JSON types; other types and lone surrogates are replaced."""
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if value is None or isinstance(value, int):
        return value
    return to_text(value)


def js_string(value: object) -> str:
    """Escape for a quoted JavaScript string."""
    return to_text(value).translate(JS_STRING)


def js_template(value: object) -> str:
    """Escape for a JavaScript template literal."""
    return to_text(value).translate(JS_TEMPLATE)


def js_regexp(value: object) -> str:
    """Escape for a JavaScript regular expression; never empty, // is a comment."""
    return to_text(value).translate(JS_REGEXP) or "(?:)"


def css_string(value: object) -> str:
    """Escape for a CSS string."""
    return CSS_SPECIAL.sub(_css_escape, to_text(value))


def _css_escape(match: re.Match[str]) -> str:
    if match[0] == "\\":
        return "\\\\"
    following = match.string[match.end() : match.end() + 1]
    space = " " if not following or following in CSS_CLASH else ""
    return f"\\{ord(match[0]):x}{space}"


def css_value(value: object) -> str:
    """Return a CSS value if it is a single harmless one, else `FAILSAFE`."""
    text = decode_escapes(to_text(value))
    word = CSS_NOT_NAME.sub("", text).lower()
    if CSS_UNSAFE.search(text) or "expression" in word or "mozbinding" in word:
        return FAILSAFE
    return text


def url_filter(value: object) -> str:
    """Return a URL without a scheme or with a safe one, else a harmless fragment."""
    text = to_text(value)
    return text if _is_safe_url(text) else "#" + FAILSAFE


def _is_safe_url(text: str) -> bool:
    scheme, colon, _ = text.partition(":")
    return not colon or "/" in scheme or scheme.casefold() in SAFE_SCHEMES


def url_part(value: object) -> str:
    """Percent-encode a part of a URL's query or fragment."""
    return _percent_encode(URL_KEPT, to_text(value))


def url_normal(value: object) -> str:
    """Percent-encode the characters that are not allowed in a URL."""
    return _percent_encode(URL_NORMAL, to_text(value))


def _percent_encode(pattern: re.Pattern[bytes], text: str) -> str:
    return pattern.sub(lambda match: b"%%%02x" % match[0][0], text.encode()).decode()


def srcset(value: object) -> str:
    """Return a list of image URLs in which unsafe ones are replaced."""
    return ",".join(map(_srcset_part, to_text(value).split(",")))


def _srcset_part(text: str) -> str:
    match = SRCSET_PART.fullmatch(text)
    if match is None or not _is_safe_url(match[2]):
        return "#" + FAILSAFE
    return match[1] + url_normal(match[2]) + match[3]


ESCAPERS: dict[str, Callable[[object], str]] = {
    "html_text": html_text,
    "rcdata": rcdata,
    "attr": attr,
    "attr_unquoted": attr_unquoted,
    "attr_name": attr_name,
    "comment": comment,
    "js_value": js_value,
    "js_string": js_string,
    "js_template": js_template,
    "js_regexp": js_regexp,
    "css_string": css_string,
    "css_value": css_value,
    "url_filter": url_filter,
    "url_part": url_part,
    "url_normal": url_normal,
    "srcset": srcset,
    "plain": to_text,
    # Functions that a template may call at the end of a pipeline.
    "html": escape_html,
    "urlquery": escape_query,
}
