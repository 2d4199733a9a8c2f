"""Refreshing among several processes: once, for all, whatever the order."""

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
    "foreign-cookie": {
        "sessions": SessionSettings(shared=True),
        "cookie": {"refresh": 60.0, "format": "oauth2-proxy"},
    },
    "foreign-ticket": {
        "sessions": SessionSettings(shared=True, backend="store"),
        "cookie": {"refresh": 60.0, "format": "oauth2-proxy"},
    },
}
kinds = pytest.mark.parametrize("kind", list(KINDS))
in_cookies = pytest.mark.parametrize("kind", ["cookie", "revocable", "foreign-cookie"])
in_store = pytest.mark.parametrize("kind", ["ticket", "foreign-ticket"])


def fleet_of(kind: str, **changes: Any) -> Fleet:
    """Two processes, and a session that has just begun."""
    values = {"cookie": {"refresh": 60.0}} | KINDS[kind]
    fleet = Fleet(settings(**values), **changes)
    fleet[0].log_in()
    fleet.idp.requests.clear()
    fleet.store.locks.clear()  # the login's
    return fleet


@kinds
@given(seed=st.integers(0, 1 << 32))
@budget(max_examples=6, deadline=None)
def test_az25_twenty_requests_refresh_once(kind: str, seed: int) -> None:
    fleet = fleet_of(kind, seed=seed)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    answers = fleet.check_together(20, old)
    assert [answer.status for answer in answers] == [202] * 20
    assert all(headers(answer, b"set-cookie") for answer in answers)
    assert fleet.idp.count("token") == 1
    # Late requests with the old cookie succeed in every process for a while.
    for moment in range(3):
        fleet.clock.now += 15 * bool(moment)
        for process in fleet.processes:
            jar = dict(old)
            answer = process.get("/oauth2/auth", jar=jar)
            assert answer.status == 202
            assert headers(answer, b"set-cookie")
            assert process.get("/oauth2/auth", jar=jar).status == 202
    assert fleet.idp.count("token") == 1
    # Nobody holds a lock any more.
    assert not fleet.store.locks


