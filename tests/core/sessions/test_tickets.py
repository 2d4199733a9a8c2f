"""Stored sessions: tickets, formats, caching, idle timeout."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import Delete, LoadAll, Save, Secret, SessionSettings
from authproxy_core.errors import SealError
from authproxy_core.session import Session
from authproxy_core.sessions.formats import (
    MAX_STORED_BYTES,
    SessionFormats,
    session_generation,
    session_identity,
    sid_of,
)
from authproxy_core.sessions.oauth2_proxy_format import (
    OAuth2ProxyFormat,
    Ticket,
    write_stored_session,
)
from authproxy_core.settings.root import CookieSettings, Settings
from support.fleet import Fleet
from support.harness import SECRET, START, headers, settings, with_changes

NAME = b"_oauth2_proxy"
OTHER = Secret(b"fedcba9876543210fedcba9876543210")
IN_STORE = SessionSettings(shared=True, backend="store")
FORMATS = ["authproxy", "oauth2-proxy"]
formats = pytest.mark.parametrize("form", FORMATS)


def stored(form: str = "authproxy", **changes: Any) -> Settings:
    cookie = {"format": form} | changes.pop("cookie", {})
    return settings(cookie=cookie, **({"sessions": IN_STORE} | changes))


def fleet_of(form: str = "authproxy", *, logged_in: bool = True, **more: Any) -> Fleet:
    trusting = more.pop("trusting", True)
    fleet = Fleet(stored(form, **more), trusting=trusting)
    if logged_in:
        assert fleet[0].log_in().status == 302
        fleet.store.seen.clear()
    return fleet


def ticket_keys(fleet: Fleet) -> list[str]:
    return fleet.store.tickets()


# -- checks and caching


@formats
def test_ticket_cookie_short_and_required_to_unseal(form: str) -> None:
    fleet = fleet_of(form)
    [key] = ticket_keys(fleet)
    assert len(fleet.harness.jar[NAME]) < 300
    held = fleet.store.get(key)
    assert held is not None
    assert b"alice" not in held
    assert fleet[1].get("/oauth2/auth").status == 202


@formats
def test_first_check_loads_once_and_later_checks_use_cache(form: str) -> None:
    fleet = fleet_of(form)
    first = fleet[1].get("/oauth2/auth")
    assert [type(effect) for effect in fleet.store.seen] == [LoadAll]
    outcome = fleet[1].proxy.check(fleet.harness.request("/oauth2/auth"))
    assert outcome is fleet[1].proxy.check(fleet.harness.request("/oauth2/auth"))
    assert outcome == first
    assert fleet.store.count(LoadAll) == 1


@formats
def test_every_check_loads_without_change_notifications(form: str) -> None:
    fleet = fleet_of(form, trusting=False)
    for _ in range(3):
        assert fleet[1].get("/oauth2/auth").status == 202
    assert fleet.store.count(LoadAll) == 3


@formats
def test_cache_cleared_when_change_notifications_stop(form: str) -> None:
    fleet = fleet_of(form)
    assert fleet[0].get("/oauth2/auth").status == 202
    fleet[0].proxy.store_notifies = False
    fleet.store.away = True
    assert fleet[0].get("/oauth2/auth").status == 503


@formats
def test_st11_sign_out_ends_session_in_all_processes(form: str) -> None:
    fleet = fleet_of(form)
    old = dict(fleet.harness.jar)
    assert fleet[1].get("/oauth2/auth").status == 202
    assert fleet[0].get("/oauth2/sign_out").status == 302
    assert fleet[1].get("/oauth2/auth", jar=old).status == 401
    assert not old
    assert fleet.store.tickets() == []


@formats
def test_ticket_without_session_cleared(form: str) -> None:
    fleet = fleet_of(form)
    fleet.store.values.clear()
    jar = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/userinfo", jar=jar).status == 401
    assert not jar


def test_stored_session_expires() -> None:
    fleet = fleet_of(cookie={"expire": 3600.0})
    assert fleet[0].get("/oauth2/auth").status == 202
    fleet.clock.now += 3601
    for process in fleet.processes:
        assert process.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401
    assert not ticket_keys(fleet)


def test_stored_session_without_refresh_token_expires_with_tokens() -> None:
    fleet = fleet_of(logged_in=False, cookie={"refresh": 60.0})
    fleet.harness.config.issue_refresh_token = False
    fleet[0].log_in()
    fleet.clock.now += 299
    assert fleet[1].get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 202
    fleet.clock.now += 2
    assert fleet[0].get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401


def test_stored_session_on_other_endpoints() -> None:
    fleet = fleet_of()
    assert fleet[1].get("/oauth2/userinfo").status == 200
    assert fleet[1].get("/oauth2/sign_in").status == 200
    assert fleet.harness.jar
    request = fleet.harness.request("/")
    session = fleet[0].run(fleet[0].proxy.identify(request))
    assert session.email == "alice@example.com"
    fleet.store.values.clear()
    cached = fleet[1].run(fleet[1].proxy.identify(fleet.harness.request("/")))
    assert cached is not None  # no change notification yet
    fleet[1].proxy.store_changed(None)
    assert fleet[1].run(fleet[1].proxy.identify(fleet.harness.request("/"))) is None


def test_stored_session_of_removed_provider_rejected() -> None:
    fleet = fleet_of()
    other = msgspec.structs.replace(fleet.harness.settings.providers[0], id="other")
    third = fleet.join(with_changes(fleet.harness.settings, providers=(other,)))
    assert third.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401


# -- a login


@formats
def test_ck23_ticket_planted_before_login_not_reused(form: str) -> None:
    """Session fixation: the cookie from before the login is of no use afterwards."""
    fleet = fleet_of(form)
    planted = dict(fleet.harness.jar)
    [old_key] = ticket_keys(fleet)
    fleet[1].log_in("bob")
    [new_key] = ticket_keys(fleet)
    assert new_key != old_key
    assert fleet.harness.jar[NAME] != planted[NAME]
    for process in fleet.processes:
        assert process.get("/oauth2/auth", jar=dict(planted)).status == 401
        assert process.get("/oauth2/auth").status == 202


@formats
def test_login_without_store_returns_503(form: str) -> None:
    fleet = fleet_of(form, logged_in=False)
    fleet.store.away = True
    response = fleet[0].log_in()
    assert response.status == 503
    assert b"retry-after" in dict(response.headers)
    assert NAME not in fleet.harness.jar
    fleet.store.away = False
    assert fleet[0].log_in().status == 302


@formats
def test_refresh_keeps_ticket(form: str) -> None:
    fleet = fleet_of(form, cookie={"refresh": 60.0})
    keys, old = ticket_keys(fleet), dict(fleet.harness.jar)
    fleet.clock.now += 61
    response = fleet[0].get("/oauth2/auth")
    assert response.status == 202
    assert headers(response, b"set-cookie")
    assert ticket_keys(fleet) == keys
    fleet.clock.now += 30
    late = fleet[1].get("/oauth2/auth", jar=old)
    assert late.status == 202
    assert headers(late, b"set-cookie")


def test_refresh_of_session_deleted_meanwhile_rejected() -> None:
    """oauth2-proxy signs out by deleting the session; it writes no revocation mark."""
    fleet = fleet_of("oauth2-proxy", cookie={"refresh": 60.0})
    [key] = ticket_keys(fleet)
    fleet.clock.now += 61

    def fetch(effect: Any) -> Any:
        fleet.store.perform(Delete(key), None)
        return fleet.idp.fetch(effect)

    fleet.harness.on_fetch = fetch
    assert fleet[0].get("/oauth2/auth").status == 401
    assert not ticket_keys(fleet)


def test_refresh_by_oauth2_proxy_meanwhile_wins() -> None:
    """oauth2-proxy's lock expires after 2 s, so its refresh can overlap with this one."""
    fleet = fleet_of("oauth2-proxy", cookie={"refresh": 60.0})
    fleet.clock.now += 61
    seen: list[Any] = []

    def fetch(effect: Any) -> Any:
        fleet.harness.on_fetch = fleet.idp.fetch
        fleet.store.locks.clear()
        seen.append(fleet[1].get("/oauth2/auth", jar=dict(fleet.harness.jar)))
        return fleet.idp.fetch(effect)

    fleet.harness.on_fetch = fetch
    response = fleet[0].get("/oauth2/auth")
    assert seen[0].status == 202
    assert response.status in (202, 401)
    ended = [event.kind for event in fleet.harness.events].count("session_ended")
    assert ended == (response.status == 401)


