"""Refreshes while the provider does not respond: one session waits, others go on."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Fetch, FetchError, Respond, SessionSettings, Unlock
from authproxy_core.sessions.refresh_cache import RETRY_DELAY
from support.harness import Harness, headers, settings

TIMEOUT = 10.0  # seconds of a request to the provider
Jar = dict[bytes, bytes]


class Provider:
    """The provider of *harness*; requests fail after *delay* while it is *away*."""

    def __init__(self, harness: Harness, delay: float) -> None:
        self.asked = 0
        self.away = True
        self._harness = harness
        self._delay = delay
        harness.on_fetch = self.fetch

    def fetch(self, effect: Fetch) -> Any:
        self.asked += 1
        if self.away:
            self._harness.clock.now += self._delay
            raise FetchError("timed out after 10 s")
        return self._harness.idp.fetch(effect)


def scene(delay: float = TIMEOUT, **life: float) -> tuple[Harness, Provider, list[Jar]]:
    """Return three sessions that are due for a refresh."""
    harness = Harness(
        settings(cookie={"refresh": 60.0}, sessions=SessionSettings(**life))
    )
    jars = []
    for _ in range(3):
        harness.jar = {}
        harness.log_in()
        jars.append(harness.jar)
    harness.clock.now += 61
    return harness, Provider(harness, delay), jars


def check(harness: Harness, jar: Jar) -> Respond:
    harness.jar = jar
    return harness.get("/oauth2/auth")


def status(harness: Harness, jar: Jar) -> int:
    return check(harness, jar).status


def test_sessions_do_not_wait_for_an_unresponsive_provider() -> None:
    harness, provider, jars = scene()
    assert [status(harness, jar) for jar in jars] == [202] * 3
    assert provider.asked == 1
    harness.clock.now += RETRY_DELAY
    assert [status(harness, jar) for jar in jars] == [202] * 3
    assert provider.asked == 2  # one more attempt
    harness.clock.now += RETRY_DELAY
    provider.away = False
    for jar in jars:
        assert headers(check(harness, jar), b"set-cookie")


def test_sessions_do_not_wait_while_one_tries_an_unresponsive_provider() -> None:
    harness, provider, jars = scene()
    status(harness, jars[0])
    harness.clock.now += RETRY_DELAY
    trial = harness.proxy.check(harness.request("/oauth2/auth", jar=jars[1]))
    effect: Any = next(trial)
    while not isinstance(effect, Fetch):
        effect = trial.send(True)
    asked = provider.asked
    assert status(harness, jars[2]) == 202
    assert provider.asked == asked
    provider.away = False
    fetched = harness.perform(effect)
    assert isinstance(trial.send(fetched), Unlock)
    with pytest.raises(StopIteration) as stop:
        trial.send(None)
    assert headers(stop.value.value, b"set-cookie")
    assert headers(check(harness, jars[2]), b"set-cookie")


def test_ended_sessions_denied_while_the_provider_is_unresponsive() -> None:
    harness, provider, jars = scene(max_lifetime=75.0)
    assert status(harness, jars[0]) == 202  # 61 + 10 s after the login
    assert status(harness, jars[1]) == 202
    harness.clock.now += 5
    assert [status(harness, jar) for jar in jars] == [401] * 3
    assert provider.asked == 1


def test_quick_failures_of_the_provider_delay_only_their_session() -> None:
    harness, provider, jars = scene(delay=0.1)
    assert [status(harness, jar) for jar in jars] == [202] * 3
    assert provider.asked == 3


def test_session_in_use_is_touched_while_the_provider_is_unresponsive() -> None:
    harness, _, jars = scene(idle_timeout=100.0)
    assert status(harness, jars[0]) == 202
    assert headers(check(harness, jars[1]), b"set-cookie")
    harness.clock.now += 50
    status(harness, jars[0])  # unresponsive again
    assert status(harness, jars[1]) == 202
