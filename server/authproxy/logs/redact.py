"""Make values safe for log lines: quoting, redaction, line templates.

Control characters from clients are escaped, so a value cannot end a line. Credentials
in parameters are replaced, and long texts are clipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from urllib.parse import unquote_to_bytes

from authproxy_core.errors import SettingsError
from authproxy_core.templates import TemplateError, compile_templates

REDACTED = b"..."
SECRET_NAMES = frozenset(
    {
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
    }
)
SECRET_STEMS = (b"token", b"secret", b"code", b"password", b"state")  # one in each name
MAX_TEXT_LENGTH = 4096  # characters of a message or a request target in a log line
MAX_SHORT_TEXT_LENGTH = 1024  # characters of a method, user or user agent
MAX_DECODINGS = 4  # percent-decodings of a parameter name
# A parameter up to its "=". URLs in values, such as that of rd, are percent-encoded once
# or more: "?" is %3F, then %253F, %25253F …; group 1 has the repetitions of "25".
PARAMETER = re.compile(
    rb"(?:[?&;#]|%((?:25)*)(?:3f|26|3b|23))"
    rb"((?:[^?&;#=%]|%(?!(?:25)*(?:3f|26|3b|23|3d)))*)"
    rb"(?:=|%(?:25)*3d)",
    re.IGNORECASE,
)
# The end of a value by the depth of its parameter. A separator that is encoded more
# often belongs to the value.
VALUE_ENDS = [re.compile(rb"[&;#]")] + [
    re.compile(rb"[&;#]|%%(?:25){0,%d}(?:26|3b|23)" % depth, re.IGNORECASE)
    for depth in range(8)
]
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
    """Return *target* with the values of secret parameters replaced.

    Parameters of the query and of the fragment count, also in URLs that are
    percent-encoded within *target*, once or more. The middle of a long *target* is left
    out, because no line shows it, and a search for parameters has a cost.
    """
    if b"?" not in target and b"%" not in target and b"#" not in target:
        return target
    if len(target) <= MAX_TEXT_LENGTH:
        return _redact(target)
    half = MAX_TEXT_LENGTH // 2
    # The end must not start within a secret value, so it starts after a separator.
    end = VALUE_ENDS[0].search(target, len(target) - half)
    last = _redact(target[end.start() :]) if end else b""
    return _redact(target[:half]) + REDACTED + last


def _redact(target: bytes) -> bytes:
    lower = target.lower()
    if b"%" not in target and not any(stem in lower for stem in SECRET_STEMS):
        return target  # the usual case: no search for each parameter
    parts: list[bytes] = []
    at = 0
    while parameter := PARAMETER.search(target, at):
        end = parameter.end()
        parts.append(target[at:end])
        at = end
        if _is_secret(parameter[2]):
            depth = 0 if parameter[1] is None else 1 + len(parameter[1]) // 2
            stop = VALUE_ENDS[min(depth, len(VALUE_ENDS) - 1)].search(target, end)
            at = stop.start() if stop else len(target)
            parts.append(REDACTED)
    return b"".join([*parts, target[at:]])


def _is_secret(name: bytes) -> bool:
    """Return whether the parameter *name*, percent-encoded or not, is a secret one."""
    for _ in range(MAX_DECODINGS):
        if b"%" not in name:
            break
        name = unquote_to_bytes(name)
    return name.strip(b" +").lower() in SECRET_NAMES


def clip(text: str, limit: int = MAX_TEXT_LENGTH) -> str:
    """Return *text*, with its middle left out if it is longer than *limit*."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}...{text[-half:]}"


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
