"""Index of stored sessions and revocation, as used by the command line and logout."""

from __future__ import annotations

import random
from typing import Any

import pytest

from authproxy_core import Add, LoadAll, Members, Secret, SessionSettings, Settings
from authproxy_core.session import Session
from authproxy_core.sessions.index import RevocationResult, SessionIndex
from support.fleet import Fleet
from support.harness import SECRET, START, headers, settings

NAME = b"_oauth2_proxy"
OTHER = Secret(b"fedcba9876543210fedcba9876543210")


def stored(*, revocable: bool = False, **changes: Any) -> Settings:
    life = SessionSettings(shared=True, backend="store", revocable=revocable)
    return settings(sessions=life, **changes)


class Users:
    """A fleet, the cookies of some users, and the index as the command line builds it."""

    def __init__(self, given: Settings) -> None:
        self.fleet = Fleet(given)
        self.jars: dict[str, dict[bytes, bytes]] = {}
        for name in ("alice", "bob", "alice-again"):
            jar: dict[bytes, bytes] = {}
            self.fleet.clock.now += 1
            self.fleet[0].log_in(name.partition("-")[0], jar)
            self.jars[name] = jar
        self.index = self.index_of(given)

    def index_of(self, given: Settings) -> SessionIndex:
        return SessionIndex(
            given, clock=self.fleet.clock, random_bytes=random.Random(5).randbytes
        )

    def run(self, flow: Any) -> Any:
        return self.fleet[1].run(flow)

    def signed_in(self) -> set[str]:
        """Return the names whose cookies all processes accept."""
        found = [
            {
                name
                for name, jar in self.jars.items()
                if process.get("/oauth2/auth", jar=dict(jar)).status == 202
            }
            for process in self.fleet.processes
        ]
        assert all(names == found[0] for names in found)
        return found[0]


@pytest.fixture
def users() -> Users:
    return Users(stored())


def test_find_lists_sessions_without_tokens(users: Users) -> None:
    found = users.run(users.index.find())
    assert [info.email for info in found] == [
        "alice@example.com",
        "bob@example.com",
        "alice@example.com",
    ]
    first = found[0]
    assert first.provider == "keycloak"
    assert first.login_at == START + 1
    assert first.sid
    assert first.preferred_username == "alice"
    assert len(first.id) == 32
    assert "token" not in repr(found).lower()


def test_store_contains_no_user_names(users: Users) -> None:
    for key in users.fleet.store.held():
        assert "alice" not in key
        value = users.fleet.store.get(key) or b""
        assert b"alice" not in value


