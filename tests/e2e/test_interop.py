"""oauth2-proxy and authproxy read each other's cookies."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from support.http import Client, Cookies
from support.keycloak import APP, Keycloak
from support.peers import AUTHPROXY, OAUTH2_PROXY, AuthServer
from support.programs import find

from .conftest import callback_url, log_in

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
PLAIN = APP.replace("https", "http")
OAUTH2_PROXY_FORMAT = {"OAUTH2_PROXY_COOKIE_FORMAT": "oauth2-proxy"}
COMPARED = (
    "gap-auth",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-preferred-username",
    "x-auth-request-groups",
    "authorization",
)


@pytest.fixture
def pair(start: Start) -> tuple[AuthServer, AuthServer]:
    """oauth2-proxy, and authproxy with the same cookie format."""
    return start(OAUTH2_PROXY), start(AUTHPROXY, environment=OAUTH2_PROXY_FORMAT)


def at(server: AuthServer, cookies: Cookies) -> Client:
    """Return a client with *cookies* that reaches *server*."""
    return Client({"app.example.com": server.port}, cookies)


@pytest.mark.parametrize(
    "order", [(0, 1), (1, 0)], ids=["from-oauth2-proxy", "from-authproxy"]
)
@pytest.mark.parametrize("user", ["lisan123", "bigrights"])
def test_session_valid_in_both_programs(
    pair: tuple[AuthServer, AuthServer], order: tuple[int, int], user: str
) -> None:
    writer, reader = pair[order[0]], pair[order[1]]
    cookies = Cookies()
    assert log_in(at(writer, cookies), PLAIN, user).status == 302
    written = at(writer, cookies).get(f"{PLAIN}/oauth2/auth")
    read = at(reader, cookies).get(f"{PLAIN}/oauth2/auth")
    assert (written.status, read.status) == (202, 202)
    for name in COMPARED:
        expected, got = written.header(name).split(","), read.header(name).split(",")
        assert sorted(expected) == sorted(got), name


def escapes_state() -> bool:
    """Return whether the installed oauth2-proxy escapes the redirect in the state."""
    program = find("oauth2-proxy")
    assert program is not None
    version = re.search(rb"oauth2-proxy/v7\tv(\d+)\.(\d+)\.(\d+)", program.read_bytes())
    assert version is not None
    return tuple(map(int, version.groups())) >= (7, 15, 6)


@pytest.mark.parametrize("encode", [False, True], ids=["plain", "encode_state"])
@pytest.mark.parametrize(
    "order", [(0, 1), (1, 0)], ids=["from-oauth2-proxy", "from-authproxy"]
)
def test_login_started_in_one_finishes_in_the_other(
    start: Start, order: tuple[int, int], encode: bool
) -> None:
    """LG47: both forms of the state, and encode_state."""
    environment = {"OAUTH2_PROXY_ENCODE_STATE": str(encode).lower()}
    pair = (
        start(OAUTH2_PROXY, environment=environment),
        start(AUTHPROXY, environment=OAUTH2_PROXY_FORMAT | environment),
    )
    first, second = pair[order[0]], pair[order[1]]
    for rd, target in (
        ("/deep%3Fx=1", "/deep?x=1"),
        ("/deep%3Fx=1%26y=/%2526z", "/deep?x=1&y=/%26z"),
        ("/a%2Bb", "/a+b"),
    ):
        cookies = Cookies()
        url = callback_url(at(first, cookies), PLAIN, "lisan123", rd)
        back = at(second, cookies).get(url.replace(APP, PLAIN, 1))
        if second is pair[0] and not encode and not escapes_state():
            target = "/"
        assert (back.status, back.header("location")) == (302, target)
    assert at(second, cookies).get(f"{PLAIN}/oauth2/auth").status == 202


def test_oauth2_proxy_format_read_by_default(start: Start, keycloak: Keycloak) -> None:
    oauth2_proxy, authproxy = start(OAUTH2_PROXY), start(AUTHPROXY)
    cookies = Cookies()
    log_in(at(oauth2_proxy, cookies), PLAIN, "lisan123")
    assert at(authproxy, cookies).get(f"{PLAIN}/oauth2/auth").status == 202


def test_sign_out_clears_cookies_of_both_programs(
    pair: tuple[AuthServer, AuthServer],
) -> None:
    cookies = Cookies()
    log_in(at(pair[0], cookies), PLAIN, "bigrights")
    assert cookies.named("_oauth2_proxy_1")
    assert at(pair[1], cookies).get(f"{PLAIN}/oauth2/sign_out").status == 302
    assert not cookies.named("_oauth2_proxy")
