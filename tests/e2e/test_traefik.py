"""Traefik's ``forwardAuth`` and ``errors`` middlewares, simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support import traefik
from support.certificates import Certificate
from support.echo import EchoApp
from support.http import Client, Reply
from support.keycloak import APP, Keycloak
from support.peers import AUTHPROXY, OAUTH2_PROXY, AuthServer
from support.processes import wait_for
from support.programs import ROOT

from .conftest import Gateway

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
MakeTraefik = Callable[..., Gateway]
BOTH = pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
DEPLOYED = traefik.Middlewares(
    (),
    "",
    (
        "X-Auth-Request-User",
        "X-Auth-Request-Email",
        "X-Auth-Request-Preferred-Username",
        "X-Auth-Request-Groups",
        "X-Auth-Request-Access-Token",
        "Authorization",
    ),
    ("_oauth2_proxy", "_oauth2_proxy_0", "_oauth2_proxy_1", "_oauth2_proxy_2"),
    "/oauth2/forward_auth",
)


@pytest.fixture
def gateway(app: EchoApp, certificate: Certificate) -> Iterator[MakeTraefik]:
    """Start a simulated Traefik in front of an auth server."""
    with ExitStack() as running:

        def starter(
            server: AuthServer, middlewares: traefik.Middlewares = traefik.REFERENCE
        ) -> Gateway:
            made = traefik.Traefik(server.port, app.port, certificate, middlewares)
            running.enter_context(made)
            return Gateway(made.port)

        yield starter


def received(reply: Reply) -> dict[str, str]:
    """Return the header fields that the application received."""
    assert reply.status == 200, reply.text
    return dict(reply.json["headers"])


def test_middlewares_equal_the_example() -> None:
    text = (ROOT / "deploy" / "traefik.yaml").read_text()
    listed = [
        line.strip()[2:] for line in text.splitlines() if line[:8] == " " * 6 + "- "
    ]
    assert listed == [*DEPLOYED.response_headers, *DEPLOYED.cookies]
    assert f"address: http://authproxy:4180{DEPLOYED.check}\n" in text
    assert "errors" not in text


@BOTH
def test_reference_middlewares(
    program: str, start: Start, gateway: MakeTraefik, keycloak: Keycloak
) -> None:
    front = gateway(start(program, environment={"OAUTH2_PROXY_PASS_ACCESS_TOKEN": "1"}))
    page = front.get("/deep?x=1")
    # The request of ``errors`` does not contain the original URI, so the login
    # returns to the root unless the page sends another ``rd``.
    assert page.status == 401
    assert "/oauth2/start" in page.text
    assert 'rd=%2F"' in page.text or 'name="rd" value="/"' in page.text
    assert front.log_in().location == f"{APP}/"
    headers = received(front.get("/deep?x=1"))
    assert headers["x-auth-request-user"] == keycloak.user_uuid("lisan123")
    assert headers["x-auth-request-preferred-username"] == "lisan123"
    assert headers["x-auth-request-groups"].startswith("admin,test-group,role:")
    assert headers["x-auth-request-access-token"].startswith("ey")
    assert headers["authorization"].startswith("Bearer ey")


@BOTH
def test_post_checked_with_get_keeps_method_and_body(
    program: str, start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(program))
    anonymous = front.client.submit(f"{APP}/form", {"a": "1"})
    front.log_in()
    user = front.client.submit(f"{APP}/form", {"a": "1"})
    assert anonymous.status == 401
    assert (user.json["method"], user.json["body"]) == ("POST", "a=1")


def test_example_strips_identity_headers_of_the_client(
    start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(), DEPLOYED)
    front.log_in("wangwu")
    headers = received(
        front.get("/", x_auth_request_groups="admin", x_auth_request_access_token="x")
    )
    assert headers["x-auth-request-groups"].startswith("test-group")
    assert not headers.get("x-auth-request-access-token")


def test_refreshed_cookie_reaches_the_browser(
    start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(environment={"OAUTH2_PROXY_COOKIE_REFRESH": "1s"}), DEPLOYED)
    front.log_in("bigrights")
    before = front.client.cookies.named("_oauth2_proxy")
    wait_for(lambda: bool(front.get("/").all("set-cookie")), "a new cookie", 10.0)
    after = front.client.cookies.named("_oauth2_proxy")
    assert len(after) > 1
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    assert received(Gateway(front.port, front.client.cookies).get("/"))


@BOTH
def test_static_upstream_redirects_to_the_login(
    program: str, start: Start, app: EchoApp
) -> None:
    """forwardAuth with the address "/" and the upstream ``static://202``."""
    server = start(
        program,
        environment={
            "OAUTH2_PROXY_UPSTREAMS": "static://202",
            "OAUTH2_PROXY_SKIP_PROVIDER_BUTTON": "true",
        },
    )
    reply = Client().get(
        f"{server.url}/",
        x_forwarded_method="GET",
        x_forwarded_proto="https",
        x_forwarded_host="app.example.com",
        x_forwarded_uri="/deep?x=1",
    )
    assert reply.status == 302
    assert reply.query["redirect_uri"] == f"{APP}/oauth2/callback"
