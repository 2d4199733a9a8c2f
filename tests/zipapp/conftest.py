"""Fixtures of the zipapp's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.zipapp import run


@pytest.fixture(scope="session")
def filled(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache directory with the unpacked zipapp."""
    cache = tmp_path_factory.mktemp("cache")
    assert run(built, "--version", cache=cache).returncode == 0
    return cache
