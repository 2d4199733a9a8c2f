"""Entra ID and Azure AD: tenants, groups of Graph, federated tokens."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy_core import Secret
from authproxy_core.errors import FetchError
from authproxy_core.settings.providers import (
    AzureSettings,
    EntraIdSettings,
)
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    Turns,
    field,
    form,
    json,
    jwks,
    query,
    status,
)
from support.openid import ALICE, openid

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


@pytest.mark.parametrize(
    ("issuer", "tid", "allowed"),
    [
        (f"https://login.microsoftonline.us/{TENANT}/v2.0", TENANT, True),
        (f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0", TENANT, True),
        (f"https://sts.windows.net/{TENANT}/", TENANT, True),
        (f"https://contoso.b2clogin.com/tfp/{TENANT}/policy/v2.0/", TENANT, True),
        (ENTRA, TENANT, True),
        (ENTRA, None, True),
        (ENTRA, "", True),
        # The claims name different tenants.
        (ENTRA, "other", False),
        (ENTRA.replace(TENANT, "other"), TENANT, False),
        ("https://login.microsoftonline.us/other/v2.0", TENANT, False),
        ("https://sts.windows.net/other/", TENANT, False),
        # The tenant is not in the list.
        ("https://login.microsoftonline.us/other/v2.0", "other", False),
        # No tenant.
        (f"https://login.microsoftonline.us/{TENANT}/v2.0", None, False),
        (f"https://login.microsoftonline.us/{TENANT}/v2.0", [TENANT], False),
    ],
)
def test_entra_tenant_is_tid_and_agrees_with_issuer(
    issuer: str, tid: Any, allowed: bool
) -> None:
    """AZ41: both claims count."""
    idp = entra(
        skip_issuer_verification=True,
        entra_id=EntraIdSettings(allowed_tenants=(TENANT,)),
    )
    idp.claims |= {"iss": issuer, "tid": tid}
    response = idp.log_in()
    assert response.status == (302 if allowed else 403)
    if not allowed:
        assert response.events[0].reason == "tenant"


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
    ("response", "reason"),
    [
        (status(403), "groups_failed"),
        (status(503), "groups_failed"),
        (FetchError("timeout"), "provider_unreachable"),
        (json([]), "groups_invalid"),
        ({"@odata.nextLink": "https://evil.example/"}, "groups_invalid"),
        (
            {
                "@odata.nextLink": "https://graph.microsoft.com/v1.0/me/transitiveMemberOf"
            },
            "groups_too_many",
        ),
    ],
)
def test_az17_az19_entra_graph_failure_fails_login(response: Any, reason: str) -> None:
    responses = {GROUPS_URL: response, f"GET {ENTRA}/userinfo": {"sub": SUBJECT}}
    more: dict[str, Any] = {"claims": {**ALICE, **OVERAGE}}
    assert entra(responses, **more, allowed_groups=("g1",)).failure() == reason
    assert entra(responses, **more).failure() == reason


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
