"""Algorithms, types and numbers of tokens: a token of another use is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.encoding import b64url
from authproxy_core.errors import TokenError
from authproxy_core.messages import Response
from authproxy_core.oidc.logout_token import LOGOUT_EVENT
from authproxy_core.oidc.token_types import ID_TOKEN, check_header_type
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import LogoutSettings, SessionSettings
from support.endpoints import ISSUER as ENDPOINTS_ISSUER
from support.endpoints import signed_text
from support.harness import (
    ISSUER,
    Harness,
    settings,
)
from support.openid import ALICE, openid

FORM = (b"content-type", b"application/x-www-form-urlencoded")


def harness_for(**changes: Any) -> Harness:
    """Return a harness that accepts bearer JWTs and logout tokens."""
    return Harness(
        settings(
            cookie={"refresh": 60.0},
            credentials=CredentialSettings(jwt_bearer_tokens=True),
            logout=LogoutSettings(back_channel=True),
            sessions=SessionSettings(shared=True, revocable=True),
            **changes,
        )
    )


def send_logout_token(harness: Harness, token: str) -> int:
    harness.body = b"logout_token=" + token.encode()
    target = "/oauth2/backchannel-logout"
    return harness.get(target, FORM, method=b"POST", jar={}).status


def bearer_status(harness: Harness, token: str) -> int:
    field = (b"authorization", b"Bearer " + token.encode())
    return harness.get("/oauth2/auth", field, jar={}).status


@pytest.mark.parametrize(
    ("configured", "status"), [((), 401), (("RS256",), 401), (("RS256", "ES256"), 202)]
)
def test_refreshed_id_token_of_another_algorithm_ends_session(
    configured: tuple[str, ...], status: int
) -> None:
    harness = harness_for(provider={"signing_algs": configured})
    harness.log_in()
    harness.config.signing_alg = "ES256"
    harness.clock.now += 61
    assert harness.get("/oauth2/auth").status == status
    assert (harness.events[-1].reason == "algorithm") is (status == 401)


def test_logout_token_with_critical_extension_rejected() -> None:
    harness = harness_for()
    harness.log_in()
    _, payload, signature = harness.idp.logout_token("alice").split(".")
    head = b64url(b'{"alg": "RS256", "crit": ["x"], "x": 1}').decode()
    assert send_logout_token(harness, f"{head}.{payload}.{signature}") == 400


@pytest.mark.parametrize(
    ("header_type", "id_token", "bearer", "logout"),
    [
        (None, 302, 202, 200),
        ("JWT", 302, 202, 200),
        ("application/jwt", 302, 202, 200),
        ("at+jwt", 500, 202, 400),
        ("logout+jwt", 500, 401, 200),
        ("application/logout+jwt", 500, 401, 200),
        ("secevent+jwt", 500, 401, 400),
        ("dpop+jwt", 500, 401, 400),
        ("application/x-unknown", 500, 401, 400),
        ("", 500, 401, 400),
    ],
)
def test_header_type_of_another_use_rejected(
    header_type: Any, id_token: int, bearer: int, logout: int
) -> None:
    harness = harness_for()
    harness.config.id_token_header = {"typ": header_type}
    assert harness.log_in().status == id_token
    changes = {"typ": header_type}
    assert bearer_status(harness, harness.token(changes)) == bearer
    claims = logout_claims(harness)
    token = harness.idp.tokens.keys.sign(claims, "RS256", changes)
    assert send_logout_token(harness, token) == logout


def logout_claims(harness: Harness, **changes: Any) -> dict[str, Any]:
    now = int(harness.clock.now)
    return {
        "iss": ISSUER,
        "sub": "alice",
        "aud": "authproxy",
        "iat": now,
        "exp": now + 60,
        "jti": "jti-1",
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        **changes,
    }


@pytest.mark.parametrize("value", [7, ["JWT"], {}, True])
def test_header_type_other_than_string_rejected(value: Any) -> None:
    with pytest.raises(TokenError) as rejected:
        check_header_type({"typ": value}, ID_TOKEN)
    assert rejected.value.reason == "type"


@pytest.mark.parametrize(
    ("claim", "id_token", "bearer", "logout"),
    [
        ("ID", 302, 202, 400),
        ("Bearer", 500, 202, 400),
        ("Logout", 500, 401, 200),
        ("Refresh", 500, 401, 400),
        ("Offline", 500, 401, 400),
        ("DPoP", 500, 401, 400),
        ("refresh", 500, 401, 400),
        ("employee", 302, 202, 200),  # another provider's own claim
        (7, 302, 202, 200),
    ],
)
def test_keycloak_type_claim_of_another_use_rejected(
    claim: Any, id_token: int, bearer: int, logout: int
) -> None:
    harness = harness_for()
    harness.config.id_token_claims = {"typ": claim}
    assert harness.log_in().status == id_token
    assert bearer_status(harness, harness.token(typ=claim)) == bearer
    claims = logout_claims(harness, typ=claim)
    token = harness.idp.tokens.keys.sign(claims, "RS256", {})
    assert send_logout_token(harness, token) == logout


TOO_LARGE = "1" + "0" * 400  # beyond all floats, but valid JSON


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [TOO_LARGE, "-" + TOO_LARGE, "1" + "0" * 5000])
def test_date_beyond_all_floats_rejected(name: str, value: str) -> None:
    idp = openid("oidc", core=BEARERS)
    claims = {**CLAIMS, "iss": ENDPOINTS_ISSUER}
    now = int(idp.harness.clock.now)
    dates = {"iat": str(now), "exp": str(now + 60)} | {name: value}
    token = signed_text({**claims, "aud": "web"}, dates)
    assert bearer_status(idp.harness, token) == 401
    claims |= {"jti": "1", "events": {LOGOUT_EVENT: {}}, "aud": "web"}
    assert send_logout_token(idp.harness, signed_text(claims, dates)) == 400


@pytest.mark.parametrize("value", ["-1e300", "-1e15", "-1", "0"])
def test_negative_expiry_is_expired(value: str) -> None:
    idp = openid("oidc", core=BEARERS)
    now = int(idp.harness.clock.now)
    claims = {**CLAIMS, "iss": ENDPOINTS_ISSUER, "aud": "web"}
    token = signed_text(claims, {"iat": str(now), "exp": value})
    assert bearer_status(idp.harness, token) == 401
    assert idp.harness.events[-1].reason == "expired"


def test_huge_integers_become_text() -> None:
    """In groups, audiences and the lifetime of a token response."""
    idp = openid("oidc", core=BEARERS, claims=ALICE)
    now = str(int(idp.harness.clock.now))
    numbers = {"iat": now, "exp": now + "0", "groups": "[1" + "0" * 30 + "]"}
    claims = {**CLAIMS, "iss": ENDPOINTS_ISSUER, "aud": "web"}
    assert bearer_status(idp.harness, signed_text(claims, numbers)) == 202
    audience = signed_text({"iss": ENDPOINTS_ISSUER}, {"aud": f"[{TOO_LARGE}]"})
    assert send_logout_token(idp.harness, audience) == 400
    params = idp.start_login()
    body = f"""{{"access_token": "a", "expires_in": {TOO_LARGE},
        "id_token": "{idp.id_token()}"}}""".encode()
    idp.responses[f"POST {ENDPOINTS_ISSUER}/token"] = Response(200, (), body)
    assert idp.finish(params).status == 302


CLAIMS = {"sub": "service-1", "email": "service@example.com"}
BEARERS = {
    "credentials": CredentialSettings(jwt_bearer_tokens=True),
    "logout": LogoutSettings(back_channel=True),
    "sessions": SessionSettings(shared=True, revocable=True),
}
