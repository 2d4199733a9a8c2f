"""The reference deployment: Keycloak, a gateway, an application, reference.cfg."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from support import caddy as caddy_support
from support import peers
from support.certificates import Certificate
from support.echo import EchoApp
from support.http import Client, Reply, parameters
from support.keycloak import APP, OPTIONAL_GROUPS, Keycloak
from support.peers import AUTHPROXY, OAUTH2_PROXY, REFERENCE, AuthServer
from support.ports import free_port
from support.processes import wait_for
from support.programs import ROOT

from .conftest import DEPLOY_NGINX, REFERENCE_NGINX, Gateway, log_in, require

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
MakeGateway = Callable[..., Gateway]
PLAIN = APP.replace("https", "http")
IDENTITY = (
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-preferred-username",
    "x-auth-request-groups",
    "x-auth-request-access-token",
    "authorization",
)
PASS_ACCESS_TOKEN = {"OAUTH2_PROXY_PASS_ACCESS_TOKEN": "true"}


def received(reply: Reply) -> dict[str, str]:
    """Return the header fields that the application received."""
    assert reply.status == 200, reply.text
    return dict(reply.json["headers"])


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
def test_reference_configuration_behind_nginx(
    program: str, start: Start, gateway: MakeGateway, keycloak: Keycloak
) -> None:
    server = start(program, environment=PASS_ACCESS_TOKEN)
    front = gateway(server)
    page = front.get("/deep?x=1")
    assert "/oauth2/start" in page.text
    assert front.get("/oauth2/auth").status == 401
    back = front.log_in(rd="/deep%3Fx=1")
    assert back.status == 302
    assert back.location == f"{APP}/deep?x=1"
    headers = received(front.get("/deep?x=1"))
    assert headers["x-user"] == keycloak.user_uuid("lisan123")
    assert headers["x-email"] == "lisan123@example.com"
    assert headers["x-access-token"].startswith("ey")
    check = front.client.get(f"{APP}/oauth2/auth")
    assert check.status == 202
    assert check.header("x-auth-request-preferred-username") == "lisan123"
    groups = check.header("x-auth-request-groups").split(",")
    assert {"admin", "test-group", "role:staff-role"} <= set(groups)
    assert "role:oauth2-proxy:operator" in groups
    assert check.header("authorization").startswith("Bearer ey")
    assert check.header("x-auth-request-access-token").startswith("ey")


def test_zipapp_behind_nginx(built: Path, start: Start, gateway: MakeGateway) -> None:
    front = gateway(start(str(built)))
    assert front.log_in(rd="/deep%3Fx=1").location == f"{APP}/deep?x=1"
    assert received(front.get("/deep?x=1"))["x-email"] == "lisan123@example.com"


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("allowed_groups=admin", 202),
        ("allowed_groups=Admin", 403),
        ("allowed_groups=role:oauth2-proxy:operator", 202),
        ("allowed_groups=unknown&allowed_groups=admin", 202),
        ("allowed_groups=unknown", 403),
        ("allowed_groups=unknown,test-group", 202),
        ("allowed_groups=role:staff-role", 202),
        ("allowed_emails=lisan123@example.com", 202),
        ("allowed_emails=other@example.com", 403),
        ("allowed_email_domains=example.com", 202),
        ("allowed_email_domains=other.example", 403),
        ("allowed_groups=admin&allowed_emails=other@example.com", 403),
    ],
)
def test_auth_endpoint_query_requirements(
    program: str, query: str, status: int, logged_in: dict[str, tuple[str, Client]]
) -> None:
    url, client = logged_in[program]
    assert client.get(f"{url}/oauth2/auth?{query}").status == status


@pytest.fixture(scope="module")
def logged_in(
    tmp_path_factory: pytest.TempPathFactory, keycloak: Keycloak
) -> Iterator[dict[str, tuple[str, Client]]]:
    """Both programs with a signed-in user; clients that act as the gateway."""
    sessions: dict[str, tuple[str, Client]] = {}
    servers = []
    for name in (AUTHPROXY, OAUTH2_PROXY):
        if peers.command(name) is None:
            pytest.skip(f"{name} is not installed")
        folder = tmp_path_factory.mktemp(name)
        server = peers.start_auth_server(name, folder, keycloak.issuer)
        servers.append(server)
        client = as_gateway(server)
        assert log_in(client, PLAIN, "lisan123").status == 302
        sessions[name] = (PLAIN, client)
    yield sessions
    for server in servers:
        server.stop()


def as_gateway(server: AuthServer) -> Client:
    """Return a client that reaches the auth server by the application's name."""
    return Client({"app.example.com": server.port})


def test_nginx_example(start: Start, gateway: MakeGateway) -> None:
    """FA07: a denial shows the sign-in page, never the application."""
    front = gateway(start(), DEPLOY_NGINX)
    denied = front.get("/")
    assert denied.text.count("Sign in with Keycloak") == 1
    assert '"target"' not in denied.text
    front.log_in()
    headers = received(front.get("/"))
    assert headers["x-auth-request-preferred-username"] == "lisan123"
    assert headers["authorization"].startswith("Bearer ey")
    assert front.client.get(f"{APP}/oauth2/auth").status == 404  # internal


