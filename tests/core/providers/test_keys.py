"""Keys that are not loaded: slow, missing, empty or rotated key sets (OIDC §10.1.1)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from authproxy_core import Fetch, FetchError, Forward, Lock, Respond, UpstreamSettings
from authproxy_core.access.credentials import TOKEN_CACHE_TTL
from authproxy_core.messages import Response
from authproxy_core.providers.jwks import MAX_AGE, REFETCH_INTERVAL
from authproxy_core.providers.readiness import REPORT_INTERVAL
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import LogoutSettings, SessionSettings
from support.harness import (
    Harness,
    event_reasons,
    header,
    settings,
    target_of,
    with_changes,
)

FAILURES = {
    "unreachable": FetchError("connection refused"),
    "500": Response(500, (), b""),
    "empty": Response(200, (), b'{"keys": []}'),
    "HTML": Response(200, (), b"<html>"),
}
failures = pytest.mark.parametrize("failure", list(FAILURES.values()), ids=FAILURES)


def harness_for(*, ready: bool = True, **changes: Any) -> Harness:
    """Return a harness that accepts bearer JWTs and logout tokens."""
    return Harness(
        settings(
            **{
                "credentials": CredentialSettings(jwt_bearer_tokens=True),
                "logout": LogoutSettings(back_channel=True),
                "sessions": SessionSettings(shared=True, revocable=True),
                **changes,
            }
        ),
        ready=ready,
    )


def break_keys(harness: Harness, failure: Any) -> None:
    """Let all requests for the key set fail."""

    def fetch(effect: Fetch) -> Response:
        if effect.purpose != "jwks":
            return harness.idp.fetch(effect)
        if isinstance(failure, Exception):
            raise failure
        return failure

    harness.on_fetch = fetch


def repair_keys(harness: Harness) -> None:
    harness.on_fetch = harness.idp.fetch


def load_metadata(harness: Harness) -> None:
    """Run one attempt of the provider's preparation, which fails at the keys."""
    [provider] = harness.proxy._providers.values()
    with pytest.raises(Exception, match=r"jwks_uri|JWK set|refused"):
        harness.run(provider.prepare())
    assert provider.metadata is not None


def bearer(harness: Harness, **claims: Any) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + harness.token(**claims).encode())


def ask(harness: Harness, *fields: Any, target: str = "/oauth2/auth") -> Respond:
    return harness.get(target, *fields, jar={})


def assert_unavailable(response: Respond) -> None:
    assert response.status == 503
    assert header(response, b"retry-after").isdigit()
    assert event_reasons(response) == ["keys_unavailable"]
    assert "keys are not available: " in response.events[0].detail


def test_login_after_rotation_at_start_succeeds() -> None:
    harness = harness_for()
    for _ in range(3):
        harness.idp.rotate_keys(keep_old=False)
        assert harness.log_in().status == 302


def test_login_after_two_rotations_waits_for_next_fetch() -> None:
    """Tokens of clients must not use up the fetches that logins need."""
    harness = harness_for()
    token = harness.token({"kid": "unknown"})
    assert ask(harness, (b"authorization", b"Bearer " + token.encode())).status == 401
    harness.idp.rotate_keys(keep_old=False)
    start = harness.clock.now
    assert harness.log_in().status == 302
    assert harness.clock.now - start == REFETCH_INTERVAL


def test_bearer_after_rotation_at_start_accepted() -> None:
    harness = harness_for()
    harness.idp.rotate_keys(keep_old=False)
    assert ask(harness, bearer(harness)).status == 202
    harness.idp.rotate_keys(keep_old=False)
    harness.clock.now += REFETCH_INTERVAL
    assert ask(harness, bearer(harness)).status == 202


@failures
def test_login_without_keys_is_unavailable_and_spends_no_code(failure: Any) -> None:
    harness = harness_for(ready=False)
    break_keys(harness, failure)
    load_metadata(harness)
    response = harness.log_in()
    assert_unavailable(response)
    assert b"currently unavailable" in response.body
    assert harness.idp.count("token") == 0
    repair_keys(harness)
    assert harness.log_in().status == 302


@failures
def test_bearer_without_keys_is_unavailable(failure: Any) -> None:
    harness = harness_for(ready=False)
    break_keys(harness, failure)
    load_metadata(harness)
    field = bearer(harness)
    for target in ("/oauth2/auth", "/oauth2/userinfo", "/oauth2/forward_auth", "/x"):
        assert_unavailable(ask(harness, field, target=target))
    repair_keys(harness)
    harness.fetched.clear()
    assert_unavailable(ask(harness, field))
    assert not harness.fetched  # tokens of clients cause few fetches
    harness.clock.now += REFETCH_INTERVAL
    assert ask(harness, field).status == 202


