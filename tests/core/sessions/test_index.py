"""The index of sessions: who has which, and ending them from outside."""

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
    """A fleet, some users' cookies, and the index as a command line has it."""

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

    def inside(self) -> set[str]:
        """Whose cookies are still good, in every process."""
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


def test_sessions_are_listed_without_tokens(users: Users) -> None:
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


def test_no_name_stands_in_the_store(users: Users) -> None:
    for key in users.fleet.store.held():
        assert "alice" not in key
        value = users.fleet.store.get(key) or b""
        assert b"alice" not in value


def test_sessions_are_found_by_user_and_sid(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    for name in ("alice@example.com", "alice", alice.user):
        assert users.run(users.index.find(user=name)) == (alice, again)
    assert users.run(users.index.find(sid=bob.sid)) == (bob,)
    assert users.run(users.index.find(sid=bob.sid, user="bob")) == (bob,)
    assert users.run(users.index.find(sid=bob.sid, user="alice")) == ()
    assert users.run(users.index.find(user="nobody")) == ()
    assert users.run(users.index.find(sid="*")) == ()


@pytest.mark.parametrize("revocable", [False, True])
def test_a_user_is_logged_out_everywhere(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    assert users.inside() == {"alice", "bob", "alice-again"}
    found = users.run(users.index.revoke(user="alice@example.com"))
    assert found == RevocationResult(2, revocable)
    assert users.inside() == {"bob"}
    assert [info.email for info in users.run(users.index.find())] == ["bob@example.com"]
    # Not for ever: the user may log in again.
    users.fleet.clock.now += 1
    users.jars["alice"] = {}
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.inside() == {"alice", "bob"}


@pytest.mark.parametrize("revocable", [False, True])
def test_one_session_is_ended_by_its_sid(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    [_, bob, _] = users.run(users.index.find())
    assert users.run(users.index.revoke(sid=bob.sid)) == RevocationResult(1, revocable)
    assert users.inside() == {"alice", "alice-again"}
    gone = users.run(users.index.revoke(sid=bob.sid, user="bob"))
    assert gone == RevocationResult(0, False)


@pytest.mark.parametrize("revocable", [False, True])
def test_all_sessions_are_ended(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    assert users.inside()
    assert users.run(users.index.revoke(everything=True)) == RevocationResult(
        3, revocable
    )
    assert users.inside() == set()
    assert users.run(users.index.find()) == ()
    assert not users.fleet.store.held("-")


def test_all_are_ended_although_the_store_gives_them_out_in_parts(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = users.fleet.store.perform

    def parts(effect: Any, owner: object) -> Any:
        answer = whole(effect, owner)
        return answer[:2] if type(effect) is Members else answer

    monkeypatch.setattr(users.fleet.store, "perform", parts)
    assert users.run(users.index.revoke(everything=True)).count == 3
    assert users.inside() == set()


def test_nothing_is_ended_unless_it_is_said_whose(users: Users) -> None:
    with pytest.raises(ValueError, match="expected"):
        users.run(users.index.revoke())


def test_the_index_outlives_a_change_of_the_secret(users: Users) -> None:
    """A user logs in before and after it: both sessions are found."""
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


def test_lo19_a_logout_has_to_match_both(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    match = users.index.find_by_subject
    assert users.run(match("keycloak", subject=alice.user)) == (alice, again)
    assert users.run(match("keycloak", sid=alice.sid)) == (alice,)
    both = match("keycloak", subject=alice.user, sid=alice.sid)
    assert users.run(both) == (alice,)
    assert users.run(match("keycloak", subject=bob.user, sid=alice.sid)) == ()
    assert users.run(match("other", subject=alice.user)) == ()
    assert users.run(match("keycloak")) == ()


def test_lo20_a_subject_is_no_pattern(users: Users) -> None:
    for subject in ("*", "\r\n", "x" * 10_000, "all", ""):
        assert users.run(users.index.find_by_subject("keycloak", subject=subject)) == ()


def test_records_that_are_gone_or_broken_are_left_out(users: Users) -> None:
    alice, bob, again = users.run(users.index.find())
    store = users.fleet.store
    store.put(f"_oauth2_proxy:info:{alice.id}", b"garbage", 60)
    store.values.pop(f"_oauth2_proxy:info:{bob.id}")
    assert users.run(users.index.find()) == (again,)


def test_a_session_that_is_refreshed_stays_in_the_index() -> None:
    given = stored(cookie={"refresh": 60.0, "expire": 3600.0})
    users = Users(given)
    users.fleet.store.seen.clear()
    [info, *_] = users.run(users.index.find())
    for _ in range(150):
        users.fleet.clock.now += 61
        answer = users.fleet[0].get("/oauth2/auth", jar=users.jars["alice"])
        assert headers(answer, b"set-cookie")
    [later] = users.run(users.index.find())  # the others have expired
    assert later.id == info.id
    assert later.created_at > info.created_at
    # Noted anew once in its lifetime, not with every refresh.
    assert users.fleet.store.count(Add) <= 3 * 6


def test_long_lists_are_loaded_in_batches(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    from authproxy_core.sessions import index

    monkeypatch.setattr(index, "BATCH_SIZE", 2)
    users.fleet.store.seen.clear()
    assert len(users.run(users.index.find())) == 3
    assert users.fleet.store.count(LoadAll) == 2


# -- sessions that no index knows: in cookies


def in_cookies(**changes: Any) -> Settings:
    life = SessionSettings(shared=True, revocable=True)
    return settings(sessions=life, **changes)


def test_ck25_a_cookie_is_worth_nothing_after_signing_out() -> None:
    users = Users(in_cookies())
    assert users.inside() == {"alice", "bob", "alice-again"}
    copy = dict(users.jars["alice"])
    users.fleet[0].get("/oauth2/sign_out", jar=users.jars["alice"])
    users.jars["alice"] = copy
    assert users.inside() == {"bob", "alice-again"}


def test_ck23_a_cookie_from_before_a_login_is_worth_nothing() -> None:
    users = Users(in_cookies())
    copy = dict(users.jars["alice"])
    users.fleet[1].log_in("bob", users.jars["alice"])
    assert users.inside() == {"alice", "bob", "alice-again"}
    users.jars["copy"] = copy
    assert "copy" not in users.inside()


@pytest.mark.parametrize(
    ("whom", "left"),
    [
        ({"user": "alice@example.com"}, {"bob"}),
        ({"everything": True}, set()),
    ],
)
def test_sessions_in_cookies_are_revoked(whom: Any, left: set[str]) -> None:
    users = Users(in_cookies())
    assert users.inside() == {"alice", "bob", "alice-again"}
    assert users.run(users.index.revoke(**whom)) == RevocationResult(0, True)
    assert users.inside() == left
    users.fleet.clock.now += 1
    users.jars["alice"] = {}
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.inside() == left | {"alice"}


def test_sessions_in_cookies_are_revoked_by_what_the_provider_calls_them() -> None:
    users = Users(in_cookies())
    sids = {}
    for name, jar in users.jars.items():
        entry = users.fleet[0].proxy._sessions.parse_cookie(jar[NAME])
        assert entry is not None
        sids[name] = entry.session
    alice, bob = sids["alice"], sids["bob"]
    log_out = users.index.revoke_by_logout_token
    # LO19: a sid with another's subject means nobody.
    users.run(log_out("keycloak", sid=alice.sid, subject=bob.user))
    assert users.inside() == {"alice", "bob", "alice-again"}
    users.run(log_out("keycloak", sid=alice.sid, subject=alice.user))
    assert users.inside() == {"bob", "alice-again"}
    users.run(log_out("keycloak", sid=bob.sid))
    assert users.inside() == {"alice-again"}
    users.run(users.index.revoke(sid=sids["alice-again"].sid))
    assert users.inside() == set()
    users.jars["alice"] = {}
    users.fleet.clock.now += 1
    users.fleet[0].log_in("alice", users.jars["alice"])
    assert users.inside() == {"alice"}
    users.run(log_out("keycloak", subject=alice.user))
    assert users.inside() == set()


def test_a_revocation_that_can_not_be_read_revokes() -> None:
    users = Users(in_cookies())
    users.fleet.store.put("_oauth2_proxy:revoked:all", b"\xff", 60)
    assert users.inside() == set()


def test_revocations_are_looked_up_once_and_then_remembered() -> None:
    users = Users(in_cookies())
    jar = users.jars["alice"]
    users.fleet.store.seen.clear()
    for _ in range(10):
        assert users.fleet[0].get("/oauth2/auth", jar=jar).status == 202
    assert users.fleet.store.count(LoadAll) == 2  # kept from its second sight on
    users.fleet[0].proxy.store_notifies = False
    for _ in range(3):
        assert users.fleet[0].get("/oauth2/auth", jar=jar).status == 202
    assert users.fleet.store.count(LoadAll) == 5


def test_without_the_store_no_revocable_session_is_let_in() -> None:
    users = Users(in_cookies())
    users.fleet.store.away = True
    jar = dict(users.jars["alice"])
    for target in ("/oauth2/auth", "/oauth2/sign_out"):
        answer = users.fleet[0].get(target, jar=jar)
        assert answer.status == 503
        assert not headers(answer, b"set-cookie")


def test_the_list_costs_nothing_without_the_option() -> None:
    users = Users(settings(sessions=SessionSettings(shared=True)))
    users.fleet.store.seen.clear()
    assert users.inside() == {"alice", "bob", "alice-again"}
    assert not users.fleet.store.seen
    users.run(users.index.revoke_by_logout_token("keycloak", subject="x"))
    assert users.inside() == {"alice", "bob", "alice-again"}


def test_signing_out_of_a_cookie_does_not_need_the_store() -> None:
    users = Users(settings(sessions=SessionSettings(shared=True)))
    users.fleet.store.away = True
    assert users.fleet[0].get("/oauth2/sign_out", jar=users.jars["bob"]).status == 302
    assert not users.jars["bob"]


def test_a_session_without_names_has_few_keys() -> None:
    index = Users(in_cookies()).index
    keys = index.revocations.keys_for(Session(provider="keycloak", user="u"), "x")
    assert len(keys) == 3  # itself, its subject, all


def test_foreign_tickets_are_looked_up_as_well() -> None:
    """What oauth2-proxy wrote is in no index, but can be revoked."""
    users = Users(stored(revocable=True, cookie={"format": "oauth2-proxy"}))
    users.fleet.store.sets.clear()
    assert users.run(
        users.index.revoke(user="alice@example.com")
    ).cookie_sessions_revoked
    assert users.inside() == {"bob"}


def test_a_session_without_sid_is_in_fewer_sets(users: Users) -> None:
    session = Session(provider="keycloak", user="u", login_at=START)
    users.run(users.index.add(users.index._formats.new_ticket(), session))
    assert len(users.run(users.index.find(user="u"))) == 1
    assert users.run(users.index.revoke(user="u")).count == 1


@pytest.mark.parametrize("revocable", [False, True])
def test_logging_out_by_subject_ends_all_of_a_user(revocable: bool) -> None:
    users = Users(stored(revocable=revocable))
    [alice, *_] = users.run(users.index.find())
    done = users.run(users.index.revoke_by_logout_token("keycloak", subject=alice.user))
    assert done == RevocationResult(2, revocable)
    assert users.inside() == {"bob"}