# -- formats


def formats_of(**cookie: Any) -> SessionFormats:
    given = Settings(
        cookie=CookieSettings(**({"secrets": (SECRET,)} | cookie)), sessions=IN_STORE
    )
    return SessionFormats(
        given, clock=lambda: START, random_bytes=random.Random(3).randbytes
    )


def test_st01_ticket_id_of_another_form_rejected() -> None:
    """The ID becomes a store key, so only IDs of sessions are accepted."""
    oauth2_proxy = OAuth2ProxyFormat((SECRET,), NAME.decode())
    digits = "0123456789abcdef0123456789abcdef"
    valid = Ticket(f"_oauth2_proxy-{digits}", b"s" * 16)
    reader = formats_of()
    assert reader.read(oauth2_proxy.write_ticket(valid, created_at=START))[0] == valid
    for ticket_id in (
        digits,
        "_oauth2_proxy-" + digits.upper(),
        "_oauth2_proxy-" + digits[1:],
        "_oauth2_proxy-" + digits + "0",
        "_oauth2_proxy-*",
        "_oauth2_proxy-../" + digits[3:],
        f"_oauth2_proxy-{digits}\r\n",
        f"_oauth2_proxy-revoked:{digits}",
        f"_other-{digits}",
        "_oauth2_proxy-" + "0" * 10_000,
        "_oauth2_proxy-\0" + digits[1:],
    ):
        value = oauth2_proxy.write_ticket(
            Ticket(ticket_id, b"s" * 16), created_at=START
        )
        with pytest.raises(SealError):
            reader.read(value)


