"""Failures of deployments: pages for the user and log lines for the operator."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.http import Client, Reply, form_action
from support.keycloak import (
    APP,
    CLIENT_ID,
    CLIENT_SECRET,
    CONSENT,
    WRONG_AUDIENCE,
    Keycloak,
    submit_credentials,
)
from support.peers import AuthServer
from support.processes import wait_for

from .conftest import callback_url

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
PLAIN = APP.replace("https", "http")


def failed_login(server: AuthServer, user: str = "lisan123") -> Reply:
    """Return the error page of a failed login."""
    client = Client({"app.example.com": server.port})
    return client.get(callback_url(client, PLAIN, user).replace(APP, PLAIN, 1))


def request_id(page: Reply) -> str:
    found = re.search(r"Request ID: <code>([^<]+)</code>", page.text)
    assert found, page.text
    return found[1]


def wait_for_log(server: AuthServer, *texts: str) -> None:
    """Wait until the log has a line with all of *texts*."""

    def is_logged() -> bool:
        lines = server.process.log().splitlines()
        return any(all(text in line for text in texts) for line in lines)

    wait_for(is_logged, f"a log line with {texts}")


def test_missing_audience_mapper_named_in_log(start: Start) -> None:
    server = start(environment={"OAUTH2_PROXY_CLIENT_ID": WRONG_AUDIENCE})
    page = failed_login(server)
    assert page.status == 403
    assert "audience" in page.text
    wait_for_log(
        server,
        request_id(page),
        f"expected audience '{WRONG_AUDIENCE}' in the claim aud, got 'account'",
        f"Clients -> {WRONG_AUDIENCE} -> Client scopes -> {WRONG_AUDIENCE}-dedicated",
        "mapper",
    )


def test_wrong_client_secret_named_in_log(start: Start) -> None:
    secret = "not-the-secret-of-this-client"
    server = start(environment={"OAUTH2_PROXY_CLIENT_SECRET": secret})
    page = failed_login(server)
    assert page.status == 500
    assert "credentials" in page.text
    wait_for_log(server, request_id(page), "check client_id and client_secret")
    assert secret not in server.process.log()


def test_scope_that_keycloak_lacks_named_in_log(start: Start) -> None:
    """Keycloak returns to the callback with an error, before any login form."""
    server = start(environment={"OAUTH2_PROXY_SCOPE": "openid email team"})
    client = Client({"app.example.com": server.port})
    started = client.get(f"{PLAIN}/oauth2/start?rd=/")
    back = client.follow(started, until=APP)
    page = client.get(back.location.replace(APP, PLAIN, 1))
    assert page.status == 403
    assert "does not know a scope" in page.text
    wait_for_log(
        server,
        request_id(page),
        "'invalid_scope': 'Invalid scopes: openid email team'",
        "Create client scope",
    )


def test_wrong_issuer_reported(start: Start, keycloak: Keycloak) -> None:
    server = start(issuer=keycloak.issuer + "/", path="/ping")
    wait_for_log(server, "expected issuer", keycloak.issuer, "oidc_issuer_url")
    assert Client().get(f"{server.url}/ready").status == 503
    page = Client().get(f"{server.url}/oauth2/start")
    assert page.status == 503
    assert "issuer URL" in page.text
    wait_for_log(server, request_id(page), "expected issuer")


def test_unknown_realm_reported(start: Start, keycloak: Keycloak) -> None:
    server = start(issuer=keycloak.issuer + "-typo", path="/ping")
    wait_for_log(server, "status 404", "check oidc_issuer_url")
    page = Client().get(f"{server.url}/oauth2/start")
    assert page.status == 503
    assert "issuer URL" in page.text


def test_denied_consent_reported(start: Start) -> None:
    server = start(environment={"OAUTH2_PROXY_CLIENT_ID": CONSENT})
    client = Client({"app.example.com": server.port})
    form = client.follow(client.get(f"{PLAIN}/oauth2/start"))
    consent = client.follow(submit_credentials(client, form, "wangwu"), until=APP)
    response = client.submit(form_action(consent), {"cancel": "No"})
    response = client.follow(response, until=APP)
    page = client.get(response.location.replace(APP, PLAIN, 1))
    assert page.status == 403
    assert "consent" in page.text
    wait_for_log(server, request_id(page), "access_denied")


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_wrong_clock_of_the_provider_reported(start: Start, offset: float) -> None:
    """The development provider replaces Keycloak, which uses the system's clock."""
    client = DemoClient(
        id=CLIENT_ID,
        secret=CLIENT_SECRET,
        redirect_uris=(f"{APP}/oauth2/callback",),
    )
    users = example_users("secret")
    config = ProviderConfig(users=users, clients=(client,), clock_offset=offset)
    provider = DevProvider(config)
    with serve(provider):
        server = start(issuer=config.issuer)
        browser = Client({"app.example.com": server.port})
        started = browser.get(f"{PLAIN}/oauth2/start")
        callback = provider.log_in(started.location, "alice")
        page = browser.get(callback.replace(APP, PLAIN, 1))
    assert page.status == 500
    assert "clock" in page.text
    wait_for_log(server, request_id(page), "clock")


def test_unreachable_provider_at_start_is_not_ready(
    start: Start, keycloak: Keycloak
) -> None:
    issuer = "http://127.0.0.1:1/realms/none"
    server = start(issuer=issuer, path="/ping")
    assert Client().get(f"{server.url}/ready").status == 503
    assert Client().get(f"{server.url}/oauth2/auth").status == 401
    wait_for_log(server, "is not ready", "connection refused")
