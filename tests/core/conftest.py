"""Fixtures of the core's tests."""

from __future__ import annotations

import pytest

from support.world import World


@pytest.fixture
def world() -> World:
    """A proxy that is ready, its provider, and an empty cookie jar."""
    return World()