@kinds
def test_late_requests_with_the_old_cookie_are_let_in_for_a_minute(kind: str) -> None:
    """In the process that refreshed and in the other one; they get the new session."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    assert headers(fleet[0].get("/oauth2/auth"), b"set-cookie")
    for moment in (0.0, 30.0, 29.0):
        fleet.clock.now += moment
        for process in fleet.processes:
            answer = process.get("/oauth2/auth", jar=dict(old))
            assert answer.status == 202
            assert headers(answer, b"set-cookie") or kind.endswith("ticket")
    assert fleet.idp.count("token") == 1


@kinds
def test_az23_an_ended_session_is_ended_everywhere(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.idp.revoke("alice")
    old = dict(fleet.harness.jar)
    answers = fleet.check_together(6, old)
    assert {answer.status for answer in answers} == {401}
    assert all(headers(answer, b"set-cookie") for answer in answers)
    assert fleet.idp.count("token") == 1
    third = fleet.join(fleet.harness.settings)
    assert third.get("/oauth2/auth", jar=dict(old)).status == 401
    assert fleet.idp.count("token") == 1


@kinds
def test_a_provider_that_is_away_ends_nothing(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.harness.config.failing["token"] = 503
    answers = fleet.check_together(6, dict(fleet.harness.jar))
    assert {answer.status for answer in answers} == {202}
    del fleet.harness.config.failing["token"]
    fleet.clock.now += 11
    answers = fleet.check_together(6, dict(fleet.harness.jar))
    assert {answer.status for answer in answers} == {202}
    assert all(headers(answer, b"set-cookie") for answer in answers)


@kinds
def test_another_process_finishes_what_one_began(kind: str) -> None:
    """The provider rotates: whoever comes next has to know the new refresh token."""
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None  # so that userinfo is needed
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    del fleet.harness.config.failing["userinfo"]
    answer = fleet[1].get("/oauth2/auth", jar=jar)
    assert answer.status == 202
    assert headers(answer, b"set-cookie")
    fleet.clock.now += 61
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202


@kinds
def test_tokens_that_waited_too_long_are_renewed_themselves(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    for _ in range(3):
        assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
        fleet.clock.now += 400  # longer than an ID token is good for
    del fleet.harness.config.failing["userinfo"]
    answer = fleet[1].get("/oauth2/auth", jar=jar)
    assert answer.status == 202
    assert headers(answer, b"set-cookie")


@pytest.mark.parametrize("kind", ["cookie", "foreign-cookie"])
def test_without_the_store_a_cookie_session_lives_on(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.away = True
    jar = dict(fleet.harness.jar)
    answers = fleet.check_together(6, jar)
    assert {answer.status for answer in answers} == {202}
    assert fleet.idp.count("token") == 0
    fleet.store.away = False
    fleet.clock.now += 11
    assert headers(fleet[1].get("/oauth2/auth", jar=jar), b"set-cookie")
    assert fleet.idp.count("token") == 1


@in_store
def test_without_the_store_a_ticket_session_is_503_and_nothing_is_cleared(
    kind: str,
) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.away = True
    jar = dict(fleet.harness.jar)
    for target in ("/oauth2/auth", "/page", "/oauth2/userinfo", "/oauth2/sign_out"):
        answer = fleet[0].get(target, jar=jar)
        assert answer.status == 503
        assert headers(answer, b"retry-after")
        assert not headers(answer, b"set-cookie")
    assert fleet.idp.count("token") == 0
    fleet.store.away = False
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202


@kinds
def test_a_store_that_fails_for_a_moment_loses_no_refresh(kind: str) -> None:
    """The refresh token is spent: what came for it has to be saved."""
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
def test_a_refresh_that_can_not_be_shared_keeps_others_from_trying(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    jar = dict(fleet.harness.jar)
    answer = fleet[0].get("/oauth2/auth", jar=dict(jar))
    assert answer.status == 202
    assert headers(answer, b"set-cookie")
    assert [event.kind for event in fleet.harness.events][-2:] == [
        "refresh_not_shared",
        "refreshed",
    ]
    fleet.store.failing = lambda effect: False
    assert fleet[1].get("/oauth2/auth", jar=jar).status == 202
    assert fleet[0].get("/oauth2/auth", jar=dict(jar)).status == 202
    assert fleet.idp.count("token") == 1


@in_store
def test_a_ticket_whose_refresh_was_not_saved_is_saved_later(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 503
    fleet.store.failing = lambda effect: False
    assert headers(fleet[0].get("/oauth2/auth", jar=jar), b"set-cookie")
    assert fleet.idp.count("token") == 1


@kinds
def test_lo08_signing_out_while_a_refresh_runs(kind: str) -> None:
    """Whatever step the refresh is at: afterwards the session is over."""
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
        if kind != "cookie" and kind != "foreign-cookie":
            # A fresh cookie that nothing revokes is good to its end, as documented.
            late = fleet[1].get("/oauth2/auth", jar=dict(signed_out))
            assert late.status == 401, steps
        assert not fleet.store.held("_oauth2_proxy-"), steps


@kinds
def test_st08_a_holder_that_died_delays_nobody_for_long(kind: str) -> None:
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
def test_the_lock_of_a_refresh_that_can_not_be_shared_is_not_given_back(
    kind: str,
) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    fleet[0].get("/oauth2/auth")
    assert len(fleet.store.locks) == 1


@kinds
def test_a_session_that_ends_while_it_waits_is_not_refreshed(kind: str) -> None:
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
def test_records_that_were_planted_or_broken_are_ignored(kind: str) -> None:
    """Whoever can write to the store can't put another session in a session's place."""
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    loads = [one.keys for one in _effects(fleet) if isinstance(one, LoadAll)]
    keys = [key for load in loads for key in load if ":re" in key or ":un" in key]
    keys = [key for key in keys if ":revoked:" not in key]
    for key in keys:
        note = fleet[0].proxy._sessions.formats.seal_record(key, b"other layout")
        good = note if ":un" in key else fleet.harness.jar[b"_oauth2_proxy"]
        fleet.store.put(key, good, 600)
    answer = fleet[0].get("/oauth2/auth")
    assert answer.status == 202
    assert header(answer, b"x-auth-request-email") == b"alice@example.com"


def _effects(fleet: Fleet) -> list[Any]:
    """The effects of a refresh in another process, up to the token request."""
    run = Run(fleet[1], fleet[1].proxy.check(fleet.harness.request("/oauth2/auth")))
    fleet.store.seen.clear()
    while not isinstance(run.effect, Fetch):
        run.step()
    run.flow.close()
    fleet.store.locks.clear()
    return fleet.store.seen


@kinds
def test_two_processes_that_fail_in_turn_keep_the_newest_token(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.harness.config.id_token_claims["groups"] = None
    fleet.harness.config.failing["userinfo"] = 503
    fleet.clock.now += 61
    jar = dict(fleet.harness.jar)
    for process in (fleet[0], fleet[1], fleet[0], fleet[1]):
        assert process.get("/oauth2/auth", jar=jar).status == 202
        fleet.clock.now += 61  # what was kept is too old to be used as it is
    del fleet.harness.config.failing["userinfo"]
    for process in (fleet[0], fleet[1]):
        assert headers(process.get("/oauth2/auth", jar=jar), b"set-cookie")
        fleet.clock.now += 61
    assert "session_ended" not in [event.kind for event in fleet.harness.events]


@in_store
def test_a_provider_that_does_not_rotate_leaves_nothing_behind(kind: str) -> None:
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
def test_a_provider_that_stops_rotating_keeps_the_newest_token(kind: str) -> None:
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


# -- refreshing early


def early(kind: str) -> Fleet:
    """A token of 300 s, refreshed 60 s before its end."""
    given = KINDS[kind]
    cookie = {k: v for k, v in given.get("cookie", {}).items() if k != "refresh"}
    life = msgspec.structs.replace(given["sessions"], refresh_before=60.0)
    fleet = Fleet(settings(cookie=cookie, sessions=life))
    fleet[0].log_in()
    fleet.idp.requests.clear()
    return fleet


@kinds
def test_early_one_refreshes_and_nobody_waits(kind: str) -> None:
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
            answer = process.get("/oauth2/auth", jar=dict(jar))
            assert answer.status == 202
            assert not headers(answer, b"set-cookie")
    assert fleet.clock.now == now  # nobody waited for the lock
    fleet.finish(run)
    assert headers(run.result, b"set-cookie")
    assert fleet.idp.count("token") == 1


@kinds
def test_when_the_token_has_ended_requests_wait(kind: str) -> None:
    fleet = early(kind)
    fleet.clock.now += 301
    answers = fleet.check_together(10, dict(fleet.harness.jar))
    assert {answer.status for answer in answers} == {202}
    assert all(headers(answer, b"set-cookie") for answer in answers)
    assert fleet.idp.count("token") == 1


@kinds
def test_an_early_refresh_that_fails_is_tried_again(kind: str) -> None:
    fleet = early(kind)
    fleet.harness.config.failing["token"] = 503
    fleet.clock.now += 245
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    del fleet.harness.config.failing["token"]
    fleet.clock.now += 11
    assert headers(fleet[0].get("/oauth2/auth", jar=jar), b"set-cookie")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "foreign" not in kind])
def test_a_refresh_is_use_of_the_session(kind: str) -> None:
    """The original's formats do not say when a session was used."""
    life = msgspec.structs.replace(KINDS[kind]["sessions"], idle_timeout=100.0)
    fleet = Fleet(settings(cookie={"refresh": 90.0}, sessions=life))
    fleet[0].log_in()
    for _ in range(5):
        fleet.clock.now += 95
        assert fleet[0].get("/oauth2/auth").status == 202
    fleet.clock.now += 101
    assert fleet[0].get("/oauth2/auth").status == 401


