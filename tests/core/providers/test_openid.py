"""OpenID Connect options, ADFS and cidaas."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authproxy_core import SettingsError
from authproxy_core.settings.providers import (
    AllowRule,
    GitlabSettings,
    LoginParameter,
)
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    public_pem,
    signed,
    signing_key,
    status,
    weak_key,
)
from support.openid import ALICE, openid

# -- plain OpenID Connect


@pytest.mark.parametrize(
    ("kind", "changes", "scope"),
    [
        ("oidc", {}, "openid email profile"),
        ("oidc", {"allowed_groups": ("a",)}, "openid email profile groups"),
        ("oidc", {"allowed_groups": ("a",), "scope": "openid"}, "openid"),
        ("keycloak-oidc", {"allowed_groups": ("role:a",)}, "openid email profile"),
        ("entra-id", {"allowed_groups": ("a",)}, "openid email profile groups"),
        ("adfs", {"allowed_groups": ("a",)}, "openid email profile"),
        ("gitlab", {"allowed_groups": ("a",)}, "openid email"),
        (
            "gitlab",
            {"gitlab": GitlabSettings(projects=("a/b",)), "scope": "openid"},
            "openid read_api",
        ),
        ("cidaas", {}, "openid email profile roles groups"),
        ("azure", {}, "openid"),
    ],
)
def test_scope_by_provider_type(kind: str, changes: dict[str, Any], scope: str) -> None:
    assert openid(kind, **changes).start_login()["scope"] == scope


def test_requests_have_purposes() -> None:
    idp = openid("oidc", ready=False)
    idp.harness.run(idp.harness.proxy.warm_up())
    idp.responses[f"GET {ISSUER}/userinfo"] = {"sub": SUBJECT}
    idp.claims = {"email": "alice@example.com", "iss": ISSUER}
    assert idp.log_in().status == 302
    purposes = [fetch.purpose for fetch in idp.asked]
    assert purposes == ["discovery", "jwks", "token", "userinfo"]


def test_login_parameter_from_request_needs_matching_rule() -> None:
    idp = openid(
        "oidc",
        login_parameters=(
            LoginParameter("fixed", ("f",)),
            LoginParameter("prompt", ("login", "consent"), (AllowRule("none"),)),
            LoginParameter("hint", (), (AllowRule("^[a-z]+@example[.]com$", True),)),
            LoginParameter("nonce", (), (AllowRule("x"),)),
        ),
    )
    params = idp.start_login(
        "/oauth2/start?prompt=none&hint=a@example.com&fixed=g&nonce=x"
    )
    assert (params["prompt"], params["hint"], params["fixed"]) == (
        "none",
        "a@example.com",
        "f",
    )
    assert params["nonce"] != "x"
    params = idp.start_login("/oauth2/start?prompt=x&hint=a@example.org&scope=x")
    assert "prompt=login&prompt=consent".replace("prompt=login&", "") in idp.location
    assert "hint" not in params
    assert params["scope"] == "openid email profile"


def test_additional_claims_stored_in_session() -> None:
    idp = openid(
        "oidc",
        claims={**ALICE, "department": "R&D", "other": 1},
        additional_claims=("department",),
    )
    idp.log_in()
    response = idp.harness.get("/oauth2/userinfo")
    document = orjson.loads(response.body)
    assert document["additionalClaims"] == {"department": "R&D"}


def test_public_key_files_verify_tokens_without_fetch() -> None:
    pem = signing_key().as_pem(private=False).decode()
    idp = Endpoints(
        "oidc",
        {},
        claims=ALICE,
        issuer=ISSUER,
        skip_discovery=True,
        public_keys=(pem,),
        login_url=f"{ISSUER}/authorize",
        redeem_url=f"{ISSUER}/token",
    )
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens()
    assert idp.harness.proxy.ready
    assert idp.log_in().status == 302
    other = signed({**idp.claims, "iss": ISSUER}, "two")
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens(id_token=other)
    idp.harness.jar.clear()
    assert idp.failure() == "signature"
    assert idp.requests("jwks") == []


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no pem",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        public_pem(weak_key().public_key()),
        public_pem(ec.generate_private_key(ec.SECP192R1()).public_key()),
        x448.X448PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode(),
    ],
)
def test_invalid_public_key_rejected_at_startup(pem: str) -> None:
    good = signing_key().as_pem(private=False).decode()
    with pytest.raises(SettingsError) as caught:
        Endpoints(
            "oidc",
            {},
            issuer=ISSUER,
            skip_discovery=True,
            public_keys=(good, pem),
            login_url=f"{ISSUER}/authorize",
            redeem_url=f"{ISSUER}/token",
        )
    [problem] = caught.value.problems
    assert problem.startswith("oidc_public_key_files: expected public keys in PEM")


def test_token_response_with_expires_on_sets_expiry() -> None:
    idp = openid("azure", cookie={"refresh": 60.0})
    later = str(int(idp.harness.clock()) + 100)
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens(
        expires_in=None, expires_on=later, refresh_token=None
    )
    idp.log_in()
    assert idp.later(99).status == 202
    assert idp.later(2).status == 401


# -- ADFS


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        ({"resource": "https://app"}, "https://app/openid email profile"),
        ({"resource": "https://app/"}, "https://app/openid email profile"),
        (
            {"resource": "https://app", "scope": "https://app/openid"},
            "https://app/openid",
        ),
        ({"skip_scope": True}, None),
    ],
)
def test_adfs_scope_with_resource(changes: dict[str, Any], scope: str | None) -> None:
    assert openid("adfs", **changes).start_login().get("scope") == scope


def test_adfs_state_encoded_twice() -> None:
    idp = openid("adfs", cookie={"format": "oauth2-proxy"})
    params = idp.start_login("/oauth2/start?rd=/a")
    assert params["state"].endswith("%3A%252Fa")


def test_adfs_upn_replaces_missing_email() -> None:
    claims = {"upn": "alice@corp.example.com", "groups": [], "preferred_username": "a"}
    more = {"responses": {f"GET {ISSUER}/userinfo": {"sub": SUBJECT}}}
    idp = openid("adfs", claims=claims, **more)
    assert idp.log_in().status == 302
    assert idp.identity()[1] == "alice@corp.example.com"
    assert openid("adfs", claims={**claims, "upn": None}, **more).failure() == (
        "email_missing"
    )


def test_adfs_email_claim_preferred_to_upn() -> None:
    idp = openid("adfs", claims={**ALICE, "upn": "other@example.com"})
    assert idp.log_in().status == 302
    assert idp.identity()[1] == "alice@example.com"


def test_adfs_upn_after_refresh() -> None:
    claims = {"upn": "alice@corp.example.com", "groups": []}
    idp = openid("adfs", claims=claims, document={"userinfo_endpoint": ""})
    assert idp.log_in().status == 302


# -- cidaas

CIDAAS_USER = {
    "sub": SUBJECT,
    "email": "alice@example.com",
    "groups": [
        {"groupId": "STAFF", "roles": ["USER", "", 7]},
        {"groupId": "cidaas", "roles": ["ADMIN"]},
        {"groupId": "EMPTY", "roles": None},
        {"roles": ["LOST"]},
        "text",
    ],
    "roles": ["USER", None],
}


def test_cidaas_groups_read_from_userinfo() -> None:
    idp = openid(
        "cidaas",
        {f"GET {ISSUER}/userinfo": CIDAAS_USER},
        claims={"email": None, "groups": ["forged"], "roles": ["forged"]},
    )
    assert idp.log_in().status == 302
    assert idp.identity()[1:3] == ("alice@example.com", "STAFF:USER,cidaas:USER")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (status(500), "userinfo_failed"),
        ({**CIDAAS_USER, "sub": "other"}, "userinfo_subject"),
        ({"sub": SUBJECT}, "email_missing"),
    ],
)
def test_cidaas_userinfo_failure_fails_login(response: Any, reason: str) -> None:
    responses = {f"GET {ISSUER}/userinfo": response}
    assert openid("cidaas", responses, claims={}).failure() == reason


def test_cidaas_without_userinfo_endpoint_has_no_groups() -> None:
    idp = openid("cidaas", document={"userinfo_endpoint": ""})
    assert idp.log_in().status == 302
    assert idp.identity()[2] == ""
