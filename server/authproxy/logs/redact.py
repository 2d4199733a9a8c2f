"""Make values safe for log lines: quoting, redaction, line templates.

Control characters from clients are escaped, so a value cannot end a line. Credentials
in query parameters are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from urllib.parse import unquote_to_bytes

from authproxy_core.errors import SettingsError
from authproxy_core.templates import TemplateError, compile_templates

REDACTED = b"..."
SECRET_NAMES = (
    b"access_token",
    b"client_secret",
    b"code",
    b"code_verifier",
    b"id_token",
    b"id_token_hint",
    b"logout_token",
    b"password",
    b"refresh_token",
    b"session_state",
    b"state",
    b"token",
)
_NAMES = b"|".join(
    reversed(SECRET_NAMES)
)  # the longer of two names with one prefix first
# Matches inside a percent-encoded URL, too, such as the value of rd.
SECRET_VALUE = re.compile(
    rb"(?i)((?:[?&;]|%3f|%26|%3b)(?:" + _NAMES + rb")(?:=|%3d))"
    rb"(?:(?!%26|%3b|%23)[^&;#])*"
)
PLAIN = re.compile(r"[ !#-\[\]-~]*")
GO_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}
PLACEHOLDER = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")


def redact(target: bytes) -> bytes:
    """Return *target* with the values of secret query parameters replaced."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    if b"%" in query:
        query = b"&".join([_redact_encoded(pair) for pair in query.split(b"&")])
    return SECRET_VALUE.sub(rb"\1" + REDACTED, path + mark + query)


def _redact_encoded(pair: bytes) -> bytes:
    """Return *pair*, redacted if its percent-encoded name is a secret one."""
    name, mark, _ = pair.partition(b"=")
    if b"%" in name and unquote_to_bytes(name).lower() in SECRET_NAMES:
        return name + mark + REDACTED
    return pair


def quote(text: str) -> str:
    """Return *text* in double quotes with escapes, like Go's strconv.Quote."""
    if PLAIN.fullmatch(text):
        return f'"{text}"'
    return f'"{"".join([_escape_char(char) for char in text])}"'


def escape_unprintable(text: str) -> str:
    """Return *text* with escapes for all unprintable characters."""
    if text.isprintable():
        return text
    return "".join(
        [char if char.isprintable() else _escape_char(char) for char in text]
    )


def format_field(text: str) -> str:
    """Return *text* as one field of a line: "-" if empty, quoted if it has spaces."""
    if not text:
        return "-"
    return quote(text) if set(text) & {" ", '"'} else escape_unprintable(text)


def _escape_char(char: str) -> str:
    escape = GO_ESCAPES.get(char)
    if escape is not None:
        return escape
    if char.isprintable():
        return char
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of invalid UTF-8, from `decode_bytes`
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def decode_bytes(value: bytes) -> str:
    """Return the text of a field value; invalid UTF-8 becomes surrogates."""
    return value.decode("utf-8", "surrogateescape")


def _compile_template(
    option: str, template: str, fields: Sequence[str]
) -> Callable[[tuple[str, ...]], str]:
    """Compile a *template* with functions or conditions; see `compile_format`.

    Values for which it fails, such as one too short for ``slice``, are written in order,
    so no line is lost.
    """
    try:
        compiled = compile_templates({option: template}, fields, plain=True)
    except TemplateError as error:
        raise SettingsError((str(error),)) from None

    def line(values: tuple[str, ...]) -> str:
        try:
            text = compiled.render(option, dict(zip(fields, values, strict=True)))
        except TemplateError:
            return " ".join(values) + "\n"
        return text.decode() + "\n"

    return line


def compile_format(
    option: str, template: str, fields: Sequence[str]
) -> Callable[[tuple[str, ...]], str]:
    """Return a function from the values of *fields*, in that order, to a line.

    *template* is in Go's template language. Raises `SettingsError`, which names *option*,
    for invalid templates and unknown fields.
    """
    names = [match[1] for match in PLACEHOLDER.finditer(template)]
    problems = [
        f"{option}: got the unknown field .{name}, expected one of "
        + ", ".join(f".{field}" for field in fields)
        for name in names
        if name not in fields
    ]
    if not problems and "{{" in PLACEHOLDER.sub("", template):
        return _compile_template(option, template, fields)
    if problems:
        raise SettingsError(tuple(problems))
    text = PLACEHOLDER.sub("%s", template.replace("%", "%%")) + "\n"
    if not names:
        return lambda values: text % ()
    indexes = [fields.index(name) for name in names]
    # itemgetter returns a single value for one index, a tuple for several.
    select = itemgetter(*indexes)
    return lambda values: text % select(values)
