"""Several cookies of one name, which differ in Domain or Path.

A browser sends them all and does not tell them apart (RFC 6265 §5.4). The one with the
longest path, then the oldest one, comes first.
"""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import LoadAll, Respond, SessionSettings
from authproxy_core.messages import Forward, Request
from authproxy_core.sessions.cookies import (
    MAX_CANDIDATES,
    MAX_COOKIES,
    candidate_values,
)
from authproxy_core.settings.root import UpstreamSettings
from support.fleet import Fleet
from support.harness import Harness, header, headers, settings

NAME = b"_oauth2_proxy"
DOMAIN = ("example.com",)
formats = pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
stores = pytest.mark.parametrize("backend", ["cookie", "store"])


def fleet_of(form: str, backend: str, **changes: Any) -> Fleet:
    """Return one process that writes a session cookie with a Domain."""
    cookie = {"format": form, "domains": DOMAIN} | changes.pop("cookie", {})
    sessions = SessionSettings(shared=True, backend=backend)
    given = settings(cookie=cookie, sessions=sessions, **changes)
    return Fleet(given, size=1)


def cookies(*values: bytes, name: bytes = NAME) -> tuple[bytes, bytes]:
    """Return a Cookie field with several cookies of one name."""
    return b"cookie", b"; ".join(name + b"=" + value for value in values)


def status(fleet: Fleet, *values: bytes, target: str = "/oauth2/auth") -> int:
    return fleet[0].get(target, cookies(*values), jar={}).status


def deletions(response: Respond) -> list[bytes]:
    lines = headers(response, b"set-cookie")
    return [line for line in lines if b"Max-Age=0" in line]


# -- reading


@formats
@stores
def test_twin_session_valid_one_counts(form: str, backend: str) -> None:
    fleet = fleet_of(form, backend)
    fleet[0].log_in()
    session = fleet.harness.jar[NAME]
    assert status(fleet, session) == 202
    for invalid in (b"garbage", b"a|1|b", session[:-4]):
        assert status(fleet, invalid, session) == 202
        assert status(fleet, session, invalid) == 202
        assert status(fleet, invalid, invalid, session) == 202
        assert status(fleet, invalid, invalid) == 401


def test_session_in_parts_is_cached_by_its_joined_value() -> None:
    fleet = fleet_of("authproxy", "cookie")
    fleet[0].log_in()
    session, proxy = fleet.harness.jar[NAME], fleet[0].proxy
    parts = b"%b_0=%b; %b_1=%b" % (NAME, session[:20], NAME, session[20:])
    response = fleet[0].get("/oauth2/auth", (b"cookie", parts), jar={})
    assert response.status == 202
    assert proxy.session_cache_misses == 0  # the login has cached it


@formats
def test_twin_session_old_ticket_without_stored_session(form: str) -> None:
    fleet = fleet_of(form, "store")
    fleet[0].log_in()
    ended = fleet.harness.jar.pop(NAME)
    [key] = fleet.store.tickets()
    fleet.store.values.pop(key)
    fleet[0].log_in()
    session = fleet.harness.jar[NAME]
    assert status(fleet, ended, session) == 202
    assert status(fleet, session, ended) == 202
    assert status(fleet, ended) == 401


