"""Keycloak as three provider types, and as several providers at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from support.http import Client, Reply
from support.keycloak import APP, CLIENT_ID, CLIENT_SECRET, OPTIONAL_GROUPS, Keycloak
from support.peers import COOKIE_SECRET, SOURCES, AuthServer
from support.ports import LOOPBACK, free_port
from support.processes import Process, wait_for

from .conftest import callback_url, log_in

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
PLAIN = APP.replace("https", "http")


def plain_oauth(keycloak: Keycloak, **changes: str) -> Mapping[str, str]:
    """Return the options of the type ``keycloak``, which uses no ID tokens."""
    base = f"{keycloak.issuer}/protocol/openid-connect"
    return {
        "OAUTH2_PROXY_PROVIDER": "keycloak",
        "OAUTH2_PROXY_LOGIN_URL": f"{base}/auth",
        "OAUTH2_PROXY_REDEEM_URL": f"{base}/token",
        "OAUTH2_PROXY_VALIDATE_URL": f"{base}/userinfo",
        "OAUTH2_PROXY_SCOPE": "openid email profile",
        **changes,
    }


def at(server: AuthServer) -> Client:
    return Client({"app.example.com": server.port})


def groups(check: Reply) -> list[str]:
    return sorted(check.header("x-auth-request-groups").split(","))


def test_oidc_login(start: Start) -> None:
    server = start(environment={"OAUTH2_PROXY_PROVIDER": "oidc"})
    client = at(server)
    assert log_in(client, PLAIN, "lisan123").status == 302
    check = client.get(f"{PLAIN}/oauth2/auth")
    assert check.status == 202
    assert check.header("gap-auth") == "lisan123@example.com"
    assert groups(check) == ["admin", "test-group"]  # roles are for keycloak-oidc


def test_keycloak_type_revalidates_access_token(
    start: Start, keycloak: Keycloak
) -> None:
    settings = plain_oauth(keycloak, OAUTH2_PROXY_COOKIE_REFRESH="1s")
    server = start(path="/ping", environment=settings)
    client = at(server)
    assert log_in(client, PLAIN, "lisan123").status == 302
    check = client.get(f"{PLAIN}/oauth2/auth")
    assert check.status == 202
    assert check.header("x-auth-request-user") == "lisan123"
    assert groups(check) == ["admin", "test-group"]
    # Revalidation of the access token detects the logout at the provider.
    time.sleep(1.1)
    assert client.get(f"{PLAIN}/oauth2/auth").status == 202
    keycloak.log_out_everywhere("lisan123")
    wait_for(
        lambda: client.get(f"{PLAIN}/oauth2/auth").status == 401,
        "the end of the session",
    )


def test_keycloak_type_allowed_groups(start: Start, keycloak: Keycloak) -> None:
    settings = plain_oauth(keycloak, OAUTH2_PROXY_KEYCLOAK_GROUPS="admin")
    server = start(path="/ping", environment=settings)
    assert log_in(at(server), PLAIN, "lisan123").status == 302
    denied = log_in(at(server), PLAIN, "wangwu")
    assert denied.status == 403
    assert "does not have access to this application" in denied.text


ALPHA = """
providers:
- id: staff
  name: Staff
  provider: keycloak-oidc
  clientID: {client}
  clientSecret: {secret}
  allowedGroups: [admin]
  oidcConfig: {{issuerURL: "{issuer}", insecureAllowUnverifiedEmail: true}}
- id: guests
  name: Guests
  provider: oidc
  clientID: {other}
  clientSecret: {secret}
  oidcConfig: {{issuerURL: "{issuer}", insecureAllowUnverifiedEmail: true}}
- id: offline
  name: Offline
  provider: oidc
  clientID: x
  clientSecret: {secret}
  oidcConfig: {{issuerURL: "http://127.0.0.1:9"}}
injectResponseHeaders:
- {{name: X-Auth-Request-Groups, values: [{{claimSource: {{claim: groups}}}}]}}
server: {{bindAddress: "{address}"}}
"""


def start_with_three_providers(folder: Path, keycloak: Keycloak) -> AuthServer:
    """Start authproxy with Keycloak as two providers and an unreachable third."""
    port = free_port()
    (folder / "alpha.yaml").write_text(
        ALPHA.format(
            client=CLIENT_ID,
            other=OPTIONAL_GROUPS,
            secret=CLIENT_SECRET,
            issuer=keycloak.issuer,
            address=f"{LOOPBACK}:{port}",
        )
    )
    process = Process(
        "authproxy",
        [sys.executable, "-m", "authproxy", f"--alpha-config={folder / 'alpha.yaml'}"],
        folder=folder,
        environment={
            "OAUTH2_PROXY_COOKIE_SECRET": COOKIE_SECRET,
            "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
            "OAUTH2_PROXY_REVERSE_PROXY": "true",
            "OAUTH2_PROXY_SSL_INSECURE_SKIP_VERIFY": "true",
            "OAUTH2_PROXY_WORKERS": "1",
            "PYTHONPATH": SOURCES,
        },
    )
    process.wait_until(lambda: process.log().count("[provider_ready]") == 2, 30.0)
    return AuthServer("authproxy", process, port)


def log_in_with(client: Client, provider: str, user: str) -> Reply:
    """Log in with *provider*; return the response of the callback."""
    rd = f"/&provider={provider}"
    return client.get(callback_url(client, PLAIN, user, rd).replace(APP, PLAIN, 1))


def test_several_providers_at_once(tmp_path: Path, keycloak: Keycloak) -> None:
    server = start_with_three_providers(tmp_path, keycloak)
    try:
        page = at(server).get(f"{PLAIN}/oauth2/sign_in").text
        assert all(f"Sign in with {name}" in page for name in ("Staff", "Guests"))
        client = at(server)
        assert log_in_with(client, "staff", "lisan123").status == 302
        check = client.get(f"{PLAIN}/oauth2/auth")
        assert "role:staff-role" in groups(check)
        other = at(server)
        assert log_in_with(other, "staff", "wangwu").status == 403
        assert log_in_with(other, "guests", "wangwu").status == 302
        check = other.get(f"{PLAIN}/oauth2/auth")
        assert (check.status, check.header("gap-auth")) == (202, "wangwu@example.com")
        offline = at(server).get(f"{PLAIN}/oauth2/start?provider=offline")
        assert offline.status == 503
        assert client.get(f"{PLAIN}/oauth2/auth").status == 202
    finally:
        server.stop()
