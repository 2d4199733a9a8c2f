"""Refresh by several processes: single-flight, shared results, failures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from authproxy_core import (
    Delete,
    Fetch,
    Load,
    LoadAll,
    Lock,
    Response,
    Save,
    SessionSettings,
)
from authproxy_core.oidc.protocol import Tokens
from authproxy_core.sessions.refresh_cache import PendingTokens
from support.fleet import Fleet, Run
from support.harness import header, headers, keep_cookies, settings

KINDS: dict[str, dict[str, Any]] = {
    "cookie": {"sessions": SessionSettings(shared=True)},
    "revocable": {"sessions": SessionSettings(shared=True, revocable=True)},
    "ticket": {"sessions": SessionSettings(shared=True, backend="store")},
    "oauth2-proxy-cookie": {
        "sessions": SessionSettings(shared=True),
        "cookie": {"refresh": 60.0, "format": "oauth2-proxy"},
    },
    "oauth2-proxy-ticket": {
        "sessions": SessionSettings(shared=True, backend="store"),
        "cookie": {"refresh": 60.0, "format": "oauth2-proxy"},
    },
}
kinds = pytest.mark.parametrize("kind", list(KINDS))
in_cookies = pytest.mark.parametrize(
    "kind", ["cookie", "revocable", "oauth2-proxy-cookie"]
)
in_store = pytest.mark.parametrize("kind", ["ticket", "oauth2-proxy-ticket"])


def fleet_of(kind: str, **changes: Any) -> Fleet:
    """Two processes that share a new session."""
    values = {"cookie": {"refresh": 60.0}} | KINDS[kind]
    fleet = Fleet(settings(**values), **changes)
    fleet[0].log_in()
    fleet.idp.requests.clear()
    fleet.store.locks.clear()  # the login lock
    return fleet


@kinds
@given(seed=st.integers(0, 1 << 32))
@budget(max_examples=6, deadline=None)
def test_az25_twenty_concurrent_requests_refresh_once(kind: str, seed: int) -> None:
    fleet = fleet_of(kind, seed=seed)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    responses = fleet.check_together(20, old)
    assert [response.status for response in responses] == [202] * 20
    assert all(headers(response, b"set-cookie") for response in responses)
    assert fleet.idp.count("token") == 1
    # Late requests with the old cookie succeed in every process for a while.
    for elapsed in (0, 15, 15):
        fleet.clock.now += elapsed
        for process in fleet.processes:
            jar = dict(old)
            response = process.get("/oauth2/auth", jar=jar)
            assert response.status == 202
            assert headers(response, b"set-cookie")
            assert process.get("/oauth2/auth", jar=jar).status == 202
    assert fleet.idp.count("token") == 1
    # All locks are released.
    assert not fleet.store.locks


@kinds
def test_late_requests_with_old_cookie_allowed_for_a_minute(kind: str) -> None:
    """In both processes, they get the refreshed session."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    assert headers(fleet[0].get("/oauth2/auth"), b"set-cookie")
    for elapsed in (0.0, 30.0, 29.0):
        fleet.clock.now += elapsed
        for process in fleet.processes:
            response = process.get("/oauth2/auth", jar=dict(old))
            assert response.status == 202
            assert headers(response, b"set-cookie") or kind.endswith("ticket")
    assert fleet.idp.count("token") == 1


