"""The realm of ``authproxy keycloak-realm``, imported into a real Keycloak."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from authproxy.commands.cli import main
from support.http import Client, Reply, form_action, parameters
from support.keycloak import Keycloak
from support.ports import LOOPBACK, free_port
from support.processes import wait_for
from support.program import Program

pytestmark = pytest.mark.e2e
REALM = "printed"
OPTIONS = {
    "provider": "keycloak-oidc",
    "client_id": "oauth2-proxy",
    "code_challenge_method": "S256",
    "allowed_groups": ["staff"],
    "backchannel_logout": True,
    "session_revocation": True,
    "sign_out_at_provider": True,
    "cookie_secure": False,
    "upstreams": ["static://200"],
    "skip_oidc_discovery": None,
    "login_url": None,
    "redeem_url": None,
    "oidc_jwks_url": None,
}


class Deployment(NamedTuple):
    """authproxy at *url* with the imported realm, and its temporary passwords."""

    url: str
    issuer: str
    passwords: dict[str, str]


def print_realm(*arguments: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the printed realm, and the generated secrets by their descriptions."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["keycloak-realm", *arguments]) == 0
    lines = (line.partition(": ") for line in err.getvalue().splitlines())
    return json.loads(out.getvalue()), {name: value for name, _, value in lines}


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, keycloak: Keycloak
) -> Iterator[Deployment]:
    """Import the realm of the command, and start authproxy with its client."""
    folder = tmp_path_factory.mktemp("authproxy")
    port = free_port()
    url = f"http://{LOOPBACK}:{port}"
    users = [
        f"--user={user}" for user in ("alice=admin,staff", "bob=staff", "eve=staff")
    ]
    realm, generated = print_realm(url, "--realm", REALM, *users)
    keycloak.admin("POST", "", realm)
    issuer = f"http://{LOOPBACK}:{keycloak.http_port}/realms/{REALM}"
    secret = {
        "client_secret": generated.pop("client secret"),
        "oidc_issuer_url": issuer,
    }
    address = {"http_address": f"{LOOPBACK}:{port}"}
    path = {"sqlite_path": str(folder / "sessions.db")}
    try:
        with Program(folder, **OPTIONS, **secret, **address, **path) as program:
            ready = f"{url}/ready"
            program.started()
            wait_for(lambda: Client().get(ready).status == 200, "the provider", 30.0)
            passwords = {
                name.removeprefix("temporary password of "): password
                for name, password in generated.items()
            }
            yield Deployment(url, issuer, passwords)
    finally:
        keycloak.admin("DELETE", f"/{REALM}")


def log_in(client: Client, deployment: Deployment, user: str) -> Reply:
    """Log in with a temporary password and change it; return the callback's response."""
    page = client.follow(client.get(f"{deployment.url}/oauth2/start?rd=/"))
    password = deployment.passwords[user]
    fields = {"username": user, "password": password}
    page = client.follow(client.submit(form_action(page, "kc-form-login"), fields))
    new = {"password-new": "a-new-one", "password-confirm": "a-new-one"}
    action = form_action(page, "kc-passwd-update-form")
    return client.follow(client.submit(action, new), until=f"{deployment.url}/oauth2")


def test_imported_realm_users_log_in_with_groups_and_roles(
    deployment: Deployment,
) -> None:
    groups = {}
    for name in ("alice", "bob"):
        client = Client()
        callback = log_in(client, deployment, name)
        assert client.get(callback.location).location == f"{deployment.url}/"
        user = client.get(f"{deployment.url}/oauth2/userinfo").json
        assert user["email"] == f"{name}@example.com"
        assert user["preferredUsername"] == name
        groups[name] = set(user["groups"])
    added = {"admin", "role:editor", "role:oauth2-proxy:operator"}
    assert groups["alice"] - groups["bob"] == added
    assert "staff" in groups["bob"]

    # The last client is bob's: sign-out ends his session at Keycloak and returns.
    signed_out = client.get(f"{deployment.url}/oauth2/sign_out?rd=/bye")
    assert signed_out.location.startswith(f"{deployment.issuer}/protocol/openid-")
    back = client.follow(signed_out, until=f"{deployment.url}/")
    assert back.location.startswith(f"{deployment.url}/bye")


def test_imported_realm_logout_at_keycloak_ends_session(
    deployment: Deployment, keycloak: Keycloak
) -> None:
    client = Client()
    client.get(log_in(client, deployment, "eve").location)
    check = f"{deployment.url}/oauth2/auth"
    assert client.get(check).status == 202
    [user] = keycloak.admin("GET", f"/{REALM}/users?username=eve").json
    keycloak.admin("POST", f"/{REALM}/users/{user['id']}/logout", {})
    wait_for(lambda: client.get(check).status == 401, "the logout")


def test_imported_client_rejects_other_hosts_and_requests_without_pkce(
    deployment: Deployment,
) -> None:
    start = Client().get(f"{deployment.url}/oauth2/start?rd=/").location
    assert parameters(start)["code_challenge_method"] == "S256"
    without = start.replace("code_challenge", "ignored")
    reply = Client().get(without)
    assert parameters(reply.location)["error"] == "invalid_request"
    other = start.replace("redirect_uri=http", "redirect_uri=https")
    reply = Client().get(other)
    assert (reply.status, reply.location) == (400, "")
