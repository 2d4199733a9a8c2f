"""The table of limits names existing options, constants and tests."""

from __future__ import annotations

import re

from authproxy.config.options.table import OPTIONS
from support.programs import ROOT

from .table import LIMITS, page


def test_rows_name_existing_tests() -> None:
    missing = []
    for row in LIMITS:
        file, _, function = row.proof.partition("::")
        path = ROOT / "tests" / file
        text = path.read_text() if path.exists() else ""
        if not re.search(rf"\bdef {function}\(", text):
            missing.append(row.proof)
    assert missing == []


def test_page_has_the_defaults_of_the_program() -> None:
    """``python -m limits.table`` in ``tests/`` rewrites it."""
    assert page() == (ROOT / "docs" / "limits.md").read_text()


def test_options_that_limit_are_in_the_table() -> None:
    named = {row.option for row in LIMITS}
    limits = {
        option.key
        for option in OPTIONS
        if option.key.startswith("max_") or option.key.endswith("_timeout")
    }
    other = {
        "redis_connection_idle_timeout",  # of connections, not of input
        "session_idle_timeout",
    }
    assert sorted(limits - named - other) == []
