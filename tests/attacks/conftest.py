"""One harness per module, for the attacks that need no special options."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Harness, running_harness


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """authproxy with two workers, a gateway and an application."""
    with running_harness(tmp_path_factory.mktemp("harness")) as made:
        yield made


@pytest.fixture(scope="module")
def alice(harness: Harness) -> dict[str, str]:
    """The session cookies of alice, a member of admins."""
    return harness.log_in("alice")


@pytest.fixture(scope="module")
def bob(harness: Harness) -> dict[str, str]:
    """The session cookies of bob, who is not a member of admins."""
    return harness.log_in("bob")
