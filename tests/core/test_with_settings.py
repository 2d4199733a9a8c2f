"""Reload: the settings that take effect at once, and the state that is kept."""

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
    """Replace the proxy by one with changed settings."""
    harness.proxy = harness.proxy.with_settings(
        with_changes(harness.proxy.settings, **changes)
    )


def ring(*secrets: Secret, **changes: Any) -> CookieSettings:
    return CookieSettings(secrets=secrets, **changes)


def test_with_settings_equal_settings_returns_same_proxy(harness: Harness) -> None:
    assert harness.proxy.with_settings(settings()) is harness.proxy


def test_with_settings_keeps_store_state(harness: Harness) -> None:
    harness.proxy.store_available = harness.proxy.store_notifies = False
    reload(harness, auth_success_status=204)
    assert (harness.proxy.store_available, harness.proxy.store_notifies) == (
        False,
        False,
    )


def test_with_settings_invalid_settings_keep_old_ones(harness: Harness) -> None:
    harness.log_in()
    with pytest.raises(SettingsError, match="cookie_secret"):
        reload(harness, cookie=CookieSettings())
    assert harness.get("/oauth2/auth").status == 202


def test_with_settings_keeps_sessions_and_applies_rules(harness: Harness) -> None:
    """AZ34: a user who loses access is denied with the next request."""
    harness.log_in()
    assert harness.get("/oauth2/auth").status == 202
    assert harness.get("/oauth2/auth").status == 202
    reload(harness, email_domains=("other.example",))
    assert harness.get("/oauth2/auth").status == 403
    reload(harness, email_domains=("*",), auth_success_status=204)
    assert harness.get("/oauth2/auth").status == 204


def test_with_settings_keeps_metadata_and_keys(harness: Harness) -> None:
    """Nothing is fetched again, so logins work while the provider is unavailable."""
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
def test_with_settings_changed_provider_fetched_again(
    harness: Harness, changes: dict[str, Any]
) -> None:
    reload(harness, providers=(provider_settings(**changes),))
    assert not harness.proxy.ready


def test_with_settings_rotates_key_ring(harness: Harness) -> None:
    """The old secret unseals its values; the new one seals all new values."""
    harness.log_in()
    old = dict(harness.jar)
    reload(harness, cookie=ring(NEW_SECRET, SECRET))
    assert harness.get("/oauth2/auth").status == 202
    harness.log_in()
    fresh = dict(harness.jar)
    reload(harness, cookie=ring(NEW_SECRET))
    assert harness.get("/oauth2/auth", jar=fresh).status == 202
    assert harness.get("/oauth2/auth", jar=old).status == 401


def test_with_settings_refresh_seals_with_new_secret() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    reload(harness, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    harness.clock.now += 61
    assert headers(harness.get("/oauth2/auth"), b"set-cookie")
    reload(harness, cookie=ring(NEW_SECRET, refresh=60.0))
    assert harness.get("/oauth2/auth").status == 202


@pytest.fixture
def refreshing() -> Harness:
    """A stale session, and a proxy with empty caches."""
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.clock.now += 61
    harness.idp.requests.clear()
    return harness


def test_with_settings_shares_results_of_running_refresh(refreshing: Harness) -> None:
    """A flow that started before the reload refreshes the session for both proxies."""
    old_jar = dict(refreshing.jar)
    flow = refreshing.proxy.check(refreshing.request("/oauth2/auth"))
    assert not isinstance(flow, Respond)
    lock = next(flow)  # type: ignore[arg-type]
    assert isinstance(lock, Lock)
    before = refreshing.proxy
    reload(refreshing, auth_success_status=204)
    result: Any = None
    try:
        result = refreshing.perform(lock)
        while True:
            result = refreshing.perform(flow.send(result))  # type: ignore[union-attr]
    except StopIteration as stop:
        result = stop.value
    assert result.status == 202  # the flow keeps its old settings
    late = refreshing.get("/oauth2/auth", jar=old_jar)
    assert late.status == 204
    assert headers(late, b"set-cookie")
    assert refreshing.idp.count("token") == 1
    assert before is not refreshing.proxy


def test_with_settings_applies_key_ring_to_refresh_results(refreshing: Harness) -> None:
    """A recent refresh result does not bypass the new key ring."""
    old_jar = dict(refreshing.jar)
    reload(refreshing, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    # The session is refreshed and sealed with the new secret.
    assert refreshing.get("/oauth2/auth").status == 202
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 202
    reload(refreshing, cookie=ring(SECRET, refresh=60.0))
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 401


def test_with_settings_keeps_retry_delay(refreshing: Harness) -> None:
    def unavailable(_: object) -> None:
        raise FetchError("connection refused")

    idp, refreshing.on_fetch = refreshing.on_fetch, unavailable
    fetched = len(refreshing.fetched)
    assert refreshing.get("/oauth2/auth").status == 202
    reload(refreshing, auth_success_status=204)
    assert refreshing.get("/oauth2/auth").status == 204
    assert len(refreshing.fetched) == fetched + 1
    refreshing.on_fetch = idp


def test_settings_comparison_includes_secrets() -> None:
    def with_secret(secret: Secret) -> Settings:
        return settings(cookie={"secrets": (secret,)})

    assert with_secret(Secret(b"a" * 16)) == with_secret(Secret(b"a" * 16))
    assert with_secret(Secret(b"a" * 16)) != with_secret(Secret(b"b" * 16))