def test_find_by_user_and_sid(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    for name in ("alice@example.com", "alice", alice.user):
        assert users.run(users.index.find(user=name)) == (alice, again)
    assert users.run(users.index.find(sid=bob.sid)) == (bob,)
    assert users.run(users.index.find(sid=bob.sid, user="bob")) == (bob,)
    assert users.run(users.index.find(sid=bob.sid, user="alice")) == ()
    assert users.run(users.index.find(user="unknown")) == ()
    assert users.run(users.index.find(sid="*")) == ()


@pytest.mark.parametrize("revocable", [False, True])
def test_revoke_user_ends_all_sessions(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    found = users.run(users.index.revoke(user="alice@example.com"))
    assert found == RevocationResult(2, revocable)
    assert users.signed_in() == {"bob"}
    assert [info.email for info in users.run(users.index.find())] == ["bob@example.com"]
    # The user may sign in again.
    users.fleet.clock.now += 1
    users.jars["alice"] = {}
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.signed_in() == {"alice", "bob"}


@pytest.mark.parametrize("revocable", [False, True])
def test_revoke_sid_ends_one_session(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    [_, bob, _] = users.run(users.index.find())
    assert users.run(users.index.revoke(sid=bob.sid)) == RevocationResult(1, revocable)
    assert users.signed_in() == {"alice", "alice-again"}
    repeated = users.run(users.index.revoke(sid=bob.sid, user="bob"))
    assert repeated == RevocationResult(0, False)


@pytest.mark.parametrize("revocable", [False, True])
def test_revoke_everything_ends_all_sessions(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    assert users.signed_in()
    assert users.run(users.index.revoke(everything=True)) == RevocationResult(
        3, revocable
    )
    assert users.signed_in() == set()
    assert users.run(users.index.find()) == ()
    assert not users.fleet.store.tickets()


def test_revoke_everything_store_returns_members_in_parts(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    perform = users.fleet.store.perform

    def perform_in_parts(effect: Any, owner: object) -> Any:
        response = perform(effect, owner)
        return response[:2] if type(effect) is Members else response

    monkeypatch.setattr(users.fleet.store, "perform", perform_in_parts)
    assert users.run(users.index.revoke(everything=True)).count == 3
    assert users.signed_in() == set()


def test_revoke_without_arguments_raises(users: Users) -> None:
    with pytest.raises(ValueError, match="expected"):
        users.run(users.index.revoke())


def test_find_after_key_rotation(users: Users) -> None:
    """Sessions from before and after the rotation are found."""
    rotated = stored(cookie={"secrets": (OTHER, SECRET)})
    later = users.fleet.join(rotated)
    later.log_in("bob", users.jars.setdefault("bob-again", {}))
    index = users.index_of(rotated)
    [_, bob, _, again] = users.run(index.find())
    assert bob.user == again.user
    assert users.run(index.find_by_subject("keycloak", subject=bob.user)) == (
        bob,
        again,
    )
    assert users.run(index.revoke(sid=bob.sid)).count == 1
    assert users.run(index.revoke(user="bob")).count == 1


def test_lo19_logout_must_match_subject_and_sid(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    match = users.index.find_by_subject
    assert users.run(match("keycloak", subject=alice.user)) == (alice, again)
    assert users.run(match("keycloak", sid=alice.sid)) == (alice,)
    both = match("keycloak", subject=alice.user, sid=alice.sid)
    assert users.run(both) == (alice,)
    assert users.run(match("keycloak", subject=bob.user, sid=alice.sid)) == ()
    assert users.run(match("other", subject=alice.user)) == ()
    assert users.run(match("keycloak")) == ()


def test_lo20_subject_is_not_a_pattern(users: Users) -> None:
    for subject in ("*", "\r\n", "x" * 10_000, "all", ""):
        assert users.run(users.index.find_by_subject("keycloak", subject=subject)) == ()


def test_find_skips_missing_and_invalid_records(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    store = users.fleet.store
    store.put(f"_oauth2_proxy-info:{alice.id}", b"garbage", 60)
    store.values.pop(f"_oauth2_proxy-info:{bob.id}")
    assert users.run(users.index.find()) == (again,)


def test_refreshed_session_stays_in_index() -> None:
    given = stored(cookie={"refresh": 60.0, "expire": 3600.0})
    users = Users(given)
    users.fleet.store.seen.clear()
    [info, *_] = users.run(users.index.find())
    for _ in range(150):
        users.fleet.clock.now += 61
        response = users.fleet[0].get("/oauth2/auth", jar=users.jars["alice"])
        assert headers(response, b"set-cookie")
    [later] = users.run(users.index.find())  # the others have expired
    assert later.id == info.id
    assert later.created_at > info.created_at
    # The record is written once per lifetime, not with every refresh.
    assert users.fleet.store.count(Add) <= 3 * 6


def test_find_loads_records_in_batches(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authproxy_core.sessions import index

    monkeypatch.setattr(index, "BATCH_SIZE", 2)
    users.fleet.store.seen.clear()
    assert len(users.run(users.index.find())) == 3
    assert users.fleet.store.count(LoadAll) == 3  # and all sessions at once


# -- sessions in cookies, which are not in the index


def in_cookies(**changes: Any) -> Settings:
    life = SessionSettings(shared=True, revocable=True)
    return settings(sessions=life, **changes)


def test_ck25_revocable_cookie_rejected_after_sign_out() -> None:
    users = Users(in_cookies())
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    copy = dict(users.jars["alice"])
    users.fleet[0].get("/oauth2/sign_out", jar=users.jars["alice"])
    users.jars["alice"] = copy
    assert users.signed_in() == {"bob", "alice-again"}


def test_ck23_revocable_cookie_rejected_after_new_login() -> None:
    users = Users(in_cookies())
    copy = dict(users.jars["alice"])
    users.fleet[1].log_in("bob", users.jars["alice"])
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    users.jars["copy"] = copy
    assert "copy" not in users.signed_in()


@pytest.mark.parametrize(
    ("criteria", "remaining"),
    [
        ({"user": "alice@example.com"}, {"bob"}),
        ({"everything": True}, set()),
    ],
)
def test_revoke_ends_cookie_sessions(criteria: Any, remaining: set[str]) -> None:
    users = Users(in_cookies())
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    assert users.run(users.index.revoke(**criteria)) == RevocationResult(0, True)
    assert users.signed_in() == remaining
    users.fleet.clock.now += 1
    users.jars["alice"] = {}
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.signed_in() == remaining | {"alice"}


def test_logout_token_ends_cookie_sessions() -> None:
    users = Users(in_cookies())
    sids = {}
    for name, jar in users.jars.items():
        entry = users.fleet[0].proxy._sessions.parse_cookie(jar[NAME])
        assert entry is not None
        sids[name] = entry.session
    alice, bob = sids["alice"], sids["bob"]
    revoke = users.index.revoke_by_logout_token
    # LO19: a sid with the subject of another user matches no session.
    users.run(revoke("keycloak", sid=alice.sid, subject=bob.user))
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    users.run(revoke("keycloak", sid=alice.sid, subject=alice.user))
    assert users.signed_in() == {"bob", "alice-again"}
    users.run(revoke("keycloak", sid=bob.sid))
    assert users.signed_in() == {"alice-again"}
    users.run(users.index.revoke(sid=sids["alice-again"].sid))
    assert users.signed_in() == set()
    users.jars["alice"] = {}
    users.fleet.clock.now += 1
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.signed_in() == {"alice"}
    users.run(revoke("keycloak", subject=alice.user))
    assert users.signed_in() == set()


def test_invalid_revocation_record_revokes() -> None:
    users = Users(in_cookies())
    users.fleet.store.put("_oauth2_proxy-revoked:all", b"\xff", 60)
    assert users.signed_in() == set()


def test_revocation_check_cached() -> None:
    users = Users(in_cookies())
    jar = users.jars["alice"]
    users.fleet.store.seen.clear()
    for _ in range(10):
        assert users.fleet[0].get("/oauth2/auth", jar=jar).status == 202
    assert users.fleet.store.count(LoadAll) == 2  # cached when seen for the second time
    users.fleet[0].proxy.store_notifies = False
    for _ in range(3):
        assert users.fleet[0].get("/oauth2/auth", jar=jar).status == 202
    assert users.fleet.store.count(LoadAll) == 5


def test_revocable_session_without_store_returns_503() -> None:
    users = Users(in_cookies())
    users.fleet.store.away = True
    jar = dict(users.jars["alice"])
    for target in ("/oauth2/auth", "/oauth2/sign_out"):
        response = users.fleet[0].get(target, jar=jar)
        assert response.status == 503
        assert not headers(response, b"set-cookie")


def test_cookie_sessions_without_revocation_read_no_store() -> None:
    users = Users(settings(sessions=SessionSettings(shared=True)))
    users.fleet.store.seen.clear()
    assert users.signed_in() == {"alice", "bob", "alice-again"}
    assert not users.fleet.store.seen
    users.run(users.index.revoke_by_logout_token("keycloak", subject="x"))
    assert users.signed_in() == {"alice", "bob", "alice-again"}


def test_sign_out_of_cookie_session_without_store() -> None:
    users = Users(settings(sessions=SessionSettings(shared=True)))
    users.fleet.store.away = True
    assert users.fleet[0].get("/oauth2/sign_out", jar=users.jars["bob"]).status == 302
    assert not users.jars["bob"]


def test_keys_for_session_without_names() -> None:
    index = Users(in_cookies()).index
    keys = index.revocations.keys_for(Session(provider="keycloak", user="u"), "x")
    assert len(keys) == 3  # the session, its subject, all


def test_revoke_ends_sessions_of_oauth2_proxy() -> None:
    """Sessions that oauth2-proxy wrote are not in the index, but can be revoked."""
    users = Users(stored(revocable=True, cookie={"format": "oauth2-proxy"}))
    users.fleet.store.sets.clear()
    assert users.run(
        users.index.revoke(user="alice@example.com")
    ).cookie_sessions_revoked
    assert users.signed_in() == {"bob"}


def test_add_session_without_sid(users: Users) -> None:
    session = Session(provider="keycloak", user="u", login_at=START)
    ticket = users.index._formats.new_ticket()
    users.fleet.store.put(ticket.id, b"session", 100.0)
    users.run(users.index.add_session(ticket, session))
    assert len(users.run(users.index.find(user="u"))) == 1
    assert users.run(users.index.revoke(user="u")).count == 1


@pytest.mark.parametrize("revocable", [False, True])
def test_logout_token_with_subject_ends_all_sessions_of_user(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    [alice, *_] = users.run(users.index.find())
    done = users.run(users.index.revoke_by_logout_token("keycloak", subject=alice.user))
    assert done == RevocationResult(2, revocable)
    assert users.signed_in() == {"bob"}


# -- expired sessions


def test_find_leaves_out_expired_sessions() -> None:
    users = Users(stored(cookie={"expire": 100.0}))
    alice, bob, again = users.run(users.index.find())
    users.fleet.clock.now += 98.5
    assert users.run(users.index.find()) == (bob, again)
    assert users.run(users.index.find(user="alice")) == (again,)
    assert users.run(users.index.find(sid=alice.sid)) == ()
    assert users.signed_in() == {"bob", "alice-again"}
    # A revocation also removes the records of expired sessions.
    assert users.run(users.index.revoke(user="alice")).count == 2
    assert users.run(users.index.find()) == (bob,)


def test_find_leaves_out_idle_sessions() -> None:
    life = SessionSettings(shared=True, backend="store", idle_timeout=100.0)
    users = Users(settings(sessions=life, cookie={"refresh": 60.0}))
    _, bob, _ = users.run(users.index.find())
    for _ in range(3):
        users.fleet.clock.now += 61  # a refresh counts as use
        assert users.fleet[0].get("/oauth2/auth", jar=users.jars["bob"]).status == 202
    assert users.run(users.index.find()) == (bob,)
    assert users.signed_in() == {"bob"}
    users.fleet.clock.now += 101
    assert users.run(users.index.find()) == ()


def test_find_leaves_out_sessions_that_oauth2_proxy_deleted() -> None:
    users = Users(stored())
    alice, bob, again = users.run(users.index.find())
    users.fleet.store.values.pop(f"_oauth2_proxy-{bob.id}")
    assert users.run(users.index.find()) == (alice, again)
