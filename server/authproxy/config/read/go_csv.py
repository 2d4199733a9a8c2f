"""CSV as Go's encoding/csv reads it (RFC 4180 with its strictness about quotes).

Python's csv module accepts stray quotes, which would turn a typing error into another
list of users.
"""

from __future__ import annotations

import re


def read_records(
    text: str, *, comment: str = "", trim: bool = False, separator: str = ","
) -> list[tuple[str, ...]]:
    """All records of *text*; empty lines and lines starting with *comment* are skipped.

    With *trim*, white space before a field is removed. Raises ValueError saying in
    which line the text is malformed.
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
    """The record that begins in line *at*, and the number of the line after it."""
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
                raise ValueError(f"line {at + 1}: a quote inside an unquoted field")
            rest = comma + after
        fields.append(field)
        if not rest:
            return tuple(fields), at + 1
        rest = rest[1:]


def _read_quoted(
    lines: list[str], at: int, rest: str, separator: str
) -> tuple[str, str, int]:
    """The field behind an opening quote, what follows it, and the line it ended in."""
    parts = []
    while True:
        part, quote, after = rest.partition('"')
        parts.append(part)
        if not quote:  # the field goes on in the next line
            at += 1
            if at == len(lines):
                raise ValueError(f"line {at}: a quoted field without its end")
            parts.append("\n")
            rest = lines[at].removesuffix("\n")
        elif after.startswith('"'):  # a doubled quote is a quote
            parts.append('"')
            rest = after[1:]
        elif not after or after.startswith(separator):
            return "".join(parts), after, at
        else:
            raise ValueError(f"line {at + 1}: text behind a closing quote")