@given(st.binary(max_size=300))
def test_any_bytes_rejected_with_seal_error(data: bytes) -> None:
    reader = formats_of()
    with pytest.raises(SealError):
        reader.read(data)
    ticket = reader.new_ticket()
    with pytest.raises(SealError):
        reader.unseal_stored(ticket, data)


texts = st.text(max_size=40)
sessions = st.builds(
    Session,
    provider=st.just("keycloak"),
    created_at=st.floats(START - 1000, START),
    login_at=st.floats(START - 1000, START),
    expires_at=st.floats(START, START + 1000),
    access_token=texts,
    id_token=texts,
    refresh_token=texts,
    user=texts,
    email=texts,
    groups=st.tuples(texts, texts),
    nonce=st.binary(max_size=40),
    sid=texts,
    last_used_at=st.floats(0, START),
)


@given(sessions)
def test_session_formats_round_trip(session: Session) -> None:
    formats = formats_of()
    ticket = formats.new_ticket()
    assert (
        formats.unseal_stored(ticket, formats.seal_stored(ticket, session)) == session
    )
    value = formats.write_ticket(ticket, session.created_at)
    found, issued_at = formats.read(value)
    assert found == ticket
    assert issued_at == pytest.approx(session.created_at, abs=1e-6)
    assert formats.read(formats.write_session(session))[0] == session


@formats
def test_st02_ticket_with_other_secret_rejected(form: str) -> None:
    reader = formats_of(format=form)
    ticket, other = reader.new_ticket(), reader.new_ticket()
    data = reader.seal_stored(ticket, Session(user="a", created_at=START))
    forged = Ticket(ticket.id, other.secret)
    with pytest.raises(SealError):
        reader.unseal_stored(forged, data)


