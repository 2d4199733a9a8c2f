"""Every row of the catalog has a test that names it.

A test names a row in its name, its parameters, its docstring or a comment.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .catalog import CATALOG, NOT_APPLICABLE

TESTS = Path(__file__).resolve().parents[1]
PARTS = sorted({row[:2] for row in CATALOG})
ROW = re.compile(rf"(?<![a-z])({'|'.join(PARTS)})([0-9]{{2}})(?![0-9])", re.IGNORECASE)


@cache
def rows_in_tests() -> frozenset[str]:
    """Return all rows that a test names."""
    return frozenset(
        f"{part.upper()}{number}"
        for file in TESTS.rglob("test_*.py")
        if file != Path(__file__)
        for source in sources_of_tests(file.read_text())
        for part, number in ROW.findall(source.replace("_", " "))
    )


def sources_of_tests(text: str) -> Iterator[str]:
    """Yield the source of each test, with its decorators."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            yield "\n".join(lines[first - 1 : node.end_lineno])


def test_catalog_rows_each_named_by_a_test() -> None:
    assert sorted(CATALOG.keys() - NOT_APPLICABLE.keys() - rows_in_tests()) == []


def test_rows_named_by_tests_are_in_the_catalog() -> None:
    assert sorted(rows_in_tests() - CATALOG.keys()) == []


def test_not_applicable_rows_have_a_reason_and_no_test() -> None:
    assert NOT_APPLICABLE.keys() <= CATALOG.keys()
    assert all(NOT_APPLICABLE.values())
    assert sorted(NOT_APPLICABLE.keys() & rows_in_tests()) == []
