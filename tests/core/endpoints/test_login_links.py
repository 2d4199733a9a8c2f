"""The 401 of the auth endpoint: a link to the login for browsers, text for programs."""

from __future__ import annotations

import html
from typing import Any

import pytest

from authproxy_core import Respond
from support.harness import Harness, header, headers, settings

GATEWAY = "10.0.0.1"
UNTRUSTED = "203.0.113.9"
TEXT = b"Unauthorized\n"
ACCEPT = (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8")
HOST = (b"x-forwarded-host", b"app.example.com")
URI = (b"x-forwarded-uri", b'/deep/"page"?x=1&y=2')
RD = "/deep/%22page%22%3Fx%3D1%26y%3D2"


def ask(*fields: Any, target: str = "/oauth2/auth", **changes: Any) -> Respond:
    """Return the response to an auth check with *fields*, behind a gateway."""
    peer = changes.pop("peer", GATEWAY)
    harness = Harness(
        settings(reverse_proxy=True, trusted_proxies=(GATEWAY,), **changes)
    )
    return harness.get(target, HOST, *fields, peer=peer)


def link(url: str) -> bytes:
    return f'<p>Unauthorized. <a href="{html.escape(url)}">Sign in</a></p>\n'.encode()


def test_auth_check_browser_gets_link_to_login() -> None:
    response = ask(ACCEPT, URI)
    assert response.status == 401
    assert (response.verdict, response.reason) == ("unauthenticated", "no_session")
    assert response.body == link(f"/oauth2/sign_in?rd={RD}")
    assert header(response, b"content-type") == b"text/html; charset=utf-8"
    assert header(response, b"cache-control") == b"no-store"


def test_auth_check_link_starts_login_without_provider_button() -> None:
    response = ask(ACCEPT, URI, skip_provider_button=True)
    assert response.body == link(f"/oauth2/start?rd={RD}")


def test_auth_check_link_without_original_uri() -> None:
    assert ask(ACCEPT).body == link("/oauth2/sign_in")
    assert ask(ACCEPT, URI, peer=UNTRUSTED).body == link("/oauth2/sign_in")


def test_auth_check_link_leads_to_host_of_callback() -> None:
    response = ask(ACCEPT, URI, redirect_url="https://auth.example.com/oauth2/callback")
    rd = f"https://app.example.com{RD}"
    assert response.body == link(f"https://auth.example.com/oauth2/sign_in?rd={rd}")


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ((URI,), {}),
        (((b"accept", b"*/*"), URI), {}),
        (((b"accept", b"application/json"), URI), {}),
        ((ACCEPT, (b"x-requested-with", b"XMLHttpRequest"), URI), {}),
        ((ACCEPT, (b"x-forwarded-method", b"POST"), URI), {}),
        ((ACCEPT, URI, (b"x-original-uri", b"/other")), {}),
        ((ACCEPT, URI), {"force_json_errors": True}),
    ],
)
def test_auth_check_program_gets_text(fields: Any, changes: dict[str, Any]) -> None:
    """Also if the original request is contradictory."""
    response = ask(*fields, **changes)
    assert (response.status, response.body) == (401, TEXT)
    assert response.reusable


def test_check_of_another_endpoint_has_no_link() -> None:
    harness = Harness()
    response = harness.proxy.check(harness.request("/app", ACCEPT))
    assert isinstance(response, Respond)
    assert (response.status, response.body) == (401, TEXT)


@pytest.mark.parametrize("accept", [ACCEPT, (b"accept", b"*/*")])
def test_auth_check_ended_session_cleared(accept: Any) -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.clock.now += 10**7
    response = harness.get("/oauth2/auth", accept)
    assert response.status == 401
    assert headers(response, b"set-cookie")
    assert (response.body == TEXT) is (accept is not ACCEPT)