def test_twin_session_open_websocket_stays_valid() -> None:
    upstreams = (UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1"),)
    fleet = fleet_of("authproxy", "store", upstreams=upstreams)
    fleet[0].log_in()
    ended = fleet.harness.jar.pop(NAME)
    fleet.store.values.clear()
    fleet[0].log_in()
    field = cookies(ended, fleet.harness.jar[NAME])
    request = fleet.harness.request("/page", field, jar={})
    [forward] = fleet.together([(fleet[0], fleet[0].proxy.handle(request))])
    assert isinstance(forward, Forward)
    assert fleet[0].run(fleet[0].proxy.is_session_valid(request, forward))


@formats
def test_twin_session_newest_is_refreshed(form: str) -> None:
    """The refresh token of the older session may have been used."""
    fleet = fleet_of(form, "cookie", cookie={"refresh": 60.0})
    fleet[0].log_in()
    old = fleet.harness.jar.pop(NAME)
    fleet.clock.now += 30
    fleet[0].log_in("bob")
    new = fleet.harness.jar[NAME]
    fleet.clock.now += 70  # both are due
    response = fleet[0].get("/oauth2/auth", cookies(old, new), jar={})
    assert response.status == 202
    assert header(response, b"x-auth-request-email") == b"bob@example.com"
    assert any(b"Domain" not in line for line in deletions(response))


def test_candidate_values_parts_of_different_number() -> None:
    twins = [(b"n_0", b"a"), (b"n_1", b"b"), (b"n_0", b"c"), (b"n_1", b"d")]
    assert candidate_values(twins, b"n", 10) == [b"ab", b"cd"]
    assert candidate_values([*twins, (b"n_2", b"e")], b"n", 10) == [
        *(b"abe", b"ab"),
        *(b"cde", b"cd"),
    ]
    assert candidate_values([(b"n", b"w"), *twins], b"n", 10) == [b"w", b"ab", b"cd"]
    assert candidate_values(twins, b"n", 1) == [b"a", b"c"]
    assert candidate_values([(b"n_1", b"b")], b"n", 10) == []
    assert candidate_values([], b"n", 10) == []


def test_candidate_values_first_and_last_of_many() -> None:
    many = [(b"n", b"%d" % number) for number in range(1000)]
    many += [(b"n_0", b"p%d" % number) for number in range(1000)]
    values = candidate_values(many, b"n", 10)
    assert len(values) == MAX_CANDIDATES
    assert values[0] == b"0"
    assert values[-1] == b"p999"


def test_twin_session_attack_many_cookies_cost_little() -> None:
    fleet = fleet_of("authproxy", "store")
    fleet[0].log_in()
    session = fleet.harness.jar[NAME]
    misses = fleet[0].proxy._sessions.cache_misses
    flood = [b"%d" % number for number in range(MAX_COOKIES - 1)]
    assert status(fleet, *flood) == 401
    assert status(fleet, *flood, session) == 202
    assert fleet[0].proxy._sessions.cache_misses - misses <= 6 * MAX_CANDIDATES
    assert fleet.store.count(LoadAll) <= 3


# -- expiring


@formats
@stores
def test_login_expires_host_only_twin(form: str, backend: str) -> None:
    fleet = fleet_of(form, backend)
    fleet.harness.jar[NAME] = b"left-from-an-older-version"
    response = fleet[0].log_in()
    [deletion] = deletions_of_sessions(response)
    assert b"Domain" not in deletion
    # A first login, without a cookie, has nothing to expire.
    fleet.harness.jar.clear()
    assert not deletions_of_sessions(fleet[0].log_in())


def deletions_of_sessions(response: Respond) -> list[bytes]:
    return [line for line in deletions(response) if line.startswith(NAME + b"=")]


def test_login_expires_domain_twin_only_of_own_session() -> None:
    """Another instance with this cookie name may have set the cookie with a Domain."""
    harness = Harness()
    harness.log_in()
    domains = (b"Domain=app.example.com", b"Domain=example.com")
    lines = deletions_of_sessions(harness.log_in("bob"))
    assert [part for line in lines for part in line.split(b"; ") if b"Dom" in part] == [
        *domains
    ]
    harness.jar[NAME] = b"of-another-instance"
    assert not deletions_of_sessions(harness.log_in())


@stores
def test_sign_out_ends_both_twins(backend: str) -> None:
    fleet = fleet_of("authproxy", backend)
    fleet[0].log_in()
    alice = fleet.harness.jar.pop(NAME)
    fleet[0].log_in("bob")
    bob = fleet.harness.jar[NAME]
    response = fleet[0].get("/oauth2/sign_out", cookies(alice, bob), jar={})
    lines = deletions_of_sessions(response)
    assert {b"Domain=example.com" in line for line in lines} == {True, False}
    if backend == "store":
        assert status(fleet, alice) == status(fleet, bob) == 401


@pytest.mark.parametrize("host", ["127.0.0.1:4180", "localhost", "[::1]:4180"])
def test_twin_deletions_no_domain_for_addresses(host: str) -> None:
    harness = Harness(settings(cookie={"path": "/app"}))
    harness.log_in()
    older = harness.jar[NAME]
    harness.log_in()
    request = Request(
        b"GET",
        b"/oauth2/sign_out",
        ((b"host", host.encode()), cookies(older, harness.jar[NAME])),
        "10.0.0.1",
    )
    response = harness.run(harness.proxy.handle(request))
    lines = deletions(response)
    assert [b"Path=/app" in line for line in lines] == [False, True]
    assert not any(b"Domain" in line for line in lines)