def test_nginx_example_strips_identity_headers_of_the_client(
    start: Start, gateway: MakeGateway
) -> None:
    front = gateway(start(), DEPLOY_NGINX)
    front.log_in("wangwu")
    sent = {name.replace("-", "_"): "forged" for name in IDENTITY}
    headers = received(front.get("/", **sent))
    assert headers["x-auth-request-groups"].startswith("test-group")
    assert "forged" not in [headers.get(name) for name in IDENTITY]


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
def test_session_above_4_kb_split_over_cookies(
    program: str, start: Start, gateway: MakeGateway
) -> None:
    front = gateway(start(program, environment=PASS_ACCESS_TOKEN))
    front.log_in("bigrights")
    parts = front.client.cookies.named("_oauth2_proxy")
    assert {"_oauth2_proxy_0", "_oauth2_proxy_1"} <= set(parts)
    assert "_oauth2_proxy" not in parts
    assert all(len(f"{name}={value}") <= 4000 for name, value in parts.items())
    assert received(front.get("/"))["x-email"] == "bigrights@example.com"


def test_nginx_location_for_one_group(start: Start, gateway: MakeGateway) -> None:
    one_group = "auth_request /oauth2/auth/admin;"
    assert f"# For one group only: {one_group}" in DEPLOY_NGINX
    block = DEPLOY_NGINX.replace("auth_request /oauth2/auth;", one_group)
    server = start()
    member, other = gateway(server, block), gateway(server, block)
    member.log_in("lisan123")
    other.log_in("wangwu")
    assert member.get("/").status == 200
    assert other.get("/").status == 403


@pytest.mark.parametrize(
    ("program", "member", "other"), [(AUTHPROXY, 200, 403), (OAUTH2_PROXY, 500, 500)]
)
def test_query_in_auth_request_accepted(
    program: str, member: int, other: int, start: Start, gateway: MakeGateway
) -> None:
    """nginx escapes it into the path; oauth2-proxy has no such endpoint."""
    with_query = "auth_request /oauth2/auth?allowed_groups=admin;"
    block = REFERENCE_NGINX.replace("auth_request /oauth2/auth;", with_query)
    server = start(program)
    for user, status in (("lisan123", member), ("wangwu", other)):
        front = gateway(server, block)
        front.log_in(user)
        assert front.get("/").status == status


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
def test_optional_groups_scope_requested(program: str, start: Start) -> None:
    """In the reference realm, ``groups`` is an optional scope of the client."""
    environment = {"OAUTH2_PROXY_CLIENT_ID": OPTIONAL_GROUPS}
    with_scope = {**environment, "OAUTH2_PROXY_SCOPE": "openid email profile groups"}
    groups = []
    for settings in (environment, with_scope):
        client = as_gateway(start(program, environment=settings))
        assert log_in(client, PLAIN, "lisan123").status == 302
        reply = client.get(f"{PLAIN}/oauth2/auth")
        groups.append(set(reply.header("x-auth-request-groups").split(",")))
    without, with_groups = groups
    assert with_groups - without == {"admin", "test-group"}
    assert "role:staff-role" in without


@pytest.mark.parametrize(
    ("block", "user"),
    [
        (
            REFERENCE_NGINX,
            "lisan123",
        ),  # its if statements run before the second cookie is set
        (DEPLOY_NGINX, "lisan123"),
        (DEPLOY_NGINX, "bigrights"),
    ],
    ids=["reference", "example", "example-split"],
)
def test_refreshed_cookie_passes_nginx(
    start: Start, gateway: MakeGateway, block: str, user: str
) -> None:
    front = gateway(start(environment={"OAUTH2_PROXY_COOKIE_REFRESH": "1s"}), block)
    front.log_in(user)
    before = front.client.cookies.named("_oauth2_proxy")
    assert before

    def is_refreshed() -> bool:
        reply = front.get("/")
        assert reply.status == 200
        return bool(reply.all("set-cookie"))

    wait_for(is_refreshed, "a refreshed cookie", 10)
    after = front.client.cookies.named("_oauth2_proxy")
    assert set(after) == set(before)
    changed = {name: after[name] != before[name] for name in before}
    assert all(changed.values()), changed
    assert received(front.get("/"))


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
def test_logout_at_keycloak_ends_session_at_next_refresh(
    program: str, start: Start, gateway: MakeGateway, keycloak: Keycloak
) -> None:
    environment = {"OAUTH2_PROXY_COOKIE_REFRESH": "1s"}
    front = gateway(start(program, environment=environment), DEPLOY_NGINX)
    front.log_in("wangwu")
    assert front.get("/").text.startswith("{")
    keycloak.log_out_everywhere("wangwu")
    wait_for(lambda: "/oauth2/start" in front.get("/").text, "the sign-in page")


