"""New settings for a running proxy: what changes at once, and what still holds."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import FetchError, Lock, Respond, Secret, SettingsError
from authproxy_core.settings.root import CookieSettings, Settings
from support.world import SECRET, World, changed, headers, provider_settings, settings

NEW_SECRET = Secret(b"fedcba9876543210fedcba9876543210")


def reload(world: World, **changes: Any) -> None:
    """Go on with changed settings."""
    world.proxy = world.proxy.with_settings(changed(world.proxy.settings, **changes))


def ring(*secrets: Secret, **changes: Any) -> CookieSettings:
    return CookieSettings(secrets=secrets, **changes)


def test_equal_settings_change_nothing(world: World) -> None:
    assert world.proxy.with_settings(settings()) is world.proxy


def test_what_the_store_said_holds(world: World) -> None:
    world.proxy.store_available = world.proxy.store_notifies = False
    reload(world, auth_success_status=204)
    assert (world.proxy.store_available, world.proxy.store_notifies) == (False, False)


def test_bad_settings_leave_all_as_it_is(world: World) -> None:
    world.log_in()
    with pytest.raises(SettingsError, match="cookie_secret"):
        reload(world, cookie=CookieSettings())
    assert world.get("/oauth2/auth").status == 202


def test_sessions_outlive_a_change_and_rules_hold_at_once(world: World) -> None:
    """AZ34: who may not come in any more is out with the next request."""
    world.log_in()
    assert world.get("/oauth2/auth").status == 202
    assert world.get("/oauth2/auth").status == 202
    reload(world, email_domains=("other.example",))
    assert world.get("/oauth2/auth").status == 403
    reload(world, email_domains=("*",), auth_success_status=204)
    assert world.get("/oauth2/auth").status == 204


def test_metadata_and_keys_are_kept(world: World) -> None:
    """Nothing is fetched again, and logins go on, while the provider is away."""
    world.fetched.clear()
    changes = {"allowed_groups": ("admins",), "client_secret": Secret(b"other")}
    reload(world, providers=(provider_settings(**changes),))
    world.run(world.proxy.warm_up())
    assert world.proxy.ready
    assert not world.fetched
    world.begin()


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
def test_another_provider_is_asked_anew(world: World, changes: dict[str, Any]) -> None:
    reload(world, providers=(provider_settings(**changes),))
    assert not world.proxy.ready


def test_key_ring_is_rotated(world: World) -> None:
    """The old secret unseals what it sealed; what is written, the new one seals."""
    world.log_in()
    old = dict(world.jar)
    reload(world, cookie=ring(NEW_SECRET, SECRET))
    assert world.get("/oauth2/auth").status == 202
    world.log_in()
    fresh = dict(world.jar)
    reload(world, cookie=ring(NEW_SECRET))
    assert world.get("/oauth2/auth", jar=fresh).status == 202
    assert world.get("/oauth2/auth", jar=old).status == 401


def test_rotation_seals_anew_with_a_refresh() -> None:
    world = World(settings(cookie={"refresh": 60.0}))
    world.log_in()
    reload(world, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    world.clock.now += 61
    assert headers(world.get("/oauth2/auth"), b"set-cookie")
    reload(world, cookie=ring(NEW_SECRET, refresh=60.0))
    assert world.get("/oauth2/auth").status == 202


@pytest.fixture
def refreshing() -> World:
    """A session that is stale, and a proxy that remembers nothing of it."""
    world = World(settings(cookie={"refresh": 60.0}))
    world.log_in()
    world.clock.now += 61
    world.idp.seen.clear()
    return world


def test_refresh_of_an_old_flow_is_known_to_the_new_proxy(refreshing: World) -> None:
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


def test_renewals_are_judged_by_the_new_settings(refreshing: World) -> None:
    """A session that was renewed a moment ago is no way around another key ring."""
    old_jar = dict(refreshing.jar)
    reload(refreshing, cookie=ring(NEW_SECRET, SECRET, refresh=60.0))
    assert refreshing.get("/oauth2/auth").status == 202  # renewed, by the new secret
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 202
    reload(refreshing, cookie=ring(SECRET, refresh=60.0))
    assert refreshing.get("/oauth2/auth", jar=old_jar).status == 401


def test_provider_that_failed_is_left_alone_after_a_change(refreshing: World) -> None:
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
