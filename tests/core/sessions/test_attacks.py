"""Attacks on sessions in each backend and format; names start with catalog IDs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from authproxy_core import Load, LoadAll, Respond, Save, SessionSettings, Settings
from authproxy_core.encoding import b64url_decode, b64url_padded_decode
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.root import LogoutSettings, UpstreamSettings
from support.fleet import Fleet
from support.harness import (
    header,
    headers,
    keep_cookies,
    provider_settings,
    settings,
    with_changes,
)

NAME = b"_oauth2_proxy"
BACKENDS: dict[str, SessionSettings] = {
    "cookie": SessionSettings(shared=True),
    "revocable": SessionSettings(shared=True, revocable=True),
    "store": SessionSettings(shared=True, backend="store"),
}
FORMATS = ("authproxy", "oauth2-proxy")
KINDS = [f"{backend}-{form}" for backend in BACKENDS for form in FORMATS]
kinds = pytest.mark.parametrize("kind", KINDS)


def settings_of(kind: str, **changes: Any) -> Settings:
    backend, _, form = kind.partition("-")
    cookie = {"format": form} | changes.pop("cookie", {})
    return settings(cookie=cookie, sessions=BACKENDS[backend], **changes)


def fleet_of(kind: str, **changes: Any) -> Fleet:
    """Two processes, and a session of alice."""
    fleet = Fleet(settings_of(kind, **changes))
    fleet[0].log_in()
    return fleet


def statuses(fleet: Fleet, jar: dict[bytes, bytes]) -> set[int]:
    """Return the statuses of an auth check with these cookies in all processes."""
    return {
        process.get("/oauth2/auth", jar=dict(jar)).status for process in fleet.processes
    }


# -- the cookie


@kinds
def test_ck01_ck02_changed_cookie_rejected(kind: str) -> None:
    fleet = fleet_of(kind)
    value = fleet.harness.jar[NAME]
    step = max(1, len(value) // 60)
    for at in range(0, len(value), step):
        for other in {value[at] ^ 1, value[at] ^ 32} - {0, 10, 13, 34, 44, 59, 92}:
            forged = value[:at] + bytes([other]) + value[at + 1 :]
            assert statuses(fleet, {NAME: forged}) == {401}
        assert statuses(fleet, {NAME: value[:at]}) == {401}
    for longer in (value + b"A", value + b"=", value + value, b"A" + value):
        assert statuses(fleet, {NAME: longer}) == {401}


@kinds
@given(data=st.binary(min_size=1, max_size=200))
@budget(max_examples=8, deadline=None)
def test_ck10_ck13_any_bytes_rejected_without_store_access(
    kind: str, data: bytes
) -> None:
    fleet = Fleet(settings_of(kind), size=1)
    seen = len(fleet.store.seen)
    assert statuses(fleet, {NAME: data}) == {401}
    assert len(fleet.store.seen) == seen  # the store is not read


@kinds
def test_ck05_cookie_of_another_name_rejected(kind: str) -> None:
    fleet = fleet_of(kind)
    other = fleet.join(settings_of(kind, cookie={"name": "_other"}))
    jar = {b"_other": fleet.harness.jar[NAME]}
    assert other.get("/oauth2/auth", jar=jar).status == 401


@kinds
def test_ck17_first_valid_cookie_of_duplicate_name_wins(kind: str) -> None:
    fleet = fleet_of(kind)
    bob: dict[bytes, bytes] = {}
    fleet[0].log_in("bob", bob)
    alice = fleet.harness.jar[NAME]
    for first, second, user in (
        (b"garbage", bob[NAME], b"bob@example.com"),
        (alice, b"garbage", b"alice@example.com"),
        (alice, alice[:-3], b"alice@example.com"),
    ):
        line = NAME + b"=" + first + b"; " + NAME + b"=" + second
        request = fleet.harness.request("/oauth2/auth", (b"cookie", line), jar={})
        [response] = fleet.together([(fleet[0], fleet[0].proxy.handle(request))])
        assert header(response, b"x-auth-request-email") == user


@kinds
def test_ck23_cookie_planted_before_login_not_reused(kind: str) -> None:
    fleet = fleet_of(kind)
    planted = dict(fleet.harness.jar)
    fleet[1].log_in("bob")
    assert fleet.harness.jar[NAME] != planted[NAME]
    response = fleet[0].get("/oauth2/auth")
    assert header(response, b"x-auth-request-email") == b"bob@example.com"
    if not kind.startswith("cookie"):  # cookies are not revocable
        assert statuses(fleet, planted) == {401}


@kinds
def test_ck25_lo08_copied_cookie_after_sign_out(kind: str) -> None:
    fleet = fleet_of(kind)
    assert statuses(fleet, fleet.harness.jar) == {202}
    copy = dict(fleet.harness.jar)
    assert fleet[0].get("/oauth2/sign_out").status == 302
    assert not fleet.harness.jar
    expected = {202} if kind.startswith("cookie") else {401}
    assert statuses(fleet, copy) == expected


@kinds
def test_ck26_invalid_cookie_cleared(kind: str) -> None:
    fleet = fleet_of(kind)
    for target in ("/oauth2/auth", "/oauth2/userinfo", "/page", "/oauth2/sign_in"):
        jar = {NAME: fleet.harness.jar[NAME][:-3]}
        response = fleet[0].get(target, jar=jar)
        assert response.status in (200, 401, 403)
        assert headers(response, b"set-cookie")
        assert not jar


@kinds
def test_ck32_sealed_values_have_distinct_nonces(kind: str) -> None:
    fleet = fleet_of(kind)
    seen = set()
    for _ in range(20):
        fleet[0].log_in(jar={})
    for effect in fleet.store.seen:
        if type(effect) is Save and effect.key.startswith("_oauth2_proxy-"):
            data = effect.value
            seen.add((b64url_decode(data) or data)[:25])
    formats = fleet[0].proxy._sessions.formats
    entry = fleet[0].proxy._sessions.parse_cookie(fleet.harness.jar[NAME])
    assert entry is not None
    for _ in range(200):
        value = (
            formats.write_session(entry.session)
            if entry.ticket is None
            else formats.seal_stored(entry.ticket, entry.session)
        )
        plain = b64url_decode(value) or b64url_padded_decode(value.split(b"|")[0])
        start = (plain or value)[:25]
        assert start not in seen
        seen.add(start)


# -- the store


@kinds
@pytest.mark.parametrize("broken", [Load, LoadAll, Save])
def test_st10_store_errors_fail_closed(kind: str, broken: type) -> None:
    fleet = fleet_of(kind, cookie={"refresh": 60.0})
    fleet.store.failing = lambda effect: type(effect) is broken
    jars = [dict(fleet.harness.jar), {NAME: b"garbage"}, {}]
    for elapsed in (0, 61):
        fleet.clock.now += elapsed
        for target in ("/oauth2/auth", "/oauth2/userinfo", "/page"):
            valid, *invalid = [
                fleet[1].get(target, jar=dict(jar)).status for jar in jars
            ]
            assert all(status in (401, 403) for status in invalid)
            assert valid in (202, 200, 404, 503)
            if valid == 503:
                assert not kind.startswith("cookie")


@kinds
def test_st10_invalid_stored_value_rejected(kind: str) -> None:
    fleet = fleet_of(kind)
    for key in list(fleet.store.values):
        for junk in (b"", b"\xff" * 40, b"null", b"{}", b"0"):
            fleet.store.put(key, junk, 600)
            expected = {401} if kind.startswith("store") else {202}
            assert statuses(fleet, fleet.harness.jar) == expected


@kinds
def test_st02_st05_swapped_store_values_change_no_identity(
    kind: str,
) -> None:
    """Each value is saved under each other key; no user gets another identity."""
    fleet = fleet_of(kind, cookie={"refresh": 60.0})
    bob: dict[bytes, bytes] = {}
    fleet[0].log_in("bob", bob)
    fleet.clock.now += 61
    old = dict(fleet.harness.jar)
    fleet[0].get("/oauth2/auth", jar=bob)  # saves a refresh result
    fleet[0].get("/oauth2/auth")
    values = {key: value for key, (value, _) in fleet.store.values.items()}
    for key in values:
        for other in values.values():
            fleet.store.put(key, other, 600)
            for jar, name in ((old, b"alice"), (bob, b"bob")):
                response = fleet[1].get("/oauth2/auth", jar=dict(jar))
                if response.status == 202:
                    email = header(response, b"x-auth-request-email")
                    assert email == name + b"@example.com"
            fleet.store.put(key, values[key], 600)


# -- refresh


@kinds
def test_az26_stolen_refresh_token_ends_session(kind: str) -> None:
    """The provider detects the reuse of a copied refresh token and ends the session."""
    fleet = fleet_of(kind, cookie={"refresh": 60.0})
    entry = fleet[0].proxy._sessions.parse_cookie(fleet.harness.jar[NAME])
    if entry is not None and entry.ticket is not None:
        entry = fleet[0].run(fleet[0].proxy._sessions.load(entry))
    assert entry is not None
    thief = fleet.harness.proxy._providers["keycloak"].refresh(entry.session)
    assert fleet.harness.run(thief).refresh_token
    fleet.clock.now += 61
    copy = dict(fleet.harness.jar)
    response = fleet[0].get("/oauth2/auth")
    assert response.status == 401
    assert not fleet.harness.jar
    assert fleet.harness.events[-1].kind == "session_ended"
    assert statuses(fleet, copy) == {401}


@kinds
def test_az20_user_disabled_at_provider_rejected_on_refresh(
    kind: str,
) -> None:
    fleet = fleet_of(kind, cookie={"refresh": 60.0})
    fleet.idp.revoke("alice")
    assert statuses(fleet, fleet.harness.jar) == {202}
    fleet.clock.now += 61
    assert statuses(fleet, fleet.harness.jar) == {401}


@kinds
def test_az34_groups_checked_at_every_use(kind: str) -> None:
    fleet = fleet_of(kind)
    assert statuses(fleet, fleet.harness.jar) == {202}
    strict = provider_settings(allowed_groups=("no-such-group",))
    later = fleet.join(with_changes(fleet.harness.settings, providers=(strict,)))
    assert later.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 403
    assert later.get("/oauth2/auth", jar=dict(fleet.harness.jar)).status == 403


@kinds
def test_az28_az29_responses_of_concurrent_users_not_mixed(kind: str) -> None:
    """Concurrent requests of several users through all caches keep their identities."""
    fleet = fleet_of(kind, cookie={"refresh": 60.0})
    jars: dict[bytes, dict[bytes, bytes]] = {}
    for number in range(6):
        jar: dict[bytes, bytes] = {}
        fleet[number % 2].log_in(("alice", "bob")[number % 2], jar)
        jars[b"%d" % number] = jar
    for _ in range(3):
        work = [
            (
                process,
                process.proxy.handle(fleet.harness.request("/oauth2/auth", jar=jar)),
            )
            for jar in jars.values()
            for process in fleet.processes
        ]
        responses = fleet.together(work)
        for index, response in enumerate(responses):
            assert isinstance(response, Respond)
            expected = (b"alice", b"bob")[(index // 2) % 2] + b"@example.com"
            assert header(response, b"x-auth-request-email") == expected
            keep_cookies(jars[b"%d" % (index // 2)], response)
        fleet.clock.now += 61


# -- sign-out


@kinds
def test_lo07_sign_out_twice_or_without_session(kind: str) -> None:
    fleet = fleet_of(kind)
    valid = dict(fleet.harness.jar)
    for jar in (valid, dict(valid), {}, {NAME: b"garbage"}, {NAME: valid[NAME][:-1]}):
        for process in fleet.processes:
            response = process.get("/oauth2/sign_out", jar=dict(jar))
            assert response.status == 302
            cleared = headers(response, b"set-cookie")
            assert any(line.startswith(NAME + b"=;") for line in cleared)


@kinds
def test_lo02_sign_in_page_keeps_session(kind: str) -> None:
    fleet = fleet_of(kind)
    assert fleet[0].get("/oauth2/sign_in").status == 200
    assert fleet[0].get("/oauth2/start").status == 302
    assert statuses(fleet, fleet.harness.jar) == {202}


@kinds
def test_lo01_cross_site_sign_out_rejected(kind: str) -> None:
    fleet = fleet_of(kind)
    fields = ((b"sec-fetch-site", b"cross-site"), (b"sec-fetch-mode", b"no-cors"))
    request = fleet.harness.request("/oauth2/sign_out", *fields)
    [response] = fleet.together([(fleet[0], fleet[0].proxy.handle(request))])
    assert response.status == 403
    assert statuses(fleet, fleet.harness.jar) == {202}


def test_lo23_back_channel_without_revocation_rejected_at_start() -> None:
    with pytest.raises(Exception, match="backchannel_logout"):
        Fleet(settings(logout=LogoutSettings(back_channel=True)))


@kinds
def test_lo25_session_responses_not_cacheable(kind: str) -> None:
    fleet = fleet_of(kind)
    for target in ("/oauth2/userinfo", "/oauth2/sign_out", "/oauth2/sign_in"):
        response = fleet[0].get(target)
        assert b"no-store" in header(response, b"cache-control")


@kinds
def test_public_path_needs_no_store(kind: str) -> None:
    """Without the store, public paths are forwarded; all others return 503."""
    public = AuthBypassSettings(skip_auth_routes=("GET=^/public/",))
    upstream = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1")
    fleet = fleet_of(kind, auth_bypass=public, upstreams=(upstream,))
    fleet.store.away = True
    needs_store = not kind.startswith("cookie")
    for target, closed in (("/public/logo", False), ("/private", needs_store)):
        request = fleet.harness.request(target)
        [decision] = fleet.together([(fleet[0], fleet[0].proxy.handle(request))])
        assert isinstance(decision, Respond) == closed
        if closed:
            assert decision.status == 503
            assert not headers(decision, b"set-cookie")
        elif needs_store:
            assert not decision.user
    uri = (b"x-forwarded-uri", b"/public/logo")
    trusted = with_changes(fleet.harness.settings, reverse_proxy=True)
    gateway = fleet.join(trusted)
    for field, expected in ((uri, 202), ((uri[0], b"/private"), 503)):
        request = fleet.harness.request("/oauth2/auth", field, peer="127.0.0.1")
        [response] = fleet.together([(gateway, gateway.proxy.handle(request))])
        assert response.status == (expected if needs_store else 202)
