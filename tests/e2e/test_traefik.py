"""The exchanges of Traefik's ``forwardAuth`` and ``errors`` middlewares."""

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
OURS = traefik.Middlewares(
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
    """Start such a gateway in front of an auth server."""
    with ExitStack() as running:

        def starter(
            server: AuthServer, middlewares: traefik.Middlewares = traefik.SEED
        ) -> Gateway:
            made = traefik.Traefik(server.port, app.port, certificate, middlewares)
            running.enter_context(made)
            return Gateway(made.port)

        yield starter


def received(reply: Reply) -> dict[str, str]:
    """The headers that the app got."""
    assert reply.status == 200, reply.text
    return dict(reply.json["headers"])


def test_the_middlewares_are_those_of_our_example() -> None:
    text = (ROOT / "deploy" / "traefik.yaml").read_text()
    listed = [
        line.strip()[2:] for line in text.splitlines() if line[:8] == " " * 6 + "- "
    ]
    assert listed == [*OURS.response_headers, *OURS.cookies]
    assert f"address: http://authproxy:4180{OURS.check}\n" in text
    assert "errors" not in text


@BOTH
def test_the_seeds_middlewares(
    program: str, start: Start, gateway: MakeTraefik, keycloak: Keycloak
) -> None:
    front = gateway(start(program, environment={"OAUTH2_PROXY_PASS_ACCESS_TOKEN": "1"}))
    page = front.get("/deep?x=1")
    # errors asks for the page without a word of the original URI: after the login one
    # is at the root, unless the page itself knows better.
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
def test_methods_and_bodies_pass_a_check_that_is_always_get(
    program: str, start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(program))
    stranger = front.client.submit(f"{APP}/form", {"a": "1"})
    front.log_in()
    user = front.client.submit(f"{APP}/form", {"a": "1"})
    assert stranger.status == 401
    assert (user.json["method"], user.json["body"]) == ("POST", "a=1")


def test_our_middlewares_let_no_identity_header_of_a_client_pass(
    start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(), OURS)
    front.log_in("wangwu")
    headers = received(
        front.get("/", x_auth_request_groups="admin", x_auth_request_access_token="x")
    )
    assert headers["x-auth-request-groups"].startswith("test-group")
    assert not headers.get("x-auth-request-access-token")


def test_a_refreshed_session_reaches_the_browser_with_our_middlewares(
    start: Start, gateway: MakeTraefik
) -> None:
    front = gateway(start(environment={"OAUTH2_PROXY_COOKIE_REFRESH": "1s"}), OURS)
    front.log_in("bigrights")
    before = front.client.cookies.named("_oauth2_proxy")
    wait_for(lambda: bool(front.get("/").all("set-cookie")), "a new cookie", 10.0)
    after = front.client.cookies.named("_oauth2_proxy")
    assert len(after) > 1
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in before)
    assert received(Gateway(front.port, front.client.cookies).get("/"))


@BOTH
def test_the_redirect_variant(program: str, start: Start, app: EchoApp) -> None:
    """forwardAuth that asks at "/", behind ``static://202``: a redirect to the login."""
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
