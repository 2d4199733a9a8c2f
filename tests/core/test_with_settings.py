"""New settings for a running proxy: what changes at once, and what still holds."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import FetchError, Lock, Respond, Secret, SettingsError
from authproxy_core.settings.root import CookieSettings, Settings
from support.harness import (
    SECRET,
    Harness,
    headers,
    provider_settings,
    settings,
    with_changes,
)

NEW_SECRET = Secret(b"fedcba9876543210fedcba9876543210")


def reload(harness: Harness, **changes: Any) -> None:
    """Go on with changed settings."""
    harness.proxy = harness.proxy.with_settings(
        with_changes(harness.proxy.settings, **changes)
    )


def ring(*secrets: Secret, **changes: Any) -> CookieSettings:
    return CookieSettings(secrets=secrets, **changes)


def test_equal_settings_change_nothing(harness: Harness) -> None:
    assert harness.proxy.with_settings(settings()) is harness.proxy


def test_what_the_store_said_holds(harness: Harness) -> None:
    harness.proxy.store_available = harness.proxy.store_notifies = False
    reload(harness, auth_success_status=204)
    assert (harness.proxy.store_available, harness.proxy.store_notifies) == (
        False,
        False,
    )


def test_bad_settings_leave_all_as_it_is(harness: Harness) -> None:
    harness.log_in()
    with pytest.raises(SettingsError, match="cookie_secret"):
        reload(harness, cookie=CookieSettings())
    assert harness.get("/oauth2/auth").status == 202


def test_sessions_outlive_a_change_and_rules_hold_at_once(harness: Harness) -> None:
    """AZ34: who may not come in any more is out with the next request."""
    harness.log_in()
    assert harness.get("/oauth2/auth").status == 202
    assert harness.get("/oauth2/auth").status == 202
    reload(harness, email_domains=("other.example",))
    assert harness.get("/oauth2/auth").status == 403
    reload(harness, email_domains=("*",), auth_success_status=204)
    assert harness.get("/oauth2/auth").status == 204


def test_metadata_and_keys_are_kept(harness: Harness) -> None:
    """Nothing is fetched again, and logins go on, while the provider is away."""
    harness.fetched.clear()
    changes = {"allowed_groups": ("admins",), "client_secret": Secret(b"other")}
    reload(harness, providers=(provider_settings(**changes),))
    harness.run(harness.proxy.warm_up())
    assert harness.proxy.ready
    assert not harness.fetched
    harness.start_login()


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://other.example.com"},
        {"jwks_url": "https://idp.example.com/keys"},
        {"signing_algs": ("ES256",)},
        {"id": "another"},
        {"type": "oidc"},
    ],
)
def test_another_provider_is_asked_anew(
    harness: Harness, changes: dict[str, Any]
) -> None:
    reload(harness, providers=(provider_settings(**changes),))
    assert not harness.proxy.ready


def test_key_ring_is_rotated(harness: Harness) -> None:
    """The old secret unseals what it sealed; what is written, the new one seals."""
    harness.log_in()
    old = dict(harness.jar)
    reload(harness, cookie=ring(NEW_SECRET, SECRET))
    assert harness.get("/oauth2/auth").status == 202
    harness.log_in()
    fresh = dict(harness.jar)
    reload(harness, cookie=ring(NEW_SECRET))
    assert harness.get("/oauth2/auth", jar=fresh).status == 202
    assert harness.get("/oauth2/auth", jar=old).status == 401


def test_rotation_seals_anew_with_a_refresh() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    reload(harness, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    harness.clock.now += 61
    assert headers(harness.get("/oauth2/auth"), b"set-cookie")
    reload(harness, cookie=ring(NEW_SECRET, refresh=60.0))
    assert harness.get("/oauth2/auth").status == 202


@pytest.fixture
def refreshing() -> Harness:
    """A session that is stale, and a proxy that remembers nothing of it."""
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.clock.now += 61
    harness.idp.requests.clear()
    return harness


def test_refresh_of_an_old_flow_is_known_to_the_new_proxy(refreshing: Harness) -> None:
    """A flow that began before the change spends the refresh token for both."""
    old_jar = dict(refreshing.jar)
    flow = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert not isinstance(flow, Respond)
    lock = next(flow)  # type: ignore[arg-type]
    assert isinstance(lock, Lock)
    before = refreshing.proxy
    reload(refreshing, auth_success_status=204)
    answer: Any = None
    try:
        answer = refreshing.perform(lock)
        while True:
            answer = refreshing.perform(flow.send(answer))  # type: ignore[union-attr]
    except StopIteration as stop:
        answer = stop.value
    assert answer.status == 202  # it keeps the settings that it began with
    sibling = refreshing.get("/oauth2/auth", jar=old_jar)
    assert sibling.status == 204
    assert headers(sibling, b"set-cookie")
    assert refreshing.idp.count("token") == 1
    assert before is not refreshing.proxy


def test_renewals_are_judged_by_the_new_settings(refreshing: Harness) -> None:
    """A session that was renewed a moment ago is no way around another key ring."""
    old_jar = dict(refreshing.jar)
    reload(refreshing, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    assert refreshing.get("/oauth2/auth").status == 202  # renewed, by the new secret
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 202
    reload(refreshing, cookie=ring(SECRET, refresh=60.0))
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 401


def test_provider_that_failed_is_left_alone_after_a_change(refreshing: Harness) -> None:
    def away(_: object) -> None:
        raise FetchError("connection refused")

    idp, refreshing.on_fetch = refreshing.on_fetch, away
    asked = len(refreshing.fetched)
    assert refreshing.get("/oauth2/auth").status == 202
    reload(refreshing, auth_success_status=204)
    assert refreshing.get("/oauth2/auth").status == 204
    assert len(refreshing.fetched) == asked + 1
    refreshing.on_fetch = idp


def test_settings_are_compared_with_their_secrets() -> None:
    def with_secret(secret: Secret) -> Settings:
        return settings(cookie={"secrets": (secret,)})

    assert with_secret(Secret(b"a" * 16)) == with_secret(Secret(b"a" * 16))
    assert with_secret(Secret(b"a" * 16)) != with_secret(Secret(b"b" * 16))
