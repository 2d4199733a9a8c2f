"""What a driver tells the core about its store."""

from __future__ import annotations

import pytest

from authproxy_core import SessionSettings
from support.world import World, header, settings


@pytest.mark.parametrize(
    "sessions",
    [
        SessionSettings(backend="store", shared=True),
        SessionSettings(revocable=True, shared=True),
    ],
)
def test_not_ready_while_a_store_that_is_needed_is_away(
    sessions: SessionSettings,
) -> None:
    world = World(settings(sessions=sessions))
    assert world.get("/ready").status == 200
    world.proxy.store_available = False
    answer = world.get("/ready")
    assert answer.status == 503
    assert header(answer, b"retry-after") == b"1"
    assert not world.proxy.ready
    world.proxy.store_available = True
    assert world.get("/ready").status == 200


def test_ready_without_a_store_that_only_helps() -> None:
    world = World(settings(sessions=SessionSettings(shared=True)))
    world.proxy.store_available = False
    assert world.get("/ready").status == 200


def test_trust_in_the_store_is_off_until_the_driver_says_otherwise() -> None:
    proxy = World().proxy
    assert not proxy.store_notifies
    proxy.store_notifies = True
    assert proxy.store_notifies
    proxy.store_changed("_oauth2_proxy-00112233445566778899aabbccddeeff")
    proxy.store_changed(None)
    proxy.store_notifies = False
    assert not proxy.store_notifies
