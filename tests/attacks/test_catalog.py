"""Every row of the attack catalogue has a test that names it.

A test names a row in its name, its parameters or its docstring.
"""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# The row numbers of each part; the numbers between them are not used.
ROWS = {
    "OR": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29 31 32 34 35 37 "
    "38 40 41 43 44 46 47 49",
    "CK": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29 31 32",
    "ST": "01 02 04 05 07 08 10 11",
    "LG": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29 31 32 34 35 37 "
    "38 40 41 43 44 46",
    "JW": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29 31 32 34 35 37 "
    "38 40 41 43",
    "AZ": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26 28 29 31 32 34 35 37 "
    "38",
    "LO": "01 02 04 05 07 08 10 11 13 14 16 17 19 20 22 23 25 26",
}
# JW44 is about token introspection, which authproxy does not have.
ROW = re.compile(r"(?<![a-z])(or|ck|st|lg|jw|az|lo)([0-9]{2})(?![0-9])", re.IGNORECASE)


def rows_in_tests() -> set[str]:
    """Return all rows that a test names."""
    found = set()
    for file in TESTS.rglob("test_*.py"):
        if file == Path(__file__):
            continue
        text = file.read_text()
        found |= {
            f"{part.upper()}{row}" for part, row in ROW.findall(text.replace("_", " "))
        }
    return found


def test_catalog_rows_each_named_by_a_test() -> None:
    rows = {f"{part}{row}" for part, rows in ROWS.items() for row in rows.split()}
    assert sorted(rows - rows_in_tests()) == []
