"""Store hooks: availability and change notifications."""

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
def test_ready_required_store_unavailable_returns_503(
    sessions: SessionSettings,
) -> None:
    harness = Harness(settings(sessions=sessions))
    assert harness.get("/ready").status == 200
    harness.proxy.store_available = False
    response = harness.get("/ready")
    assert response.status == 503
    assert header(response, b"retry-after") == b"1"
    assert not harness.proxy.ready
    harness.proxy.store_available = True
    assert harness.get("/ready").status == 200


def test_ready_optional_store_unavailable_returns_200() -> None:
    harness = Harness(settings(sessions=SessionSettings(shared=True)))
    harness.proxy.store_available = False
    assert harness.get("/ready").status == 200


def test_store_notifies_is_false_until_set() -> None:
    proxy = Harness().proxy
    assert not proxy.store_notifies
    proxy.store_notifies = True
    assert proxy.store_notifies
    proxy.store_changed("_oauth2_proxy-00112233445566778899aabbccddeeff")
    proxy.store_changed(None)
    proxy.store_notifies = False
    assert not proxy.store_notifies


def test_ready_other_worker_not_ready_returns_503() -> None:
    harness = Harness()
    harness.proxy.other_workers_ready = lambda: False
    response = harness.get("/ready")
    assert (response.status, response.body) == (503, b"another worker is not ready\n")
    assert header(response, b"retry-after")
    assert harness.proxy.ready  # this one is
    successor = harness.proxy.with_settings(settings(email_domains=("b.example",)))
    harness.proxy = successor
    assert harness.get("/ready").status == 503