def test_st05_stored_session_moved_to_other_key_rejected() -> None:
    """In authproxy's format only: oauth2-proxy's value is not bound to its key."""
    reader = formats_of()
    ticket = reader.new_ticket()
    data = reader.seal_stored(ticket, Session(user="a", created_at=START))
    moved = Ticket(reader.new_ticket().id, ticket.secret)
    with pytest.raises(SealError):
        reader.unseal_stored(moved, data)


def test_st04_value_planted_in_store_rejected() -> None:
    fleet = fleet_of()
    [key] = ticket_keys(fleet)
    planted = formats_of().seal_stored(
        Ticket(key, b"k" * 32), Session(user="root", email="root@example.com")
    )
    for blob in (b"", b"{}", planted, b"\0" * 100, b"A" * 100):
        fleet.store.put(key, blob, 600)
        assert fleet[0].get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401


@formats
def test_st07_huge_stored_session_rejected_undecoded(form: str) -> None:
    reader = formats_of(format=form)
    with pytest.raises(SealError, match="too large"):
        reader.unseal_stored(reader.new_ticket(), b"A" * (MAX_STORED_BYTES + 1))


def test_ck04_ticket_session_and_login_state_not_interchangeable() -> None:
    fleet = fleet_of()
    value = fleet.harness.jar[NAME]
    login = {b"_oauth2_proxy_12345678_csrf": value}
    assert fleet[0].get("/oauth2/callback?state=x&code=y", jar=login).status == 403
    record = formats_of().seal_record("key", b"x" * 48)
    assert fleet[0].get("/oauth2/auth", jar={NAME: record}).status == 401


def test_ck05_ticket_of_other_cookie_name_rejected() -> None:
    fleet = fleet_of()
    other = fleet.join(stored(cookie={"name": "_other"}))
    jar = {b"_other": fleet.harness.jar[NAME]}
    assert other.get("/oauth2/auth", jar=jar).status == 401


@formats
def test_ck01_ck02_changed_ticket_rejected_without_io(form: str) -> None:
    fleet = fleet_of(form)
    value = fleet.harness.jar[NAME]
    loads = fleet.store.count(LoadAll)
    for at in range(0, len(value), 7):
        for byte in (value[at] ^ 1, ord("A") if value[at] != 65 else 66):
            forged = value[:at] + bytes([byte]) + value[at + 1 :]
            assert fleet[0].get("/oauth2/auth", jar={NAME: forged}).status == 401
        assert fleet[0].get("/oauth2/auth", jar={NAME: value[:at]}).status == 401
    for more in (b"=", b"A", b"|"):
        assert fleet[0].get("/oauth2/auth", jar={NAME: value + more}).status == 401
    assert fleet.store.count(LoadAll) == loads  # no I/O for a forged ticket


# -- both formats, and both kinds


@pytest.mark.parametrize("reads", FORMATS)
@formats
def test_both_formats_read_regardless_of_written_format(form: str, reads: str) -> None:
    fleet = fleet_of(form, cookie={"refresh": 60.0})
    other = fleet.join(stored(reads, cookie={"refresh": 60.0}))
    assert other.get("/oauth2/auth").status == 202
    fleet.clock.now += 61
    keys = ticket_keys(fleet)
    assert headers(other.get("/oauth2/auth"), b"set-cookie")
    assert ticket_keys(fleet) == keys
    if form == reads or reads == "oauth2-proxy":
        # It was rewritten by the other process, in its format.
        assert fleet[0].get("/oauth2/auth").status == 202


def test_read_oauth2_proxy_off_rejects_its_formats() -> None:
    fleet = fleet_of("oauth2-proxy")
    strict = fleet.join(stored(cookie={"read_oauth2_proxy": False}))
    assert strict.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401
    reader = formats_of(read_oauth2_proxy=False)
    ticket = reader.new_ticket()
    blob = write_stored_session(ticket, Session(created_at=START), nonce=b"n" * 12)
    with pytest.raises(SealError):
        reader.unseal_stored(ticket, blob)


