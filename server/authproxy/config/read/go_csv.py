"""CSV as Go's encoding/csv reads it: RFC 4180 with strict quoting.

Python's csv module accepts stray quotes, so a typo would silently change a list of
users.
"""

from __future__ import annotations

import re


def read_records(
    text: str, *, comment: str = "", trim: bool = False, separator: str = ","
) -> list[tuple[str, ...]]:
    """Return all records of *text*, without empty lines and *comment* lines.

    *trim* removes white space before a field. Raises ValueError with the number of the
    malformed line.
    """
    records = []
    lines = re.findall(r"[^\n]*\n|[^\n]+", text.replace("\r\n", "\n"))
    at = 0
    while at < len(lines):
        line = lines[at]
        if line == "\n" or (comment and line.startswith(comment)):
            at += 1
            continue
        record, at = _read_record(lines, at, trim, separator)
        records.append(record)
    return records


def _read_record(
    lines: list[str], at: int, trim: bool, separator: str
) -> tuple[tuple[str, ...], int]:
    """Return the record that starts at line *at*, and the number of the next line."""
    fields = []
    rest = lines[at].removesuffix("\n")
    while True:
        if trim:
            rest = rest.lstrip()
        if rest.startswith('"'):
            field, rest, at = _read_quoted(lines, at, rest[1:], separator)
        else:
            field, comma, after = rest.partition(separator)
            if '"' in field:
                raise ValueError(f"line {at + 1}: quote in an unquoted field")
            rest = comma + after
        fields.append(field)
        if not rest:
            return tuple(fields), at + 1
        rest = rest[1:]


def _read_quoted(
    lines: list[str], at: int, rest: str, separator: str
) -> tuple[str, str, int]:
    """Return a quoted field, the text after it, and the number of its last line.

    *rest* is the text after the opening quote.
    """
    parts = []
    while True:
        part, quote, after = rest.partition('"')
        parts.append(part)
        if not quote:  # the field continues on the next line
            at += 1
            if at == len(lines):
                raise ValueError(f"line {at}: unterminated quoted field")
            parts.append("\n")
            rest = lines[at].removesuffix("\n")
        elif after.startswith('"'):  # "" is an escaped quote
            parts.append('"')
            rest = after[1:]
        elif not after or after.startswith(separator):
            return "".join(parts), after, at
        else:
            raise ValueError(f"line {at + 1}: text after a closing quote")
