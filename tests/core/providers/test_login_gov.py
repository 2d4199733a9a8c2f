"""login.gov: client assertion, userinfo and levels of assurance."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.jwk import RSAKey

from authproxy_core import Secret, Session, SettingsError
from authproxy_core.errors import TokenError
from authproxy_core.oidc.protocol import Tokens
from authproxy_core.providers.adapters.login_gov import LoginGov
from authproxy_core.settings.providers import (
    LoginGovSettings,
    LoginParameter,
)
from support.endpoints import (
    SUBJECT,
    Endpoints,
    form,
    jwks,
    private_pem,
    signing_key,
    status,
    weak_key,
)

SANDBOX = "https://secure.login.gov"
LOGIN_GOV_USER = {"sub": SUBJECT, "email": "alice@example.com", "email_verified": True}
PRIVATE_KEY = RSAKey.generate_key(2048)
PEM = Secret(PRIVATE_KEY.as_pem(private=True))


def login_gov(responses: dict[str, Any] | None = None, **more: Any) -> Endpoints:
    idp = Endpoints(
        "login.gov",
        {
            f"GET {SANDBOX}/api/openid_connect/certs": jwks(),
            f"GET {SANDBOX}/api/openid_connect/userinfo": LOGIN_GOV_USER,
            **(responses or {}),
        },
        claims={"iss": f"{SANDBOX}/", "acr": "x"},
        **{
            "login_gov": LoginGovSettings(jwt_key=PEM),
            "client_secret": Secret(""),
            **more,
        },
    )
    idp.responses.setdefault(
        f"POST {SANDBOX}/api/openid_connect/token", idp.tokens(refresh_token=None)
    )
    return idp


def test_login_gov_login_reads_identity() -> None:
    idp = login_gov()
    params = idp.start_login()
    assert params["acr_values"] == "http://idmanagement.gov/ns/assurance/loa/1"
    assert params["scope"] == "email openid"
    assert params["nonce"]
    assert idp.location.startswith(f"{SANDBOX}/openid_connect/authorize?")
    assert idp.finish(params).status == 302
    assert idp.identity() == ("", "alice@example.com", "", "")
    redeemed = form(idp.requests("token")[0])
    assert set(redeemed) == {
        "grant_type",
        "code",
        "client_assertion",
        "client_assertion_type",
    }
    made = jws.deserialize_compact(redeemed["client_assertion"], PRIVATE_KEY)
    assert made.headers()["alg"] == "RS256"
    claims = orjson.loads(made.payload)
    assert claims.pop("jti")
    assert claims == {
        "iss": "web",
        "sub": "web",
        "aud": [f"{SANDBOX}/api/openid_connect/token"],
        "exp": int(idp.harness.clock()) + 300,
    }


def test_login_gov_assertion_and_nonce_unique_per_login() -> None:
    idp = login_gov()
    first = idp.start_login()["nonce"]
    assert idp.start_login()["nonce"] != first


def test_login_gov_acr_values_configured() -> None:
    idp = login_gov(login_parameters=(LoginParameter("acr_values", ("ial2",)),))
    assert idp.start_login()["acr_values"] == "ial2"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({**LOGIN_GOV_USER, "email_verified": False}, "email_unverified"),
        ({"sub": SUBJECT, "email": "a@b.c"}, "email_unverified"),
        ({"sub": SUBJECT, "email_verified": True}, "email_missing"),
        ({**LOGIN_GOV_USER, "sub": "other"}, "userinfo_subject"),
        (status(401), "validation"),
        (status(500), "userinfo_failed"),
    ],
)
def test_login_gov_unverified_email_fails_login(response: Any, reason: str) -> None:
    url = f"GET {SANDBOX}/api/openid_connect/userinfo"
    assert login_gov({url: response}).failure() == reason


def test_login_gov_unverified_email_allowed_by_option() -> None:
    responses = {
        f"GET {SANDBOX}/api/openid_connect/userinfo": {"sub": SUBJECT, "email": "a@b.c"}
    }
    assert login_gov(responses, allow_unverified_email=True).log_in().status == 302


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": "other"}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"iss": "https://evil.example/"}, "issuer"),
        ({"aud": "other"}, "audience"),
    ],
)
def test_login_gov_invalid_id_token_fails_login(
    changes: dict[str, Any], reason: str
) -> None:
    idp = login_gov()
    idp.claims.update(changes)
    assert idp.failure() == reason


def test_login_gov_sandbox_issuer() -> None:
    host = "https://idp.int.identitysandbox.gov"
    idp = Endpoints(
        "login.gov",
        {f"GET {host}/certs": jwks(), f"GET {host}/userinfo": LOGIN_GOV_USER},
        claims={"iss": f"{host}/"},
        login_gov=LoginGovSettings(jwt_key=PEM, pubjwk_url=f"{host}/certs"),
        login_url=f"{host}/authorize",
        redeem_url=f"{host}/token",
        profile_url=f"{host}/userinfo",
        validate_url=f"{host}/userinfo",
    )
    idp.responses[f"POST {host}/token"] = idp.tokens()
    assert idp.log_in().status == 302
    idp.claims["iss"] = f"{SANDBOX}/"
    idp.harness.jar.clear()
    assert idp.failure() == "issuer"


def test_login_gov_session_ends_when_userinfo_rejects_token() -> None:
    url = f"GET {SANDBOX}/api/openid_connect/userinfo"
    idp = login_gov(cookie={"refresh": 60.0})
    idp.log_in()
    idp.asked.clear()
    assert idp.later(61).status == 202
    assert [fetch.purpose for fetch in idp.asked] == ["userinfo"]
    idp.responses[url] = status(503)
    assert idp.later(61).status == 202
    idp.responses[url] = status(401)
    assert idp.later(61).status == 401


def test_login_gov_changed_email_ends_session() -> None:
    idp = login_gov(cookie={"refresh": 60.0})
    idp.log_in()
    url = f"GET {SANDBOX}/api/openid_connect/userinfo"
    idp.responses[url] = {**LOGIN_GOV_USER, "email": "other@example.com"}
    assert idp.later(61).status == 401


def test_login_gov_refresh_without_id_token_rejected() -> None:
    [configured] = login_gov().harness.settings.providers
    provider = LoginGov(configured, clock=lambda: 0.0)
    with pytest.raises(TokenError, match="no ID token"):
        next(provider.apply_refresh(Session(access_token="a"), Tokens("a")))


@pytest.mark.parametrize(
    "pem",
    [
        b"no pem",
        signing_key().as_pem(private=False),
        private_pem(weak_key()),
        private_pem(ec.generate_private_key(ec.SECP256R1())),
        private_pem(rsa.generate_private_key(65537, 2048), b"password"),
    ],
)
def test_login_gov_invalid_key_rejected_at_startup(pem: bytes) -> None:
    with pytest.raises(SettingsError) as caught:
        login_gov(login_gov=LoginGovSettings(jwt_key=Secret(pem)))
    [problem] = caught.value.problems
    assert problem.startswith("jwt_key: expected a private RSA key")