@kinds
def test_az23_invalid_grant_ends_session_in_all_processes(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.idp.revoke("alice")
    old = dict(fleet.harness.jar)
    responses = fleet.check_together(6, old)
    assert {response.status for response in responses} == {401}
    assert all(headers(response, b"set-cookie") for response in responses)
    assert fleet.idp.count("token") == 1
    third = fleet.join(fleet.harness.settings)
    assert third.get("/oauth2/auth", jar=dict(old)).status == 401
    assert fleet.idp.count("token") == 1


@kinds
def test_refresh_unavailable_provider_keeps_session(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.harness.config.failing["token"] = 503
    responses = fleet.check_together(6, dict(fleet.harness.jar))
    assert {response.status for response in responses} == {202}
    del fleet.harness.config.failing["token"]
    fleet.clock.now += 11
    responses = fleet.check_together(6, dict(fleet.harness.jar))
    assert {response.status for response in responses} == {202}
    assert all(headers(response, b"set-cookie") for response in responses)


@kinds
def test_pending_tokens_used_by_another_process(kind: str) -> None:
    """After a rotation, the next process needs the new refresh token."""
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None  # so that userinfo is needed
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    del fleet.harness.config.failing["userinfo"]
    response = fleet[1].get("/oauth2/auth", jar=jar)
    assert response.status == 202
    assert headers(response, b"set-cookie")
    fleet.clock.now += 61
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202


@kinds
def test_pending_tokens_too_old_are_refreshed(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    for _ in range(3):
        assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
        fleet.clock.now += 400  # longer than the lifetime of an ID token
    del fleet.harness.config.failing["userinfo"]
    response = fleet[1].get("/oauth2/auth", jar=jar)
    assert response.status == 202
    assert headers(response, b"set-cookie")


@pytest.mark.parametrize("kind", ["cookie", "oauth2-proxy-cookie"])
def test_refresh_without_store_keeps_cookie_session(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.away = True
    jar = dict(fleet.harness.jar)
    responses = fleet.check_together(6, jar)
    assert {response.status for response in responses} == {202}
    assert fleet.idp.count("token") == 0
    fleet.store.away = False
    fleet.clock.now += 11
    assert headers(fleet[1].get("/oauth2/auth", jar=jar), b"set-cookie")
    assert fleet.idp.count("token") == 1


@in_store
def test_refresh_without_store_returns_503_for_stored_session(
    kind: str,
) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.away = True
    jar = dict(fleet.harness.jar)
    for target in ("/oauth2/auth", "/page", "/oauth2/userinfo", "/oauth2/sign_out"):
        response = fleet[0].get(target, jar=jar)
        assert response.status == 503
        assert headers(response, b"retry-after")
        assert not headers(response, b"set-cookie")
    assert fleet.idp.count("token") == 0
    fleet.store.away = False
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202


@kinds
def test_refresh_save_retried_after_store_error(kind: str) -> None:
    """The old refresh token was used, so the new tokens must be saved."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    failures = iter([True, True])
    fleet.store.failing = lambda effect: type(effect) is Save and next(failures, False)
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=dict(jar)).status == 202
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
    assert fleet.idp.count("token") == 1
    fleet.clock.now += 61
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202


@in_cookies
def test_refresh_not_shared_prevents_second_refresh(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    jar = dict(fleet.harness.jar)
    response = fleet[0].get("/oauth2/auth", jar=dict(jar))
    assert response.status == 202
    assert headers(response, b"set-cookie")
    assert [event.kind for event in fleet.harness.events][-2:] == [
        "refresh_not_shared",
        "refreshed",
    ]
    fleet.store.failing = lambda effect: False
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
    assert fleet[0].get("/oauth2/auth", jar=dict(jar)).status == 202
    assert fleet.idp.count("token") == 1


@in_store
def test_refresh_of_stored_session_saved_later(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 503
    fleet.store.failing = lambda effect: False
    assert headers(fleet[0].get("/oauth2/auth", jar=jar), b"set-cookie")
    assert fleet.idp.count("token") == 1


@kinds
def test_lo08_sign_out_during_refresh_ends_session(kind: str) -> None:
    """The session has ended, whichever step the refresh was at."""
    for steps in range(0, 12, 1 if kind in ("ticket", "cookie") else 4):
        fleet = fleet_of(kind)
        fleet.clock.now += 61
        old = dict(fleet.harness.jar)
        request = fleet.harness.request("/oauth2/auth", jar=old)
        run = Run(fleet[0], fleet[0].proxy.check(request))
        for _ in range(steps):
            if not run.done:
                run.step()
        signed_out = dict(old)
        assert fleet[1].get("/oauth2/sign_out", jar=signed_out).status == 302
        assert not signed_out
        fleet.finish(run)
        keep_cookies(signed_out, run.result)
        for process in fleet.processes:
            assert process.get("/oauth2/auth", jar=dict(old)).status == 401, steps
        if kind != "cookie" and kind != "oauth2-proxy-cookie":
            # A new cookie that is not revocable stays valid until it expires, as
            # documented.
            late = fleet[1].get("/oauth2/auth", jar=dict(signed_out))
            assert late.status == 401, steps
        assert not fleet.store.tickets(), steps


@kinds
def test_st08_lock_of_dead_process_expires(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    flow: Any = fleet[0].proxy.check(fleet.harness.request("/oauth2/auth", jar=jar))
    effect = next(flow)
    while type(effect) is not Lock or not effect.key.startswith("_oauth2_proxy"):
        effect = flow.send(fleet[0].perform(effect, "dead"))
    assert fleet[0].perform(effect, "dead") is True
    flow.close()
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
    assert fleet.idp.count("token") == 0
    fleet.clock.now += 200
    assert headers(fleet[1].get("/oauth2/auth", jar=jar), b"set-cookie")
    assert fleet.idp.count("token") == 1


@in_cookies
def test_refresh_not_shared_keeps_lock(
    kind: str,
) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    fleet[0].get("/oauth2/auth")
    assert len(fleet.store.locks) == 1


@kinds
def test_session_expired_while_waiting_not_refreshed(kind: str) -> None:
    given = KINDS[kind] | {
        "cookie": {"refresh": 60.0, "expire": 90.0}
        | dict(KINDS[kind].get("cookie", {}))
    }
    fleet = Fleet(settings(**given))
    fleet[0].log_in()
    fleet.idp.requests.clear()
    fleet.clock.now += 75
    jar = dict(fleet.harness.jar)
    flow: Any = fleet[0].proxy.check(fleet.harness.request("/oauth2/auth", jar=jar))
    run = Run(fleet[0], flow)
    while not (isinstance(run.effect, Lock) and run.effect.key.startswith("refresh:")):
        run.step()
    fleet.clock.now += 16
    fleet.finish(run)
    assert run.result.status == 401
    assert fleet.idp.count("token") == 0


@kinds
def test_planted_or_invalid_refresh_records_ignored(kind: str) -> None:
    """An attacker with write access to the store cannot replace a session."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    loads = [one.keys for one in _effects(fleet) if isinstance(one, LoadAll)]
    keys = [key for load in loads for key in load if "-re" in key or "-un" in key]
    keys = [key for key in keys if "-revoked:" not in key]
    assert keys or "ticket" in kind
    for key in keys:
        record = fleet[0].proxy._sessions.formats.seal_record(key, b"other layout")
        valid = record if "-un" in key else fleet.harness.jar[b"_oauth2_proxy"]
        fleet.store.put(key, valid, 600)
    response = fleet[0].get("/oauth2/auth")
    assert response.status == 202
    assert header(response, b"x-auth-request-email") == b"alice@example.com"


def _effects(fleet: Fleet) -> list[Any]:
    """Return the store effects of a refresh up to its token request."""
    run = Run(fleet[1], fleet[1].proxy.check(fleet.harness.request("/oauth2/auth")))
    fleet.store.seen.clear()
    while not isinstance(run.effect, Fetch):
        run.step()
    run.flow.close()
    fleet.store.locks.clear()
    return fleet.store.seen


@kinds
def test_alternating_failures_keep_newest_refresh_token(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    for process in (fleet[0], fleet[1], fleet[0], fleet[1]):
        assert process.get("/oauth2/auth", jar=jar).status == 202
        fleet.clock.now += 61  # the pending tokens are too old to be used
    del fleet.harness.config.failing["userinfo"]
    for process in (fleet[0], fleet[1]):
        assert headers(process.get("/oauth2/auth", jar=jar), b"set-cookie")
        fleet.clock.now += 61
    assert "session_ended" not in [event.kind for event in fleet.harness.events]


@in_store
def test_pending_tokens_without_rotation_not_stored(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.rotate_refresh_tokens = False
    fleet.harness.config.token_response["refresh_token"] = None
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    fleet.store.seen.clear()
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    assert fleet.store.count(Save) == 0
    del fleet.harness.config.failing["userinfo"]
    fleet.clock.now += 11
    assert headers(fleet[1].get("/oauth2/auth", jar=jar), b"set-cookie")


@kinds
def test_provider_that_stops_rotation_keeps_newest_token(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    fleet.harness.config.rotate_refresh_tokens = False
    fleet.harness.config.token_response["refresh_token"] = None
    fleet.clock.now += 61
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    del fleet.harness.config.failing["userinfo"]
    fleet.clock.now += 11
    assert headers(fleet[0].get("/oauth2/auth", jar=jar), b"set-cookie")
    fleet.clock.now += 61
    assert headers(fleet[1].get("/oauth2/auth", jar=jar), b"set-cookie")


# -- early refresh


def early(kind: str) -> Fleet:
    """A session whose token of 300 s is refreshed 60 s before its expiry."""
    given = KINDS[kind]
    cookie = {k: v for k, v in given.get("cookie", {}).items() if k != "refresh"}
    life = msgspec.structs.replace(given["sessions"], refresh_before=60.0)
    fleet = Fleet(settings(cookie=cookie, sessions=life))
    fleet[0].log_in()
    fleet.idp.requests.clear()
    return fleet


@kinds
def test_early_refresh_does_not_block_other_requests(kind: str) -> None:
    fleet = early(kind)
    jar = dict(fleet.harness.jar)
    fleet.clock.now += 239
    assert not headers(fleet[0].get("/oauth2/auth", jar=dict(jar)), b"set-cookie")
    fleet.clock.now += 2
    run = Run(
        fleet[0], fleet[0].proxy.check(fleet.harness.request("/oauth2/auth", jar=jar))
    )
    while not isinstance(run.effect, Fetch):
        run.step()
    now = fleet.clock.now
    for _ in range(2):
        for process in fleet.processes:
            response = process.get("/oauth2/auth", jar=dict(jar))
            assert response.status == 202
            assert not headers(response, b"set-cookie")
    assert fleet.clock.now == now  # no request waited for the lock
    fleet.finish(run)
    assert headers(run.result, b"set-cookie")
    assert fleet.idp.count("token") == 1


@kinds
def test_expired_token_makes_requests_wait(kind: str) -> None:
    fleet = early(kind)
    fleet.clock.now += 301
    responses = fleet.check_together(10, dict(fleet.harness.jar))
    assert {response.status for response in responses} == {202}
    assert all(headers(response, b"set-cookie") for response in responses)
    assert fleet.idp.count("token") == 1


@kinds
def test_early_refresh_failure_retried(kind: str) -> None:
    fleet = early(kind)
    fleet.harness.config.failing["token"] = 503
    fleet.clock.now += 245
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    del fleet.harness.config.failing["token"]
    fleet.clock.now += 11
    assert headers(fleet[0].get("/oauth2/auth", jar=jar), b"set-cookie")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "oauth2-proxy" not in kind])
def test_refresh_counts_as_use(kind: str) -> None:
    """Not in oauth2-proxy's formats, which do not store the last use."""
    life = msgspec.structs.replace(KINDS[kind]["sessions"], idle_timeout=100.0)
    fleet = Fleet(settings(cookie={"refresh": 90.0}, sessions=life))
    fleet[0].log_in()
    for _ in range(5):
        fleet.clock.now += 95
        assert fleet[0].get("/oauth2/auth").status == 202
    fleet.clock.now += 101
    assert fleet[0].get("/oauth2/auth").status == 401


def test_pending_tokens_repr_contains_no_tokens() -> None:
    assert "RT" not in repr(PendingTokens(Tokens("AT", "IT", "RT"), 1.0, "RT-0"))


@kinds
def test_st08_refresh_after_lost_lock_honors_concurrent_result(kind: str) -> None:
    """Another process refreshes meanwhile; all processes use its session."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    run = Run(fleet[0], fleet[0].proxy.check(fleet.harness.request("/oauth2/auth")))
    while not isinstance(run.effect, Fetch):
        run.step()
    fleet.store.locks.clear()
    assert headers(fleet[1].get("/oauth2/auth"), b"set-cookie")
    fleet.harness.on_fetch = lambda effect: Response(
        400, (), b'{"error":"invalid_grant"}'
    )
    fleet.finish(run)
    assert run.result.status == 202
    assert headers(run.result, b"set-cookie")
    assert "session_ended" not in [event.kind for event in fleet.harness.events]
    for process in fleet.processes:
        assert process.get("/oauth2/auth", jar=dict(old)).status == 202


@kinds
def test_invalid_grant_with_failing_store_ends_session(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    run = Run(fleet[0], fleet[0].proxy.check(fleet.harness.request("/oauth2/auth")))
    while not isinstance(run.effect, Fetch):
        run.step()
    fleet.store.failing = lambda effect: type(effect) in (Load, Save, Delete)
    fleet.harness.on_fetch = lambda effect: Response(
        400, (), b'{"error":"invalid_grant"}'
    )
    fleet.finish(run)
    assert run.result.status == 401


@kinds
def test_lo08_sign_out_final_although_store_fails(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    run = Run(fleet[0], fleet[0].proxy.check(fleet.harness.request("/oauth2/auth")))
    while not isinstance(run.effect, Fetch):
        run.step()
    assert fleet[1].get("/oauth2/sign_out").status == 302
    # The revocation mark can still be read, but nothing can be written.
    fleet[0].proxy._sessions.refresh_cache._ended = type(
        fleet[0].proxy._sessions.refresh_cache._ended
    )(fleet.clock, 60.0)
    saves = iter([False])
    fleet.store.failing = lambda effect: (
        type(effect) in (Save, Delete) and next(saves, True)
    )
    fleet.finish(run)
    assert run.result.status in (401, 503)


@kinds
@pytest.mark.parametrize("last", [Load, Save])
def test_refresh_after_lost_lock_keeps_newer_session(kind: str, last: type) -> None:
    """Compare and swap: the lock expired, and another process refreshed meanwhile."""
    fleet = fleet_of(kind)
    fleet.harness.config.rotate_refresh_tokens = False
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    request = fleet.harness.request("/oauth2/auth", jar=old)
    slow = Run(fleet[0], fleet[0].proxy.handle(request))
    redeemed = False
    while not (redeemed and isinstance(slow.effect, last)):
        redeemed = redeemed or isinstance(slow.effect, Fetch)
        slow.step()
    fleet.store.locks.clear()  # it expired
    fleet.clock.now += 1
    quick = fleet[1].get("/oauth2/auth", jar=fleet.harness.jar)
    assert quick.status == 202
    before = dict(fleet.store.values)
    fleet.finish(slow)
    assert slow.result.status == 202
    keep_cookies(old, slow.result)
    assert fleet.store.values == before
    # Both browsers continue with the session of the quick refresh.
    assert header(slow.result, b"authorization") == header(quick, b"authorization")
    assert fleet[1].get("/oauth2/auth", jar=old).status == 202


@kinds
def test_refresh_save_with_lost_reply_keeps_own_session(kind: str) -> None:
    """The store sets the value, but the reply is lost: the repeated save conflicts."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    lost = []

    def failing(effect: Any) -> bool:
        if not isinstance(effect, Save) or effect.expected is None or lost:
            return False
        fleet.store.put(effect.key, effect.value, effect.ttl)
        lost.append(effect)
        return True

    fleet.store.failing = failing
    response = fleet[0].get("/oauth2/auth")
    assert response.status == 202
    assert lost
    assert headers(response, b"set-cookie")
    for process in fleet.processes:
        assert process.get("/oauth2/auth").status == 202
    assert fleet.idp.count("token") == 1


@in_store
def test_refresh_of_replaced_unreadable_session_ends_it(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    [key] = fleet.store.tickets()

    def fetch(effect: Fetch) -> Any:
        fleet.store.put(key, b"replaced", 100.0)
        return fleet.idp.fetch(effect)

    fleet.harness.on_fetch = fetch
    assert fleet[0].get("/oauth2/auth").status == 401
    assert fleet.store.get(key) == b"replaced"


@in_store
@pytest.mark.parametrize("length", range(12))
def test_stored_session_shorter_than_a_nonce_is_cleared(kind: str, length: int) -> None:
    """ST13: oauth2-proxy 7.15.4 panics at such a value (changes of 7.15.6, section 14)."""
    fleet = fleet_of(kind)
    [key] = fleet.store.tickets()
    fleet.store.put(key, b"\0" * length, 100.0)
    for process in fleet.processes:
        jar = dict(fleet.harness.jar)
        assert process.get("/oauth2/auth", jar=jar).status == 401
        assert not jar
    assert fleet[0].get("/page").status == 403  # the sign-in page
