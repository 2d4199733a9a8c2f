"""Providers that differ from plain OpenID Connect, with documented responses."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x448
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import RSAKey

from authproxy_core import Secret, Session, SettingsError
from authproxy_core.errors import FetchError, TokenError
from authproxy_core.messages import Response
from authproxy_core.oidc.protocol import Tokens
from authproxy_core.providers.adapters.login_gov import LoginGov
from authproxy_core.settings.providers import (
    AllowRule,
    AzureSettings,
    EntraIdSettings,
    GitlabSettings,
    LoginGovSettings,
    LoginParameter,
)
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    Turns,
    discovery,
    field,
    form,
    json,
    jwks,
    private_pem,
    public_pem,
    query,
    signed,
    signing_key,
    status,
    weak_key,
)

ALICE = {
    "email": "alice@example.com",
    "email_verified": True,
    "preferred_username": "alice",
    "groups": ["staff"],
}


def openid(
    kind: str,
    responses: dict[str, Any] | None = None,
    *,
    issuer: str = ISSUER,
    claims: dict[str, Any] | None = None,
    document: dict[str, Any] | None = None,
    **more: Any,
) -> Endpoints:
    """Return endpoints of a provider with discovery at *issuer*."""
    found = {**discovery(issuer), **(document or {})}
    idp = Endpoints(
        kind,
        {
            f"GET {issuer}/.well-known/openid-configuration": found,
            f"GET {found['jwks_uri']}": jwks(),
            **(responses or {}),
        },
        claims={"iss": issuer, **(ALICE if claims is None else claims)},
        **{"issuer": issuer, **more},
    )
    idp.responses.setdefault(f"POST {found['token_endpoint']}", idp.tokens())
    return idp


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
    assert params["state"].endswith("%3A%2Fa")


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


# -- GitLab

GITLAB_USER = {
    "sub": SUBJECT,
    "nickname": "alice",
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["eng", "eng/core", "project:eng/secret"],
}


def project(level: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "archived": False,
        "permissions": {
            "project_access": {"access_level": level, "notification_level": 3},
            "group_access": None,
        },
        **more,
    }


def gitlab(
    responses: dict[str, Any] | None = None,
    *,
    user: Any = None,
    projects: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
    **more: Any,
) -> Endpoints:
    return openid(
        "gitlab",
        {
            f"GET {ISSUER}/oauth/userinfo": GITLAB_USER if user is None else user,
            **(responses or {}),
        },
        gitlab=GitlabSettings(groups=groups, projects=projects),
        **more,
    )


def test_gitlab_login_reads_identity() -> None:
    idp = gitlab()
    assert idp.log_in().status == 302
    assert idp.identity() == ("alice", "alice@example.com", "eng,eng/core", "alice")
    [asked] = idp.requests("profile")
    assert field(asked, b"authorization") == b"Bearer access-1"


def test_gitlab_userinfo_gaps_filled_from_id_token() -> None:
    idp = gitlab(user={"sub": SUBJECT, "email_verified": True})
    assert idp.log_in().status == 302
    assert idp.identity() == (SUBJECT, "alice@example.com", "staff", "alice")


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ({**GITLAB_USER, "email_verified": False}, "email_unverified"),
        ({"sub": SUBJECT, "email": "a@b.c"}, "email_unverified"),
        ([], "profile_invalid"),
        (status(500), "profile_failed"),
        (status(401), "validation"),
    ],
)
def test_gitlab_invalid_userinfo_fails_login(user: Any, reason: str) -> None:
    assert gitlab(user=json(user) if user == [] else user).failure() == reason


def test_gitlab_unverified_email_allowed_by_option() -> None:
    user = {**GITLAB_USER, "email_verified": False}
    assert gitlab(user=user, allow_unverified_email=True).log_in().status == 302


@pytest.mark.parametrize(
    ("project_", "demanded", "status_"),
    [
        (project(20), "eng/app", 302),
        (project(10), "eng/app", 403),
        (project(10), "eng/app=10", 302),
        (project(30), "eng/app=40", 403),
        (project(40, archived=True), "eng/app", 403),
        (project("40"), "eng/app", 403),
        (
            {
                "permissions": {
                    "project_access": None,
                    "group_access": {"access_level": 30},
                }
            },
            "eng/app",
            302,
        ),
        ({"permissions": {}}, "eng/app", 403),
        ({"permissions": []}, "eng/app", 403),
        ({}, "eng/app", 403),
        (json([]), "eng/app", 403),
        (Response(200, (), b"<html>"), "eng/app", 403),
        (status(404), "eng/app", 403),
        (status(403), "eng/app", 403),
        (status(503), "eng/app", 502),
    ],
)
def test_gitlab_project_restriction_by_access_level(
    project_: Any, demanded: str, status_: int
) -> None:
    url = f"GET {ISSUER}/api/v4/projects/eng%2Fapp"
    idp = gitlab({url: project_}, projects=(demanded,))
    assert idp.log_in().status == status_
    if status_ == 302:
        assert idp.identity()[2] == "eng,eng/core,project:eng/app"


@pytest.mark.parametrize(
    ("changes", "status_"),
    [
        ({"groups": ("eng/core",)}, 302),
        ({"groups": ("ops",)}, 403),
        ({"groups": ("eng",), "allowed_groups": ("ops",)}, 302),
        # oauth2-proxy allows all users in this case.
        ({"allowed_groups": ("ops",)}, 403),
        ({"allowed_groups": ("eng",)}, 302),
    ],
)
def test_gitlab_group_restriction(changes: dict[str, Any], status_: int) -> None:
    assert gitlab(**changes).log_in().status == status_


def test_gitlab_refresh_updates_session() -> None:
    idp = gitlab(cookie={"refresh": 60.0}, groups=("eng",))
    idp.log_in()
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens(
        access_token="access-2", nonce=None
    )
    assert idp.later(61).status == 202
    assert idp.identity()[0] == "alice"
    assert form(idp.requests("token")[-1])["refresh_token"] == "refresh-1"
    idp.claims["sub"] = "other"
    assert idp.later(61).status == 401


def test_gitlab_refresh_after_leaving_group_denied() -> None:
    idp = gitlab(cookie={"refresh": 60.0}, groups=("eng",))
    idp.log_in()
    idp.responses[f"GET {ISSUER}/oauth/userinfo"] = {**GITLAB_USER, "groups": []}
    assert idp.later(61).status == 403


# -- Entra ID

TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
ENTRA = f"https://login.microsoftonline.com/{TENANT}/v2.0"
GROUPS_URL = "GET https://graph.microsoft.com/v1.0/me/transitiveMemberOf"
OVERAGE = {
    "_claim_names": {"groups": "src1"},
    "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/…"}},
    "groups": None,
}


def entra(responses: dict[str, Any] | None = None, **more: Any) -> Endpoints:
    return openid("entra-id", responses, issuer=more.pop("issuer", ENTRA), **more)


def test_entra_login_reads_identity() -> None:
    idp = entra()
    params = idp.start_login()
    assert params["code_challenge_method"] == "S256"
    assert idp.finish(params).status == 302
    assert idp.identity() == (SUBJECT, "alice@example.com", "staff", "alice")


@pytest.mark.parametrize(
    ("tenants", "allowed"), [((), True), ((TENANT,), True), (("other",), False)]
)
def test_entra_tenant_restriction(tenants: tuple[str, ...], allowed: bool) -> None:
    idp = entra(entra_id=EntraIdSettings(allowed_tenants=tenants))
    response = idp.log_in()
    assert response.status == (302 if allowed else 403)
    if not allowed:
        assert b"organization does not have access" in response.body


@pytest.mark.parametrize(
    "issuer",
    [
        f"https://sts.windows.net/{TENANT}/",
        f"https://login.microsoftonline.com/{TENANT}/v2.0/",
        f"https://login.microsoftonline.com.evil.example/{TENANT}/v2.0",
        f"https://login.microsoftonline.com/a/{TENANT}/v2.0",
    ],
)
def test_entra_other_issuer_rejected(issuer: str) -> None:
    idp = entra(skip_issuer_verification=True)
    idp.claims["iss"] = issuer
    assert idp.failure() == "tenant"


def test_entra_multi_tenant_issuer_accepted() -> None:
    common = "https://login.microsoftonline.com/common/v2.0"
    document = {"issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"}
    idp = openid(
        "entra-id",
        issuer=common,
        document=document,
        skip_issuer_verification=True,
        entra_id=EntraIdSettings(allowed_tenants=(TENANT,)),
    )
    idp.claims["iss"] = ENTRA
    assert idp.log_in().status == 302


def test_entra_group_overage_read_from_graph() -> None:
    pages = Turns(
        {
            "value": [{"id": "g1"}, {"id": "g2"}, {"id": 7}, "x"],
            "@odata.nextLink": "https://graph.microsoft.com/v1.0/me/transitiveMemberOf?$skiptoken=2",
        },
        {"value": [{"id": "g2"}, {"id": "g3"}]},
    )
    responses = {GROUPS_URL: pages, f"GET {ENTRA}/userinfo": {"sub": SUBJECT}}
    idp = entra(responses, claims={**ALICE, **OVERAGE}, allowed_groups=("g3",))
    assert idp.log_in().status == 302
    assert idp.identity()[2] == "g1,g2,g3"
    first, second = idp.requests("groups")
    assert query(first) == {"$select": "id", "$top": "100"}
    assert query(second) == {"$skiptoken": "2"}
    assert field(first, b"consistencylevel") == b"eventual"
    assert field(first, b"authorization") == b"Bearer access-1"


@pytest.mark.parametrize(
    ("response", "with_rule", "without_rule"),
    [
        (status(403), "groups_failed", ""),
        (status(503), "groups_failed", "groups_failed"),
        (FetchError("timeout"), "provider_unreachable", "provider_unreachable"),
        (json([]), "groups_invalid", "groups_invalid"),
        (
            {"@odata.nextLink": "https://evil.example/"},
            "groups_invalid",
            "groups_invalid",
        ),
        (
            {
                "@odata.nextLink": "https://graph.microsoft.com/v1.0/me/transitiveMemberOf"
            },
            "groups_too_many",
            "groups_too_many",
        ),
    ],
)
def test_az17_az19_entra_graph_failure(
    response: Any, with_rule: str, without_rule: str
) -> None:
    responses = {GROUPS_URL: response, f"GET {ENTRA}/userinfo": {"sub": SUBJECT}}
    more: dict[str, Any] = {"claims": {**ALICE, **OVERAGE}}
    assert entra(responses, **more, allowed_groups=("g1",)).failure() == with_rule
    idp = entra(responses, **more)
    if without_rule:
        assert idp.failure() == without_rule
    else:
        assert idp.log_in().status == 302
        assert idp.identity()[2] == ""


def test_entra_federated_token_replaces_secret() -> None:
    reads: list[bytes] = [b"first\n", b"second\n"]
    idp = entra(
        client_secret=Secret(""),
        entra_id=EntraIdSettings(federated_token=lambda: reads.pop(0)),
        cookie={"refresh": 60.0},
    )
    assert idp.log_in().status == 302
    redeemed = form(idp.requests("token")[0])
    assert redeemed["client_assertion"] == "first"
    assert redeemed["client_assertion_type"] == (
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    )
    assert redeemed["client_id"] == "web"
    assert "client_secret" not in redeemed
    assert idp.later(61).status == 202
    refreshed = form(idp.requests("token")[1])
    assert refreshed["client_assertion"] == "second"
    assert refreshed["grant_type"] == "refresh_token"


def test_entra_unreadable_federated_token_fails_login() -> None:
    def read() -> bytes:
        raise FileNotFoundError("/var/run/secrets/token")

    idp = entra(entra_id=EntraIdSettings(federated_token=read))
    assert idp.failure() == "federated_token"


# -- Azure

GRAPH_ME = "GET https://graph.microsoft.com/v1.0/me"
V2 = {
    "authorization_endpoint": f"{ISSUER}/oauth2/v2.0/authorize",
    "token_endpoint": f"{ISSUER}/oauth2/v2.0/token",
}


def test_azure_login_reads_identity() -> None:
    idp = openid("azure", resource="https://graph.windows.net")
    params = idp.start_login()
    assert params["resource"] == "https://graph.windows.net"
    assert params["scope"] == "openid"
    assert idp.finish(params).status == 302
    assert idp.identity() == ("", "alice@example.com", "staff", "")
    redeemed = form(idp.requests("token")[0])
    assert redeemed["client_secret"] == "hush"
    assert redeemed["resource"] == "https://graph.windows.net"


def test_azure_version_2_endpoints() -> None:
    idp = openid(
        "azure",
        {GROUPS_URL: {"value": [{"id": "g1", "displayName": "One"}, {"id": "staff"}]}},
        document=V2,
        resource="ignored",
        scope="openid groups",
    )
    params = idp.start_login()
    assert "resource" not in params
    assert params["scope"] == "openid https://graph.microsoft.com/.default"
    assert idp.finish(params).status == 302
    assert idp.identity()[2] == "staff,g1"
    assert "resource" not in form(idp.requests("token")[0])
    [asked] = idp.requests("groups")
    assert query(asked) == {
        "$count": "true",
        "$filter": "securityEnabled eq true",
        "$select": "displayName,id",
    }


def test_azure_graph_group_field() -> None:
    idp = openid(
        "azure",
        {GROUPS_URL: {"value": [{"id": "g1", "mailNickname": "one"}, {"id": "g2"}]}},
        claims={**ALICE, "groups": None},
        document=V2,
        azure=AzureSettings(graph_group_field="mailNickname"),
    )
    assert idp.log_in().status == 302
    assert idp.identity()[2] == "one"
    [asked] = idp.requests("groups")
    assert query(asked)["$select"] == "displayName,id,mailNickname"


@pytest.mark.parametrize("response", [status(403), status(500), json([])])
def test_azure_graph_failure_fails_login(response: Any) -> None:
    assert openid("azure", {GROUPS_URL: response}, document=V2).failure()


@pytest.mark.parametrize(
    ("profile", "email"),
    [
        ({"mail": "a@b.c", "otherMails": ["x@b.c"]}, "a@b.c"),
        ({"mail": None, "otherMails": ["x@b.c", "y@b.c"]}, "x@b.c"),
        ({"otherMails": [], "userPrincipalName": "upn@b.c"}, "upn@b.c"),
        ({}, ""),
        (json([]), ""),
    ],
)
def test_azure_email_missing_read_from_graph(profile: Any, email: str) -> None:
    idp = openid("azure", {GRAPH_ME: profile}, claims={"groups": ["a"]})
    if email:
        assert idp.log_in().status == 302
        assert idp.identity()[1] == email
    else:
        assert idp.failure() == "email_missing"


def test_azure_without_discovery_uses_tenant_endpoints() -> None:
    tenant = "https://login.microsoftonline.com/contoso/oauth2"
    idp = Endpoints(
        "azure",
        {f"GET {ISSUER}/jwks": jwks()},
        claims=ALICE,
        issuer=ISSUER,
        skip_discovery=True,
        jwks_url=f"{ISSUER}/jwks",
        azure=AzureSettings(tenant="contoso"),
    )
    idp.responses[f"POST {tenant}/token"] = idp.tokens()
    assert idp.log_in().status == 302
    assert idp.location.startswith(f"{tenant}/authorize?")


def test_azure_refresh_updates_session() -> None:
    idp = openid("azure", cookie={"refresh": 60.0})
    idp.log_in()
    assert idp.later(61).status == 202
    assert form(idp.requests("token")[-1])["grant_type"] == "refresh_token"
    idp.claims["sub"] = "other"
    assert idp.later(61).status == 401


# -- login.gov

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
