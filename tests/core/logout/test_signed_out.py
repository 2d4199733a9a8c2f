"""The page after sign-out."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from authproxy_core import PageSettings
from authproxy_core.settings.root import LogoutSettings
from support.harness import Harness, header, settings

PAGE = "/oauth2/signed_out"
SHOWN = LogoutSettings(shows_page=True)


def location_of_sign_out(target: str, **changes: Any) -> str:
    harness = Harness(settings(**changes))
    harness.log_in()
    return header(harness.get(target), b"location").decode()


@pytest.mark.parametrize(
    ("logout", "query", "location"),
    [
        (LogoutSettings(), "", "/"),  # as in oauth2-proxy
        (LogoutSettings(), f"?rd={PAGE}", PAGE),
        (LogoutSettings(), f"?rd={PAGE}?rd=/app", f"{PAGE}?rd=/app"),
        (LogoutSettings(), f"?rd={PAGE}/../sign_out", "/"),
        (SHOWN, "", PAGE),
        (SHOWN, "?rd=", PAGE),
        (SHOWN, "?rd=/bye", "/bye"),
        (SHOWN, "?rd=https://other.example/", "/"),
    ],
)
def test_sign_out_redirects_to_signed_out_page(
    logout: LogoutSettings, query: str, location: str
) -> None:
    assert location_of_sign_out(f"/oauth2/sign_out{query}", logout=logout) == location


def test_provider_redirects_to_signed_out_page() -> None:
    logout = LogoutSettings(shows_page=True, at_provider=True)
    location = location_of_sign_out("/oauth2/sign_out", logout=logout)
    [back] = parse_qs(urlsplit(location).query)["post_logout_redirect_uri"]
    assert back == f"https://app.example.com{PAGE}"


@pytest.mark.parametrize(
    ("language", "logout", "message"),
    [
        ("en", LogoutSettings(at_provider=True), "of this application.</p>"),
        ("en", SHOWN, "You may still be signed in at Keycloak; on a shared"),
        ("de", SHOWN, "Bei Keycloak sind Sie möglicherweise noch angemeldet"),
    ],
)
def test_signed_out_page_offers_another_sign_in(
    language: str, logout: LogoutSettings, message: str
) -> None:
    harness = Harness(settings(logout=logout))
    accepted = (b"accept-language", language.encode())
    page = harness.get(f"{PAGE}?rd=/app", accepted)
    text = page.body.decode()
    assert page.status == 200
    assert message in text
    assert re.findall(r'href="(/[^"]+)"', text) == ["/oauth2/sign_in?rd=%2Fapp"]
    assert b"no-store" in header(page, b"cache-control")
    other = harness.get(f"{PAGE}?rd=https://other.example/").body
    assert b"/oauth2/sign_in?rd=%2F" in other
    assert b"other.example" not in other


def test_signed_out_page_with_session_redirects_to_application() -> None:
    harness = Harness()
    harness.log_in()
    response = harness.get(f"{PAGE}?rd=/app")
    assert (response.status, header(response, b"location")) == (302, b"/app")


def test_login_does_not_end_at_signed_out_page() -> None:
    harness = Harness()
    response = harness.log_in(rd=PAGE)
    assert header(response, b"location") == b"/"


def test_custom_signed_out_template_has_texts_of_language() -> None:
    template = (
        '{{define "signed_out.html"}}{{.Language}}|{{.Title}}|{{.Texts.SignInAgain}}|'
        "{{.Redirect}}|{{.StatusCode}}{{end}}"
    )
    pages = PageSettings(signed_out_template=template)
    harness = Harness(settings(pages=pages, logout=SHOWN))
    page = harness.get(PAGE, (b"accept-language", b"fr"))
    assert page.body.decode() == "fr|Déconnecté|Se reconnecter|/|200"
