"""What may stand in a log line: quoting, redaction, and formats.

A line ends where we end it: control characters of clients are written as escapes.
Query values that are credentials are replaced before they reach a line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from urllib.parse import unquote_to_bytes

from authproxy_core.errors import SettingsError

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
_NAMES = b"|".join(reversed(SECRET_NAMES))  # code_verifier before code
# Also inside a percent-encoded URL, such as the value of rd.
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
    """*target* with the values of secret query parameters replaced."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    if b"%" in query:
        query = b"&".join([_redact_encoded(pair) for pair in query.split(b"&")])
    return SECRET_VALUE.sub(rb"\1" + REDACTED, path + mark + query)


def _redact_encoded(pair: bytes) -> bytes:
    """*pair* redacted if its name is a secret one in percent-encoded spelling."""
    name, mark, _ = pair.partition(b"=")
    if b"%" in name and unquote_to_bytes(name).lower() in SECRET_NAMES:
        return name + mark + REDACTED
    return pair


def quote(text: str) -> str:
    """*text* in double quotes with escapes, as Go's strconv.Quote writes it."""
    if PLAIN.fullmatch(text):
        return f'"{text}"'
    return f'"{"".join([_escape_char(char) for char in text])}"'


def escape_unprintable(text: str) -> str:
    """*text* on one line: what is not printable becomes an escape."""
    if text.isprintable():
        return text
    return "".join(
        [char if char.isprintable() else _escape_char(char) for char in text]
    )


def format_field(text: str) -> str:
    """*text* as one field of a line: "-" when empty, quoted when it has blanks."""
    if not text:
        return "-"
    return quote(text) if set(text) & {" ", '"'} else escape_unprintable(text)


def _escape_char(char: str) -> str:
    known = GO_ESCAPES.get(char)
    if known is not None:
        return known
    if char.isprintable():
        return char
    number = ord(char)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{number - 0xDC00:02x}"
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def decode_bytes(value: bytes) -> str:
    """The text of a header value; bytes that are not UTF-8 survive as surrogates."""
    return value.decode("utf-8", "surrogateescape")


def compile_format(
    option: str, template: str, fields: Sequence[str]
) -> Callable[[tuple[str, ...]], str]:
    """A function from the values of *fields* (in that order) to a line.

    *template* may hold text and ``{{.Field}}``; anything else of Go's template
    language raises `SettingsError` that names *option*.
    """
    names = [match[1] for match in PLACEHOLDER.finditer(template)]
    problems = [
        f"{option}: got the unknown field .{name}, expected one of "
        + ", ".join(f".{field}" for field in fields)
        for name in names
        if name not in fields
    ]
    literal = PLACEHOLDER.sub("", template)
    if "{{" in literal or "}}" in literal:
        problems.append(
            f"{option}: only text and fields such as {{{{.{fields[0]}}}}} can be used"
        )
    if problems:
        raise SettingsError(tuple(problems))
    text = PLACEHOLDER.sub("%s", template.replace("%", "%%")) + "\n"
    if not names:
        return lambda values: text % ()
    indexes = [fields.index(name) for name in names]
    # itemgetter gives a bare value for one index, a tuple for several.
    pick = itemgetter(*indexes)
    return lambda values: text % pick(values)
