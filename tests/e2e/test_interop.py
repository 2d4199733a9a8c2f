"""oauth2-proxy and authproxy read each other's cookies."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.http import Client, Cookies
from support.keycloak import APP, Keycloak
from support.peers import AUTHPROXY, OAUTH2_PROXY, AuthServer

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


@pytest.mark.parametrize(
    "order", [(0, 1), (1, 0)], ids=["from-oauth2-proxy", "from-authproxy"]
)
def test_login_started_in_one_finishes_in_the_other(
    pair: tuple[AuthServer, AuthServer], order: tuple[int, int]
) -> None:
    first, second = pair[order[0]], pair[order[1]]
    cookies = Cookies()
    url = callback_url(at(first, cookies), PLAIN, "lisan123", "/deep%3Fx=1")
    back = at(second, cookies).get(url.replace(APP, PLAIN, 1))
    assert (back.status, back.header("location")) == (302, "/deep?x=1")
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