def test_bearer_and_logout_token_without_metadata_are_unavailable() -> None:
    harness = harness_for(ready=False)
    response = ask(harness, bearer(harness))
    assert response.status == 503
    assert event_reasons(response) == ["keys_unavailable"]
    assert ask(harness, bearer(harness, iss="https://other.example")).status == 401
    harness.body = b"logout_token=" + harness.idp.logout_token("alice").encode()
    form = (b"content-type", b"application/x-www-form-urlencoded")
    response = harness.get("/oauth2/backchannel-logout", form, method=b"POST", jar={})
    assert response.status == 503


def test_unknown_key_while_fetch_fails_is_unavailable() -> None:
    harness = harness_for()
    known = bearer(harness)
    harness.idp.rotate_keys(keep_old=False)
    break_keys(harness, FAILURES["unreachable"])
    assert_unavailable(ask(harness, bearer(harness)))
    assert ask(harness, known).status == 202
    repair_keys(harness)
    harness.clock.now += REFETCH_INTERVAL
    assert ask(harness, bearer(harness)).status == 202


def test_refresh_while_keys_are_unavailable_keeps_session() -> None:
    harness = harness_for(cookie={"refresh": 60.0})
    harness.log_in()
    harness.idp.rotate_keys(keep_old=False)
    break_keys(harness, FAILURES["500"])
    harness.clock.now += 61
    assert harness.get("/oauth2/auth").status == 202
    assert harness.events[-1].reason == "keys_unavailable"


def test_public_request_with_unverifiable_bearer_is_allowed() -> None:
    harness = harness_for(
        ready=False,
        reverse_proxy=True,
        trusted_proxies=("192.0.2.7",),
        auth_bypass=AuthBypassSettings(skip_auth_routes=("^/public/",)),
        upstreams=(UpstreamSettings(id="a", uri="http://10.0.0.9/"),),
    )
    field = bearer(harness)
    assert isinstance(harness.send("/public/x", field, jar={}), Forward)
    assert ask(harness, field, target="/private/x").status == 503
    uri = (b"x-forwarded-uri", b"/public/x")
    assert ask(harness, field, uri).status == 202


def test_login_waits_for_fetch_in_progress() -> None:
    harness = harness_for(ready=False)
    warm_up = harness.proxy.warm_up()
    effect = next(warm_up)
    while not (isinstance(effect, Fetch) and effect.purpose == "jwks"):
        effect = warm_up.send(harness.perform(effect))
    url = harness.idp.log_in(harness.start_login(), "alice")
    login = harness.proxy.handle(harness.request(target_of(url)))
    waiting = next(login)  # type: ignore[call-overload]
    while not (isinstance(waiting, Lock) and waiting.key.startswith("jwks:")):
        waiting = login.send(harness.perform(waiting))  # type: ignore[union-attr]
    harness.fetched.clear()
    response = harness.idp.fetch(effect)
    effect = warm_up.send(response)
    harness.run(rest_of(warm_up, effect))
    assert harness.run(rest_of(login, waiting)).status == 302
    assert [fetch.purpose for fetch in harness.fetched] == ["token"]


def rest_of(flow: Any, effect: Any) -> Any:
    """Return a flow that continues *flow* from its pending *effect*."""
    try:
        while True:
            effect = flow.send((yield effect))
    except StopIteration as stop:
        return stop.value


def test_lock_timeout_without_keys_is_unavailable() -> None:
    harness = harness_for(ready=False)
    break_keys(harness, FAILURES["500"])
    load_metadata(harness)
    perform = harness.perform
    harness.proxy._providers["keycloak"]._keys._error = None
    harness.perform = lambda effect: (  # type: ignore[method-assign]
        False if isinstance(effect, Lock) and effect.local else perform(effect)
    )
    response = ask(harness, bearer(harness))
    assert_unavailable(response)
    assert "has not ended yet" in response.events[0].detail
    with pytest.raises(FetchError, match="has not ended yet"):
        harness.run(harness.proxy._providers["keycloak"].prepare())


def test_provider_failure_reported_once_per_interval() -> None:
    harness = harness_for(ready=False)
    start = harness.clock.now
    until = 2.5 * REPORT_INTERVAL

    def fetch(effect: Fetch) -> Response:
        if harness.clock.now < start + until:
            raise FetchError("connection refused")
        return harness.idp.fetch(effect)

    harness.on_fetch = fetch
    harness.run(harness.proxy.warm_up())
    kinds = [event.kind for event in harness.events]
    assert kinds == ["provider_failed"] * 3 + ["provider_ready"]
    assert harness.clock.now - start - until <= 2  # recovers soon


# -- withdrawn keys


def other_process(harness: Harness) -> Harness:
    """Return a harness with another process of the same provider and clock."""
    other = harness_for()
    other.on_fetch, other.clock = harness.idp.fetch, harness.clock
    other.idp = harness.idp
    other.proxy = other.new_proxy(other.settings)
    other.run(other.proxy.warm_up())
    return other


def withdrawn_events(harness: Harness) -> list[str]:
    return [one.reason for one in harness.events if one.kind == "keys_withdrawn"]


