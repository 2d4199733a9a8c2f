"""Keycloak's lightweight access tokens, which contain no roles."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from support.keycloak import (
    CLIENT_SECRET,
    REALM,
    Keycloak,
    audience_mapper,
    client_settings,
)
from support.peers import AuthServer
from support.processes import wait_for

from .conftest import log_in
from .test_providers import PLAIN, at, groups

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
LIGHTWEIGHT = "lightweight"
ROLES = {
    "realm_access.roles": "oidc-usermodel-realm-role-mapper",
    "resource_access.${client_id}.roles": "oidc-usermodel-client-role-mapper",
}


def role_mapper(claim: str, target: str) -> dict[str, Any]:
    """Return a mapper of roles to *target*, a claim toggle of Keycloak."""
    return {
        "name": f"{claim} in {target}",
        "protocol": "openid-connect",
        "protocolMapper": ROLES[claim],
        "config": {
            "multivalued": "true",
            "claim.name": claim,
            "jsonType.label": "String",
            target: "true",
        },
    }


@pytest.fixture
def client_path(keycloak: Keycloak) -> Iterator[str]:
    """A client with lightweight access tokens, as a path of the admin API."""
    client = client_settings(LIGHTWEIGHT, audience_mapper(LIGHTWEIGHT))
    client["attributes"]["client.use.lightweight.access.token.enabled"] = "true"
    keycloak.admin("POST", f"/{REALM}/clients", client)
    path = f"/{REALM}/clients/{keycloak.client_uuid(LIGHTWEIGHT)}"
    [scope] = [
        one["id"]
        for one in keycloak.admin("GET", f"/{REALM}/client-scopes").json
        if one["name"] == "groups"
    ]
    keycloak.admin("PUT", f"{path}/default-client-scopes/{scope}")
    yield path
    keycloak.admin("DELETE", path)


def environment(**more: str) -> Mapping[str, str]:
    return {
        "OAUTH2_PROXY_CLIENT_ID": LIGHTWEIGHT,
        "OAUTH2_PROXY_CLIENT_SECRET": CLIENT_SECRET,
        "OAUTH2_PROXY_COOKIE_REFRESH": "2s",
        **more,
    }


def test_roles_missing_in_lightweight_token_explained(
    start: Start, client_path: str
) -> None:
    server = start(environment=environment())
    client = at(server)
    assert log_in(client, PLAIN, "lisan123").status == 302
    assert groups(client.get(f"{PLAIN}/oauth2/auth")) == ["admin", "test-group"]
    wait_for(lambda: "[roles_missing]" in server.process.log(), "the notice")
    strict = start(environment=environment(OAUTH2_PROXY_ALLOWED_ROLES="staff-role"))
    assert log_in(at(strict), PLAIN, "lisan123").status == 403
    wait_for(lambda: "[login_denied]" in strict.process.log(), "the reason")
    [line] = [it for it in strict.process.log().splitlines() if "[login_denied]" in it]
    assert "lightweight access tokens" in line
    assert "Add to ID token: On" in line


@pytest.mark.parametrize("target", ["id.token.claim", "lightweight.claim"])
def test_roles_of_id_token_or_lightweight_token_count(
    start: Start, keycloak: Keycloak, client_path: str, target: str
) -> None:
    """As the explanation in the log says."""
    for claim in ROLES:
        mapper = role_mapper(claim, target)
        keycloak.admin("POST", f"{client_path}/protocol-mappers/models", mapper)
    roles = "OAUTH2_PROXY_ALLOWED_ROLES"
    server = start(environment=environment(**{roles: "staff-role"}))
    client = at(server)
    assert log_in(client, PLAIN, "lisan123").status == 302
    expected = ["admin", "role:oauth2-proxy:operator", "role:staff-role", "test-group"]
    found = groups(client.get(f"{PLAIN}/oauth2/auth"))
    assert [one for one in found if one in expected] == expected
    time.sleep(2.1)
    refreshed = client.get(f"{PLAIN}/oauth2/auth")
    assert refreshed.all("set-cookie")
    assert groups(refreshed) == found
    assert "[roles_missing]" not in server.process.log()
    assert log_in(at(server), PLAIN, "wangwu").status == 403


@pytest.mark.parametrize(
    ("skips", "status", "cause"),
    [
        ("false", 500, "Lightweight access token not allowed for userinfo endpoint"),
        ("true", 403, "skip_claims_from_profile_url skips userinfo"),
    ],
)
def test_groups_only_in_userinfo_with_lightweight_token_explained(
    start: Start,
    keycloak: Keycloak,
    client_path: str,
    skips: str,
    status: int,
    cause: str,
) -> None:
    """Keycloak's userinfo rejects these tokens, so the ID token must have the claims."""
    [scope] = [
        one["id"]
        for one in keycloak.admin("GET", f"{client_path}/default-client-scopes").json
        if one["name"] == "groups"
    ]
    keycloak.admin("DELETE", f"{client_path}/default-client-scopes/{scope}")
    changes = {
        "OAUTH2_PROXY_SKIP_CLAIMS_FROM_PROFILE_URL": skips,
        "OAUTH2_PROXY_SCOPE": "openid email profile",
        "OAUTH2_PROXY_ALLOWED_GROUPS": "admin",
    }
    server = start(environment=environment(**changes))
    assert log_in(at(server), PLAIN, "lisan123").status == status
    wait_for(lambda: cause in server.process.log(), "the reason")
    assert "skip_claims_from_profile_url" in server.process.log()