def test_cookie_session_moves_to_store_on_refresh() -> None:
    before = settings(cookie={"refresh": 60.0}, sessions=SessionSettings(shared=True))
    fleet = Fleet(before)
    fleet[0].log_in()
    fleet.idp.requests.clear()
    moved = fleet.join(stored(cookie={"refresh": 60.0}))
    old = dict(fleet.harness.jar)
    assert moved.get("/oauth2/auth").status == 202
    assert not ticket_keys(fleet)
    fleet.clock.now += 61
    assert headers(moved.get("/oauth2/auth"), b"set-cookie")
    assert ticket_keys(fleet)
    assert len(fleet.harness.jar[NAME]) < 300
    # Requests with the old cookie get the ticket in every process.
    for process in (moved, fleet[1]):
        jar = dict(old)
        assert process.get("/oauth2/auth", jar=jar).status == 202
        assert len(jar[NAME]) < 300
    assert fleet.idp.count("token") == 1
    assert moved.get("/oauth2/sign_out").status == 302
    assert not ticket_keys(fleet)


def test_cookie_session_kept_when_move_to_store_fails() -> None:
    before = settings(cookie={"refresh": 60.0}, sessions=SessionSettings(shared=True))
    fleet = Fleet(before)
    fleet[0].log_in()
    fleet.idp.requests.clear()
    moved = fleet.join(stored(cookie={"refresh": 60.0}))
    fleet.clock.now += 61
    fleet.store.failing = lambda effect: type(effect) is Save
    response = moved.get("/oauth2/auth")
    assert response.status == 202
    assert not headers(response, b"set-cookie")
    fleet.store.failing = lambda effect: False
    fleet.clock.now += 11
    assert headers(moved.get("/oauth2/auth"), b"set-cookie")
    assert fleet.idp.count("token") == 1


def test_stored_session_read_with_cookie_backend() -> None:
    fleet = fleet_of(cookie={"refresh": 60.0})
    back = fleet.join(
        settings(cookie={"refresh": 60.0}, sessions=SessionSettings(shared=True))
    )
    assert back.get("/oauth2/auth").status == 202
    fleet.clock.now += 61
    assert headers(back.get("/oauth2/auth"), b"set-cookie")
    assert len(ticket_keys(fleet)) == 1
    back.log_in()
    assert not ticket_keys(fleet)  # the settings apply to a new login


def test_ticket_without_store_rejected() -> None:
    fleet = fleet_of()
    without_store = fleet.join(settings())
    assert without_store.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401


def test_session_too_large_for_cookies_stored() -> None:
    limits = {"max_parts": 1}
    fleet = Fleet(settings(cookie=limits, sessions=SessionSettings(shared=True)))
    fleet.harness.config.id_token_claims["groups"] = _many_groups()
    assert fleet[0].log_in().status == 302
    assert ticket_keys(fleet)
    assert fleet[1].get("/oauth2/auth").status == 202


def _many_groups() -> list[str]:
    return [random.Random(number).randbytes(20).hex() for number in range(300)]


def test_ck29_session_too_large_without_store_error_names_options(harness: Any) -> None:
    fleet = Fleet(settings(cookie={"max_parts": 1}))
    fleet.harness.config.id_token_claims["groups"] = _many_groups()
    response = fleet[0].log_in()
    assert response.status == 500
    event = response.events[0]
    assert "session_cookie_max_parts" in event.detail
    assert "session_store_type" in event.detail


# -- the key ring


@formats
def test_ck07_old_secret_unseals_and_new_secret_seals(form: str) -> None:
    fleet = fleet_of(form, cookie={"refresh": 60.0})
    both = fleet.join(
        stored(form, cookie={"refresh": 60.0, "secrets": (OTHER, SECRET)})
    )
    new_only = fleet.join(stored(form, cookie={"refresh": 60.0, "secrets": (OTHER,)}))
    assert new_only.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401
    assert both.get("/oauth2/auth").status == 202
    fleet.clock.now += 61
    assert headers(both.get("/oauth2/auth"), b"set-cookie")
    assert new_only.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 202


