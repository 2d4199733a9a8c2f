"""Fixtures of the core's tests."""

from __future__ import annotations

import pytest

from support.harness import Harness


@pytest.fixture
def harness() -> Harness:
    """A proxy that is ready, its provider, and an empty cookie jar."""
    return Harness()
