"""One scene for the attacks of a module that need no settings of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .scene import Scene, opened


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """authproxy with two workers between strangers, a gateway and an app."""
    with opened(tmp_path_factory.mktemp("scene")) as made:
        yield made


@pytest.fixture(scope="module")
def alice(scene: Scene) -> dict[str, str]:
    """The cookies of alice, an admin."""
    return scene.log_in("alice")


@pytest.fixture(scope="module")
def bob(scene: Scene) -> dict[str, str]:
    """The cookies of bob, who is none."""
    return scene.log_in("bob")