def test_withdrawn_key_rejected_once_new_key_is_seen() -> None:
    """Also for tokens whose verification was cached."""
    harness = harness_for()
    old = bearer(harness)
    assert ask(harness, old).status == 202
    harness.idp.rotate_keys(keep_old=False)
    assert ask(harness, bearer(harness)).status == 202
    assert ask(harness, old).status == 401
    assert withdrawn_events(harness) == ["keycloak"]


def test_added_key_withdraws_none() -> None:
    harness = harness_for()
    old = bearer(harness)
    harness.idp.rotate_keys(keep_old=True)
    assert ask(harness, bearer(harness)).status == 202
    harness.fetched.clear()
    assert ask(harness, old).status == 202
    assert not harness.fetched
    assert not withdrawn_events(harness)


def test_withdrawn_key_of_other_process_rejected_before_next_token() -> None:
    harness = harness_for()
    other = other_process(harness)
    old = bearer(harness)
    assert [ask(one, old).status for one in (harness, other)] == [202, 202]
    harness.idp.rotate_keys(keep_old=False)
    assert ask(harness, bearer(harness)).status == 202
    assert ask(other, old).status == 202  # nothing has told it
    other.proxy.expire_keys()
    assert ask(other, old).status == 401
    assert withdrawn_events(other) == ["keycloak"]
    # An unchanged set is no news for the others.
    harness.proxy.expire_keys()
    harness.clock.now += REFETCH_INTERVAL + 1
    assert ask(harness, bearer(harness)).status == 202
    assert withdrawn_events(harness) == ["keycloak"]


def test_expired_keys_remain_while_fetch_fails() -> None:
    harness = harness_for()
    token = bearer(harness)
    harness.proxy.expire_keys()
    break_keys(harness, FAILURES["500"])
    harness.fetched.clear()
    for _ in range(3):
        assert ask(harness, token).status == 202
        harness.proxy.expire_keys()
    assert len(harness.fetched) == 1
    repair_keys(harness)
    harness.idp.rotate_keys(keep_old=False)
    harness.clock.now += REFETCH_INTERVAL + 1
    assert ask(harness, token).status == 401


def test_withdrawn_key_ends_without_new_tokens_within_max_age() -> None:
    harness = harness_for()
    old = bearer(harness, exp=int(harness.clock.now) + 86400)
    assert ask(harness, old).status == 202
    harness.idp.rotate_keys(keep_old=False)
    harness.clock.now += MAX_AGE + TOKEN_CACHE_TTL
    assert ask(harness, old).status == 401


def test_withdrawn_key_after_reload_reported_to_new_application() -> None:
    harness = harness_for()
    old = bearer(harness)
    changed = with_changes(harness.settings, clock_skew=31.0)
    harness.proxy = harness.proxy.with_settings(changed)
    assert ask(harness, old).status == 202
    harness.idp.rotate_keys(keep_old=False)
    assert ask(harness, bearer(harness)).status == 202
    assert ask(harness, old).status == 401
    assert withdrawn_events(harness) == ["keycloak"]


def test_keys_expire_without_bearer_tokens() -> None:
    harness = Harness()
    harness.proxy.expire_keys()
    harness.idp.rotate_keys(keep_old=False)
    assert harness.log_in().status == 302
    assert withdrawn_events(harness) == ["keycloak"]


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "OKP", "crv": "Ed448", "x": "A" * 76},
        {"kty": "OKP", "crv": "X448", "x": "A" * 75},
        {"kty": "unknown"},
        {"kty": "AKP", "pub": "AAAA"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "EC", "crv": "secp256k1", "x": "A" * 43, "y": "A" * 43},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},  # off the curve
        {"kty": "RSA", "e": "AQAB"},
        {"kty": ["RSA"]},
        {},
        "key",
        None,
    ],
)
def test_login_ignores_keys_of_unknown_types(key: Any) -> None:
    """JW46: the right key works beside them."""
    harness = Harness(ready=False)
    harness.config.jwks_before = harness.config.jwks_after = (key,)
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302


def test_refreshed_id_token_replaces_additional_claims() -> None:
    """A claim that the new token lacks disappears; without a token all stay."""
    provider = {"additional_claims": ("phone", "address")}
    harness = Harness(settings(cookie={"refresh": 60.0}, provider=provider))
    claims = harness.config.id_token_claims
    claims.update(phone="1", address="a")
    harness.log_in()
    assert additional_claims(harness) == {"phone": "1", "address": "a"}
    claims.update(phone="2", address=None)
    harness.clock.now += 61
    assert additional_claims(harness) == {"phone": "2"}
    harness.config.id_token_on_refresh = False
    claims.update(phone="3")
    harness.clock.now += 61
    assert additional_claims(harness) == {"phone": "2"}


def additional_claims(harness: Harness) -> Any:
    """Return the additional claims in the response of the userinfo endpoint."""
    response = harness.get("/oauth2/userinfo")
    assert response.status == 200
    return orjson.loads(response.body)["additionalClaims"]