def test_changed_number_of_cookies_leaves_no_stale_session(
    start: Start, gateway: MakeGateway, keycloak: Keycloak
) -> None:
    """FA14: nginx forwards no Set-Cookie that clears a cookie; the example adds its own."""
    environment = {"OAUTH2_PROXY_COOKIE_REFRESH": "1s"}
    front = gateway(start(environment=environment), DEPLOY_NGINX)
    front.log_in("wangwu")
    assert set(front.client.cookies.named("_oauth2_proxy")) == {"_oauth2_proxy"}

    def wait_for_cookies(names: set[str]) -> None:
        def is_set() -> bool:
            assert front.get("/").status == 200
            return set(front.client.cookies.named("_oauth2_proxy")) == names

        wait_for(is_set, f"the cookies {names}")
        assert received(front.get("/"))

    with keycloak.given_many_roles("wangwu"):
        wait_for_cookies({"_oauth2_proxy_0", "_oauth2_proxy_1"})
    # The parts remain, but the single cookie takes precedence.
    wait_for(
        lambda: (
            front.get("/").status == 200
            and "_oauth2_proxy" in front.client.cookies.named("_oauth2_proxy")
        ),
        "one cookie again",
    )
    assert received(front.get("/"))


def test_sign_out_behind_nginx(start: Start, gateway: MakeGateway) -> None:
    front = gateway(start())
    front.log_in()
    reply = front.get("/oauth2/sign_out?rd=/bye")
    assert (reply.status, reply.location) == (302, f"{APP}/bye")
    assert not front.client.cookies.named("_oauth2_proxy")
    assert "/oauth2/start" in front.get("/").text


@pytest.fixture
def caddy(
    tmp_path: Path, certificate: Certificate, app: EchoApp, start: Start
) -> Iterator[Gateway]:
    """Caddy with the example of ``deploy/`` in front of authproxy."""
    program = require("caddy")
    server = start()
    text = (ROOT / "deploy" / "Caddyfile").read_text()
    port = free_port()
    folder = tmp_path / "caddy"
    folder.mkdir()
    site = caddy_support.deployed_site(text, port, server.port, app.port, certificate)
    site = site.replace("app.example.com:", "https://app.example.com:")
    process = caddy_support.start_caddy(program, folder, site, port)
    yield Gateway(port)
    process.stop()


def test_caddy_example(caddy: Gateway) -> None:
    redirect = caddy.get("/deep?x=1&y=2", accept="text/html")
    assert redirect.status == 302
    assert redirect.location.startswith(f"{APP}/oauth2/sign_in?rd=")
    rd = parameters(redirect.location)["rd"]
    assert rd == "/deep?x=1&y=2"
    page = caddy.client.get(redirect.location)
    assert "Sign in with Keycloak" in page.text
    start_link = re.search(r'href="([^"]*/oauth2/start[^"]*)"', page.text)
    assert start_link
    assert parameters(html.unescape(start_link[1]))["rd"] == rd
    back = caddy.log_in(rd=quote(rd))
    assert back.location == f"{APP}/deep?x=1&y=2"
    headers = received(caddy.get("/deep?x=1"))
    assert headers["x-auth-request-preferred-username"] == "lisan123"
    assert "role:staff-role" in headers["x-auth-request-groups"]
    assert headers["authorization"].startswith("Bearer ey")


def test_post_without_session_gets_401_from_caddy(caddy: Gateway) -> None:
    response = caddy.client.submit(f"{APP}/form", {"rd": "https://other.example/"})
    assert response.status == 401
    assert "other.example" not in response.text


def test_caddy_strips_identity_headers_of_the_client(caddy: Gateway) -> None:
    """FA17: also those for which the user has no value."""
    caddy.log_in("wangwu")
    sent = {name.replace("-", "_"): "forged" for name in IDENTITY}
    headers = received(caddy.get("/", **sent))
    assert headers["x-auth-request-groups"].startswith("test-group")
    assert "forged" not in [headers.get(name) for name in IDENTITY]


def test_reference_sign_in_page_renders_as_in_oauth2_proxy(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "templates"
    folder.mkdir()
    text = (ROOT / "tests" / "e2e" / "reference_sign_in.html").read_text()
    (folder / "sign_in.html").write_text(text)
    environment = {"OAUTH2_PROXY_CUSTOM_TEMPLATES_DIR": str(folder)}
    pages = [
        Client().get(f"{start(name, environment=environment).url}/oauth2/sign_in")
        for name in (AUTHPROXY, OAUTH2_PROXY)
    ]
    assert pages[0].text == pages[1].text
    assert '"\\/oauth2/start?rd="' in pages[0].text or "oauth2" in pages[0].text


def test_reference_configuration_has_null_upstream() -> None:
    assert 'upstreams = "file:///dev/null"' in REFERENCE
