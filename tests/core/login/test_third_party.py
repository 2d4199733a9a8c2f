"""Logins that a third party starts (OIDC Core §4)."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest

from authproxy_core import ProviderSettings, Secret
from authproxy_core.login.third_party import MAX_HINT_LENGTH
from authproxy_core.settings.providers import AllowRule, LoginParameter
from support.endpoints import Endpoints, discovery, jwks
from support.harness import ISSUER, Harness, event_reasons, header, settings
from support.openid import ALICE

FORM = (b"content-type", b"application/x-www-form-urlencoded")
HINT = "alice@example.com"
ISSUERS = {name: f"https://{name}.example.com" for name in ("one", "two")}


def parameters(harness: Harness, method: bytes = b"GET", **form: str) -> dict[str, str]:
    """Return the parameters of the authorization request for a start request."""
    harness.body = urlencode(form).encode() if method == b"POST" else b""
    query = "" if method == b"POST" else f"?{urlencode(form)}"
    response = harness.get(f"/oauth2/start{query}", FORM, method=method)
    assert response.status == 302, response
    url = urlsplit(header(response, b"location").decode())
    return {**dict(parse_qsl(url.query)), "at": f"{url.scheme}://{url.netloc}"}


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_third_party_login_passes_hint_and_returns_to_target(
    harness: Harness, method: bytes
) -> None:
    harness.body = urlencode(
        form := {"iss": ISSUER, "login_hint": HINT, "target_link_uri": "/deep?x=1"}
    ).encode()
    query = "" if method == b"POST" else f"?{urlencode(form)}"
    response = harness.get(f"/oauth2/start{query}", FORM, method=method)
    location = header(response, b"location").decode()
    assert dict(parse_qsl(urlsplit(location).query))["login_hint"] == HINT
    back = harness.finish_login(location)
    assert header(back, b"location") == b"/deep?x=1"


@pytest.mark.parametrize(
    ("target", "end"),
    [
        ("https://app.example.com/x", b"/x"),
        ("https://evil.example/x", b"/"),
        ("//evil.example", b"/"),
        ("javascript:alert(1)", b"/"),
        ("/oauth2/sign_out", b"/"),
        ("", b"/"),
    ],
)
def test_third_party_target_checked_like_rd(
    harness: Harness, target: str, end: bytes
) -> None:
    """LG43: a foreign target becomes the root."""
    query = urlencode({"iss": ISSUER, "target_link_uri": target})
    response = harness.get(f"/oauth2/start?{query}")
    back = harness.finish_login(header(response, b"location").decode())
    assert header(back, b"location") == end


def test_third_party_target_yields_to_rd(harness: Harness) -> None:
    response = harness.get(f"/oauth2/start?iss={ISSUER}&target_link_uri=/a&rd=/b")
    back = harness.finish_login(header(response, b"location").decode())
    assert header(back, b"location") == b"/b"


@pytest.mark.parametrize(
    "issuer",
    ["", "x", ISSUER + "/", ISSUER.upper(), "https://evil.example", "<b>" * 500],
)
def test_third_party_login_with_other_issuer_rejected(
    harness: Harness, issuer: str
) -> None:
    """LG43: before a login starts."""
    response = harness.get(f"/oauth2/start?iss={quote(issuer)}")
    assert response.status == 400
    assert event_reasons(response) == ["third_party"]
    assert b"does not name an identity provider" in response.body
    assert b"<b>" not in response.body
    assert len(response.events[0].detail) < 500
    assert not harness.jar


def test_third_party_issuer_twice_rejected(harness: Harness) -> None:
    assert harness.get(f"/oauth2/start?iss={ISSUER}&iss={ISSUER}").status == 400


@pytest.mark.parametrize("hint", ["x" * (MAX_HINT_LENGTH + 1), "a\nb", "a\0"])
def test_third_party_hint_of_other_form_rejected(harness: Harness, hint: str) -> None:
    response = harness.get(f"/oauth2/start?iss={ISSUER}&login_hint={quote(hint)}")
    assert response.status == 400
    assert "login_hint" in response.events[0].detail


def test_hint_without_issuer_not_passed_on(harness: Harness) -> None:
    assert "login_hint" not in parameters(harness, login_hint=HINT)
    assert "login_hint" not in parameters(harness, iss=ISSUER)


def test_hint_that_configuration_allows_passed_on_without_issuer() -> None:
    allowed = LoginParameter("login_hint", (), (AllowRule("^a", is_pattern=True),))
    harness = Harness(settings(provider={"login_parameters": (allowed,)}))
    assert parameters(harness, login_hint=HINT)["login_hint"] == HINT
    assert parameters(harness, iss=ISSUER, login_hint="bob")["login_hint"] == "bob"


@pytest.mark.parametrize("kind", [b"text/plain", b"application/json", b""])
def test_posted_body_of_other_type_is_no_form(harness: Harness, kind: bytes) -> None:
    harness.body = f"iss=https://evil.example&login_hint={HINT}&rd=/x".encode()
    field = (b"content-type", kind)
    response = harness.get("/oauth2/start", field, method=b"POST")
    back = harness.finish_login(header(response, b"location").decode())
    assert header(back, b"location") == b"/"


# -- several providers


def two_providers(**hosts: tuple[str, ...]) -> Endpoints:
    """Return the providers "one" and "two"; *hosts* binds them."""
    responses: dict[str, Any] = {}
    for issuer in ISSUERS.values():
        responses[f"GET {issuer}/.well-known/openid-configuration"] = discovery(issuer)
        responses[f"GET {issuer}/jwks"] = jwks()
    providers = tuple(
        ProviderSettings(
            id=name,
            type="oidc",
            client_id="web",
            client_secret=Secret("hush"),
            issuer=issuer,
            hosts=hosts.get(name, ()),
        )
        for name, issuer in ISSUERS.items()
    )
    return Endpoints("oidc", responses, claims=ALICE, core={"providers": providers})


@pytest.mark.parametrize("name", ["one", "two"])
def test_third_party_issuer_selects_provider(name: str) -> None:
    harness = two_providers().harness
    assert parameters(harness, iss=ISSUERS[name])["at"] == ISSUERS[name]
    sent = parameters(harness, iss=ISSUERS[name], provider=name)
    assert sent["at"] == ISSUERS[name]


def test_third_party_issuer_of_other_provider_than_named_rejected() -> None:
    harness = two_providers().harness
    query = urlencode({"iss": ISSUERS["one"], "provider": "two"})
    assert harness.get(f"/oauth2/start?{query}").status == 400


def test_third_party_provider_must_be_offered_on_host() -> None:
    harness = two_providers(two=("two.test",)).harness
    query = urlencode({"iss": ISSUERS["two"]})
    assert harness.get(f"/oauth2/start?{query}").status == 400
    on_host = harness.get(f"/oauth2/start?{query}", (b"host", b"two.test"))
    assert on_host.status == 302


def test_third_party_login_before_discovery_uses_configured_issuer() -> None:
    harness = Harness(ready=False)
    assert parameters(harness, iss=ISSUER, login_hint=HINT)["login_hint"] == HINT