def test_tokens_that_are_kept_are_not_shown() -> None:
    assert "RT" not in repr(PendingTokens(Tokens("AT", "IT", "RT"), 1.0, "RT-0"))


@kinds
def test_st08_a_lock_that_was_stolen_in_the_middle_of_a_refresh(kind: str) -> None:
    """Another process refreshes meanwhile: its session is the good one, for all."""
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
def test_a_refusal_while_the_store_goes_away_ends_the_session(kind: str) -> None:
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
def test_lo08_a_sign_out_is_final_although_the_store_goes_away(kind: str) -> None:
    fleet = fleet_of(kind)
    fleet.clock.now += 61
    run = Run(fleet[0], fleet[0].proxy.check(fleet.harness.request("/oauth2/auth")))
    while not isinstance(run.effect, Fetch):
        run.step()
    assert fleet[1].get("/oauth2/sign_out").status == 302
    # The note of its end is still read, but nothing can be written any more.
    fleet[0].proxy._sessions.refresh_cache._ended = type(
        fleet[0].proxy._sessions.refresh_cache._ended
    )(fleet.clock, 60.0)
    saves = iter([False])
    fleet.store.failing = lambda effect: (
        type(effect) in (Save, Delete) and next(saves, True)
    )
    fleet.finish(run)
    assert run.result.status in (401, 503)