# -- idle sessions in the store


def idle(**changes: Any) -> Settings:
    life = SessionSettings(shared=True, backend="store", idle_timeout=600.0)
    return stored(sessions=life, **changes)


def test_touch_seen_by_all_processes() -> None:
    fleet = Fleet(idle())
    fleet[0].log_in()
    for _ in range(5):
        fleet.clock.now += 500
        assert fleet[1].get("/oauth2/auth").status == 202
    # This process has not seen the session for long, but the store has a later use.
    assert fleet[0].get("/oauth2/auth").status == 202
    assert fleet.store.held("-seen:")
    fleet.clock.now += 601
    for process in fleet.processes:
        assert process.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 401


def test_touch_interval_limits_writes() -> None:
    fleet = Fleet(idle())
    fleet[0].log_in()
    fleet.store.seen.clear()
    for _ in range(100):
        fleet.clock.now += 3
        assert fleet[0].get("/oauth2/auth").status == 202
    assert fleet.store.count(Save) in (4, 5)


def test_touch_retried_after_store_error() -> None:
    fleet = Fleet(idle())
    fleet[0].log_in()
    fleet.clock.now += 100
    fleet.store.failing = lambda effect: type(effect) is Save
    assert fleet[0].get("/oauth2/auth").status == 202
    fleet.store.failing = lambda effect: False
    fleet.clock.now += 100
    assert fleet[0].get("/oauth2/auth").status == 202
    assert fleet.store.held("-seen:")


def test_invalid_last_use_record_ignored() -> None:
    fleet = Fleet(idle())
    fleet[0].log_in()
    fleet.clock.now += 100
    fleet[0].get("/oauth2/auth")
    [key] = fleet.store.held("-seen:")
    fleet.store.put(key, b"garbage", 600)
    fleet.clock.now += 550
    assert fleet[0].get("/oauth2/auth").status == 401


def test_touch_rewrites_cookie_session() -> None:
    life = SessionSettings(idle_timeout=600.0)
    fleet = Fleet(settings(sessions=life))
    fleet[0].log_in()
    for _ in range(5):
        fleet.clock.now += 500
        response = fleet[0].get("/oauth2/auth")
        assert response.status == 202
        [line] = headers(response, b"set-cookie")
        assert b"Max-Age=600;" in line
        assert not headers(fleet[0].get("/oauth2/auth"), b"set-cookie")
    fleet.clock.now += 601
    assert fleet[0].get("/oauth2/auth").status == 401


# -- identities and keys


def test_session_identity_and_generation() -> None:
    one = Session(nonce=b"n" * 32, created_at=START)
    later = Session(nonce=b"n" * 32, created_at=START + 60)
    assert session_identity(one, b"a") == session_identity(later, b"b")
    assert session_generation(one, b"a") == session_generation(one, b"b")
    assert session_generation(one, b"a") != session_generation(later, b"a")
    # Sessions of oauth2-proxy may have no nonce.
    assert session_identity(Session(), b"a") != session_identity(Session(), b"b")


def test_sid_of_falls_back_to_id_token() -> None:
    token = "e30.eyJzaWQiOiJTMSJ9.e30"
    assert sid_of(Session(id_token=token)) == "S1"
    assert sid_of(Session(id_token=token, sid="S2")) == "S2"
    assert sid_of(Session()) == ""
    assert sid_of(Session(id_token="malformed")) == ""
    assert sid_of(Session(id_token="e30.eyJzaWQiOjF9.e30")) == ""


def test_key_hashes_delimit_parts() -> None:
    formats = formats_of()
    assert formats.key_hashes("sub", "ab", "c") == formats.key_hashes("sub", "ab", "c")
    assert formats.key_hashes("sub", "ab", "c") != formats.key_hashes("sub", "a", "bc")
    assert formats.key_hashes("sub", "a") != formats.key_hashes("suba")
