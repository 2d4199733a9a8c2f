"""Login states: long redirect targets, oauth2-proxy's states, twins, form_post."""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import lz4.block
import msgspec
import pytest

from authproxy_core import Respond
from authproxy_core.encoding import b64url_decode
from authproxy_core.login.state import MAX_CLEARED_LOGINS
from authproxy_core.sessions.sealing import Sealer
from support.harness import (
    SECRET,
    Harness,
    event_reasons,
    header,
    headers,
    settings,
    target_of,
)

OAUTH2_PROXY = {"format": "oauth2-proxy"}
formats = pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
# rd in a query, the target, the escaped target in the state of 7.15.6
TARGETS = [
    ("/deep?x=1%26y=/%2526z", "/deep?x=1&y=/%26z", "%2Fdeep%3Fx%3D1%26y%3D%2F%2526z"),
    ("/a%2Bb", "/a+b", "%2Fa%2Bb"),
    ("/a+b", "/a b", "%2Fa+b"),
    ("/x%25zz", "/x%zz", "%2Fx%25zz"),
    ("/~a-b_c.d", "/~a-b_c.d", "%2F~a-b_c.d"),
    ("/%C3%A9", "/\u00e9", "%2F%C3%A9"),
]


def state_of(url: str) -> str:
    [state] = parse_qs(urlsplit(url).query)["state"]
    return state


def long_target(size: int) -> str:
    """Return a target that hardly compresses."""
    letters = random.Random(3).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size)
    return ("/deep?q=" + "".join(letters))[:size]


def finish_with(harness: Harness, url: str, state: str) -> Respond:
    """Return the response of the callback with another ``state``."""
    target = urlsplit(harness.idp.log_in(url, "alice"))
    code = parse_qs(target.query)["code"][0]
    iss = parse_qs(target.query).get("iss", [""])[0]
    query = "".join(f"%{byte:02x}" for byte in state.encode())
    return harness.get(f"{target.path}?code={code}&iss={iss}&state={query}")


# -- states of oauth2-proxy


@pytest.mark.parametrize(("rd", "target", "escaped"), TARGETS)
def test_state_escaped_as_7_15_6(rd: str, target: str, escaped: str) -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    url = harness.start_login(rd)
    assert state_of(url).partition(":")[2] == escaped
    location = header(harness.finish_login(url), b"location")
    assert location == target.replace(" ", "%20").replace("\u00e9", "%c3%a9").encode()


@pytest.mark.parametrize(("rd", "target", "escaped"), TARGETS)
def test_state_of_7_15_4_taken_as_it_is(rd: str, target: str, escaped: str) -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    url = harness.start_login(rd)
    old = state_of(url).partition(":")[0] + ":" + target
    location = header(finish_with(harness, url, old), b"location")
    assert location == target.replace(" ", "%20").replace("\u00e9", "%c3%a9").encode()


@pytest.mark.parametrize(("rd", "target", "escaped"), TARGETS)
def test_state_encoded_not_escaped(rd: str, target: str, escaped: str) -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY, encode_state=True))
    url = harness.start_login(rd)
    decoded = b64url_decode(state_of(url).encode())
    assert decoded is not None
    assert decoded.decode().partition(":")[2] == target
    assert harness.finish_login(url).status == 302


@pytest.mark.parametrize("rd", ["%zz", "%2", "%", "%ff%fe", "a%2Fb%"])
def test_state_bad_escape_rejected(rd: str) -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    url = harness.start_login("/deep")
    response = finish_with(harness, url, state_of(url).partition(":")[0] + ":" + rd)
    assert response.status == 403
    assert not harness.idp.count("token")


@pytest.mark.parametrize(
    "rd", ["%2F%2Fevil.example", "https%3A%2F%2Fevil.example%2F", "%2F%5Cevil.example"]
)
def test_or_state_unescaped_target_validated(rd: str) -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    url = harness.start_login("/deep")
    response = finish_with(harness, url, state_of(url).partition(":")[0] + ":" + rd)
    assert header(response, b"location") == b"/"


def test_state_that_ends_like_the_restart_mark() -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    assert header(harness.log_in(rd="/x.again"), b"location") == b"/x.again"


# -- deep links


@pytest.mark.parametrize(
    "compressed",
    [
        b"\x05\0\0\0",  # no block of LZ4
        b"\xff\xff\xff\x7f\0",  # declares 2 GiB
        lz4.block.compress(b"\xff"),  # not UTF-8
    ],
)
def test_deep_link_sealed_but_malformed_is_a_lost_login(compressed: bytes) -> None:
    harness = Harness()
    url = harness.start_login()
    [name] = harness.jar
    login = (b"s" * 32, b"n" * 32, "", "keycloak", "", "", False, None)
    harness.jar[name] = Sealer((SECRET,)).seal(
        b"login:" + name,
        msgspec.msgpack.encode((login, compressed)),
        issued_at=harness.clock.now,
        nonce=bytes(12),
    )
    response = harness.finish_login(url)
    assert event_reasons(response) == ["login_state_lost"]


