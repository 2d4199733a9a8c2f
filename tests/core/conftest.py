"""Fixtures of the core tests."""

from __future__ import annotations

import pytest

from support.harness import Harness


@pytest.fixture
def harness() -> Harness:
    """A ready proxy with its provider and an empty cookie jar."""
    return Harness()
