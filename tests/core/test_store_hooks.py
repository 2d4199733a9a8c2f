"""What a driver tells the core about its store."""

from __future__ import annotations

import pytest

from authproxy_core import SessionSettings
from support.harness import Harness, header, settings


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
    harness = Harness(settings(sessions=sessions))
    assert harness.get("/ready").status == 200
    harness.proxy.store_available = False
    answer = harness.get("/ready")
    assert answer.status == 503
    assert header(answer, b"retry-after") == b"1"
    assert not harness.proxy.ready
    harness.proxy.store_available = True
    assert harness.get("/ready").status == 200


def test_ready_without_a_store_that_only_helps() -> None:
    harness = Harness(settings(sessions=SessionSettings(shared=True)))
    harness.proxy.store_available = False
    assert harness.get("/ready").status == 200


def test_trust_in_the_store_is_off_until_the_driver_says_otherwise() -> None:
    proxy = Harness().proxy
    assert not proxy.store_notifies
    proxy.store_notifies = True
    assert proxy.store_notifies
    proxy.store_changed("_oauth2_proxy-00112233445566778899aabbccddeeff")
    proxy.store_changed(None)
    proxy.store_notifies = False
    assert not proxy.store_notifies
