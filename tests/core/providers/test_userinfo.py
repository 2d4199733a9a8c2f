"""Signed userinfo: a JWT that the provider's keys verify (OIDC Core §5.3.2)."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core.messages import Response
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    Turns,
    jwks,
    signed,
    signed_text,
    status,
)
from support.openid import openid

JWT = ((b"content-type", b"application/jwt;charset=UTF-8"),)
USERINFO = {
    "sub": SUBJECT,
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["staff"],
    "preferred_username": "alice",
}


def with_userinfo(response: Any, kind: str = "oidc", **changes: Any) -> Endpoints:
    """Return a provider whose ID tokens have no email address."""
    url = f"GET {ISSUER}/userinfo"
    return openid(kind, {url: response}, claims={}, **changes)


def signed_response(name: str = "one", **claims: Any) -> Response:
    values = {**USERINFO, **claims}
    token = signed({key: it for key, it in values.items() if it is not None}, name)
    return Response(200, JWT, token.encode() + b"\n")


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"iss": ISSUER, "aud": "web"},
        {"aud": ["other", "web"]},
        {"exp": 4_000_000_000},
    ],
)
def test_signed_userinfo_read(claims: dict[str, Any]) -> None:
    idp = with_userinfo(signed_response(**claims))
    assert idp.log_in().status == 302
    assert idp.identity() == (SUBJECT, "alice@example.com", "staff", "alice")


def test_signed_userinfo_of_cidaas_read() -> None:
    groups = [{"groupId": "g", "roles": ["admin"]}]
    idp = with_userinfo(signed_response(groups=groups), "cidaas")
    assert idp.log_in().status == 302
    assert idp.identity()[2] == "g:admin"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.example"}, "userinfo_invalid"),
        ({"iss": None, "aud": "other"}, "userinfo_invalid"),
        ({"aud": []}, "userinfo_invalid"),
        ({"exp": 1}, "userinfo_invalid"),
        ({"exp": "never"}, "userinfo_invalid"),
        ({"typ": "Refresh"}, "userinfo_invalid"),
        ({"typ": "Bearer"}, "userinfo_invalid"),
        ({"sub": "other"}, "userinfo_subject"),
        ({"sub": None}, "userinfo_subject"),
    ],
)
def test_signed_userinfo_of_other_claims_rejected(
    claims: dict[str, Any], reason: str
) -> None:
    assert with_userinfo(signed_response(**claims)).failure() == reason


@pytest.mark.parametrize(
    "body",
    [b"{}", b"a.b.c", b"a.b.c.d.e", b"\xff.x.y", b"eyJhbGciOiJub25lIn0.e30."],
)
def test_malformed_signed_userinfo_rejected(body: bytes) -> None:
    idp = with_userinfo(Response(200, JWT, body))
    response = idp.log_in()
    assert response.status == 500
    assert response.events[0].reason == "userinfo_invalid"
    assert "skip_claims_from_profile_url" in response.events[0].detail


def test_signed_userinfo_with_foreign_signature_rejected() -> None:
    head, payload, _ = signed(USERINFO).split(".")
    other = signed({**USERINFO, "sub": "x"}).rsplit(".", 1)[1]
    forged = Response(200, JWT, f"{head}.{payload}.{other}".encode())
    assert with_userinfo(forged).failure() == "userinfo_invalid"
    assert with_userinfo(signed_response("two")).failure() == "userinfo_invalid"


def test_signed_userinfo_algorithm_must_be_configured_one() -> None:
    idp = with_userinfo(signed_response(), signing_algs=("RS256",))
    assert idp.log_in().status == 302
    token = signed_text({**USERINFO}, {}, alg="RS512")
    response = Response(200, JWT, token.encode())
    assert with_userinfo(response).log_in().status == 302
    configured = with_userinfo(response, signing_algs=("RS256",))
    assert configured.failure() == "userinfo_invalid"


def test_signed_userinfo_with_rotated_key_fetches_keys() -> None:
    idp = with_userinfo(signed_response("two"))
    both = {"keys": [*jwks()["keys"], *jwks("two")["keys"]]}
    idp.responses[f"GET {ISSUER}/jwks"] = both
    assert idp.log_in().status == 302


def test_failed_signed_userinfo_names_status() -> None:
    idp = with_userinfo(status(403, *JWT))
    response = idp.log_in()
    assert response.events[0].reason == "userinfo_failed"
    assert "403" in response.events[0].detail


@pytest.mark.parametrize(
    ("challenge", "reason"),
    [
        (
            b'Bearer realm="x", error="insufficient_scope", '
            b'error_description="Missing openid scope"',
            "'insufficient_scope': 'Missing openid scope'",
        ),
        (b'Bearer error="invalid_token"', "(error 'invalid_token')"),
        (
            b'Bearer error="<b>", error_description="access-1 \t\x1b[31m"',
            "'invalid error code': '... ?[31m'",
        ),
        (b'Bearer error_description="no code"', "expected 200; "),
        (b"Bearer", "expected 200; "),
    ],
)
def test_failed_userinfo_names_status_and_reason(challenge: bytes, reason: str) -> None:
    idp = with_userinfo(status(401, (b"www-authenticate", challenge)))
    [event] = idp.log_in().events
    assert event.reason == "userinfo_failed"
    assert "got status 401" in event.detail
    assert reason in event.detail
    assert "skip_claims_from_profile_url" in event.detail
    assert "access-1" not in event.detail


def test_invalid_signed_userinfo_at_refresh_keeps_session() -> None:
    responses = Turns(signed_response(), signed_response("two"), signed_response())
    idp = with_userinfo(responses, cookie={"refresh": 60.0})
    assert idp.log_in().status == 302
    assert idp.later(61).status == 202
    assert idp.harness.events[-1].reason == "userinfo_invalid"