@formats
@pytest.mark.parametrize("size", [100, 1_023, 1_024, 2_401, 8_192, 16_384])
def test_deep_link_kept_whole(form: str, size: int) -> None:
    harness = Harness(settings(cookie={"format": form}))
    rd = long_target(size)
    assert header(harness.log_in(rd=rd), b"location").decode() == rd
    assert [*harness.jar] == [b"_oauth2_proxy"]  # all parts are cleared


def test_deep_link_that_compresses_needs_one_cookie() -> None:
    harness = Harness()
    harness.start_login("/kibana?_g=" + "(filters:!(),range:now-15m)" * 300)
    assert len(harness.jar) == 1


@formats
@pytest.mark.parametrize("target", ["/oauth2/start", "/oauth2/sign_in"])
def test_deep_link_too_long_is_told(form: str, target: str) -> None:
    harness = Harness(settings(cookie={"format": form}))
    response = harness.get(f"{target}?rd={long_target(16_385)}")
    assert response.status == 414
    assert b"Address too long" in response.body
    assert [event.reason for event in response.events] == ["target_too_long"]
    assert not harness.jar


def test_deep_link_too_long_for_escaped_state_is_told() -> None:
    harness = Harness(settings(cookie=OAUTH2_PROXY))
    response = harness.get("/oauth2/start?rd=/?" + "%26" * 8_000)
    assert response.status == 414
    assert [event.reason for event in response.events] == ["target_too_long"]


def test_deep_link_page_too_long_without_session_is_told(harness: Harness) -> None:
    response = harness.get(long_target(16_385))
    assert response.status == 414
    assert harness.get(long_target(16_384)).status == 403


def test_deep_link_parts_are_cleared_beyond_slots() -> None:
    harness = Harness(settings(cookie={"csrf_slots": 2}))
    for _ in range(4):
        harness.start_login(long_target(9_000))
        harness.clock.now += 1
    names = {name.partition(b"_csrf")[0] for name in harness.jar}
    assert len(names) == 2
    assert len(harness.jar) > 2


def test_flood_of_login_cookies_is_cleared_in_portions(harness: Harness) -> None:
    """The response to a client that sends many login cookies stays short."""
    names = [b"_oauth2_proxy_%08d_csrf" % number for number in range(100)]
    response = harness.get("/oauth2/start?rd=/", jar=dict.fromkeys(names, b"x"))
    assert response.status == 302
    written = [value for name, value in response.headers if name == b"set-cookie"]
    assert sum(b"Max-Age=0" in value for value in written) == MAX_CLEARED_LOGINS


def test_deep_link_parts_are_not_forwarded(harness: Harness) -> None:
    harness.start_login(long_target(9_000))
    assert len(harness.jar) > 1
    assert all(map(harness.proxy._sessions.is_session_cookie, harness.jar))


# -- twins


@formats
@pytest.mark.parametrize("per_request", [True, False])
def test_twin_login_cookie_every_one_is_tried(form: str, per_request: bool) -> None:
    cookie: dict[str, Any] = {
        "format": form,
        "csrf_per_request": per_request,
        "domains": ("example.com",),
    }
    harness = Harness(settings(cookie=cookie))
    harness.start_login("/old")
    old = dict(harness.jar)
    harness.jar.clear()
    url = harness.start_login("/deep")
    [(name, value)] = harness.jar.items()
    target = target_of(harness.idp.log_in(url, "alice"))
    twins = [name + b"=garbage", *(name + b"=" + text for text in old.values())]
    line = b"; ".join([*twins, name + b"=" + value])
    response = harness.get(target, (b"cookie", line), jar={})
    assert header(response, b"location") == b"/deep"
    cleared = [
        line
        for line in headers(response, b"set-cookie")
        if line.startswith(name) and b"Max-Age=0" in line
    ]
    assert [b"Domain=example.com" in line for line in cleared] == [False, True]


# -- form_post


def test_form_post_login_cookie_sent_across_sites() -> None:
    given = settings(provider={"response_mode": "form_post"})
    response = Harness(given).get("/oauth2/start")
    [line] = headers(response, b"set-cookie")
    assert line.endswith(b"; HttpOnly; Secure; SameSite=None")


def test_form_post_configured_samesite_counts() -> None:
    given = settings(
        cookie={"csrf_samesite": "lax"}, provider={"response_mode": "form_post"}
    )
    [line] = headers(Harness(given).get("/oauth2/start"), b"set-cookie")
    assert line.endswith(b"; SameSite=Lax")
