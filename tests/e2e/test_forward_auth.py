"""Forward auth behind four gateways, with the examples of ``deploy/``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from authproxy_devprovider.config import Client as IdpClient
from authproxy_devprovider.config import ProviderConfig, User
from authproxy_devprovider.provider import DevProvider, serve
from support import caddy as caddy_support
from support import nginx, processes
from support.certificates import Certificate
from support.echo import EchoApp
from support.envoy import start_envoy
from support.haproxy import start_haproxy
from support.http import Client, Reply
from support.ports import free_port
from support.processes import wait_for
from support.program import Program
from support.programs import ROOT
from support.traefik import Traefik

from .conftest import REFERENCE_NGINX, require
from .test_traefik import DEPLOYED

pytestmark = pytest.mark.e2e
DEPLOY = ROOT / "deploy"
HOST = "app.example.com"
APP = f"https://{HOST}"
DEEP = "/deep/page?x=1&next=https://other.example/&y=%2F"
BROWSER = {
    "accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "sec_fetch_mode": "navigate",
    "sec_fetch_dest": "document",
}
ALL = ("traefik", "envoy", "caddy", "haproxy")
Start = Callable[..., "Front"]


class Front:
    """A gateway and the client of a signed-in user."""

    def __init__(self, port: int, provider: DevProvider, app: EchoApp) -> None:
        self.client = Client({HOST: port})
        self.app = app
        self._port = port
        self.provider = provider

    def get(self, path: str, **headers: str) -> Reply:
        """GET as a navigation of a browser, unless *headers* override it."""
        return self.client.get(APP + path, **{**BROWSER, **headers})

    def log_in(self, user: str = "alice", path: str = DEEP) -> Reply:
        """Log in, starting at *path*; return the response of the callback."""
        redirect = self.get(path)
        assert redirect.status == 302, (redirect.status, redirect.text)
        assert redirect.location.startswith(f"{APP}/oauth2/sign_in?rd=")
        page = self.client.get(redirect.location)
        assert "Sign in with" in page.text
        start = redirect.location.replace("/sign_in?", "/start?")
        login = self.client.get(start)
        return self.client.get(self.provider.log_in(login.location, user))

    def anonymous(self) -> Client:
        """Return a client without a session."""
        return Client({HOST: self._port})


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    """A provider with two users."""
    users = (
        User(name="alice", password="pw", groups=("admins",)),
        User(name="bob", password="pw", groups=("staff",)),
    )
    client = IdpClient(id="web", secret="s", redirect_uris=(f"{APP}/oauth2/callback",))
    provider = DevProvider(ProviderConfig(users=users, clients=(client,)))
    with serve(provider):
        yield provider


@pytest.fixture
def start(
    tmp_path: Path, provider: DevProvider, certificate: Certificate, app: EchoApp
) -> Iterator[Start]:
    """Start authproxy and the gateway with the given name."""
    with ExitStack() as running:

        def starter(name: str, **changes: Any) -> Front:
            values: dict[str, Any] = {
                "client_secret": "s",
                "oidc_issuer_url": provider.config.issuer,
                "skip_oidc_discovery": None,
                "login_url": None,
                "redeem_url": None,
                "oidc_jwks_url": None,
                "reverse_proxy": True,
                "set_xauthrequest": True,
                "auth_success_status": 200 if name == "envoy" else 202,
            } | changes
            program = running.enter_context(Program(tmp_path, **values))
            port = program.port
            wait_for(lambda: "[provider_ready]" in program.log(), "the provider", 20.0)
            make = globals()[f"_{name}"]
            return Front(
                make(running, tmp_path, port, app.port, certificate), provider, app
            )

        yield starter


def _traefik(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    return running.enter_context(Traefik(auth, app, certificate, DEPLOYED)).port


def _envoy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    program, port = require("envoy"), free_port()
    process = start_envoy(
        program,
        folder,
        (DEPLOY / "envoy.yaml").read_text(),
        port=port,
        auth_port=auth,
        app_port=app,
        certificate=certificate,
    )
    running.enter_context(process)
    return port


def _caddy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    program, port = require("caddy"), free_port()
    text = (DEPLOY / "Caddyfile").read_text()
    site = caddy_support.deployed_site(text, port, auth, app, certificate)
    site = site.replace(f"{HOST}:", f"https://{HOST}:")
    running.enter_context(caddy_support.start_caddy(program, folder, site, port))
    return port


def _haproxy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    program, port = require("haproxy"), free_port()
    process = start_haproxy(
        program,
        folder,
        DEPLOY,
        port=port,
        auth_port=auth,
        app_port=app,
        certificate=certificate,
    )
    running.enter_context(process)
    return port


def _nginx(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    """nginx with a query in ``auth_request``, which it treats as part of the path."""
    program, port = require("nginx"), free_port()
    with_query = "auth_request /oauth2/auth?allowed_groups=admins;"
    assert "auth_request /oauth2/auth;" in REFERENCE_NGINX
    block = REFERENCE_NGINX.replace("auth_request /oauth2/auth;", with_query)
    text = nginx.reference_block(block, port, auth, app)
    running.enter_context(nginx.start_nginx(program, folder, text, port, certificate))
    return port


def received(reply: Reply) -> dict[str, str]:
    """Return the header fields that the application received."""
    assert reply.status == 200, (reply.status, reply.text)
    return dict(reply.json["headers"])


@pytest.mark.parametrize("name", ALL)
def test_login_returns_to_the_requested_page(name: str, start: Start) -> None:
    front = start(name)
    before = front.app.count
    back = front.log_in()
    assert front.app.count == before  # no request reached the application
    assert (back.status, back.location) == (302, APP + DEEP)
    page = front.get(DEEP)
    headers = received(page)
    assert page.json["target"] == DEEP
    assert headers["x-auth-request-email"] == "alice@example.com"
    assert headers["x-auth-request-groups"].split(",")[0] == "admins"
    # An API request without a session gets 401 and no identity.
    anonymous = front.anonymous()
    for method, fields in (
        ("GET", {"accept": "*/*"}),
        ("GET", {"accept": "text/html", "x-requested-with": "XMLHttpRequest"}),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "cors"}),
        ("POST", {"accept": "text/html", "sec-fetch-mode": "navigate"}),
    ):
        body = b"a=1" if method == "POST" else b""
        reply = anonymous.request(method, APP + DEEP, fields.items(), body)
        assert reply.status == 401, (method, fields, reply.text)
        assert reply.header("content-type") == "application/json"
        assert reply.json["error"] == "login_required"
        assert not reply.header("x-auth-request-email")
    # Method and body of an allowed request reach the application.
    kind = ("content-type", "text/plain")
    posted = front.client.request("POST", f"{APP}/form", [kind], b"a=1")
    assert (posted.json["method"], posted.json["body"]) == ("POST", "a=1")


@pytest.mark.parametrize("name", ALL)
def test_forwarded_headers_of_the_client_ignored(name: str, start: Start) -> None:
    front = start(name, skip_auth_routes=["GET=^/public/"])
    anonymous = front.anonymous()
    assert anonymous.get(f"{APP}/public/x").status == 200
    before = front.app.count
    for field in (
        {"x-forwarded-uri": "/public/x"},
        {"x-original-url": f"{APP}/public/x"},
        {"x-original-uri": "/public/x"},
        {"x-envoy-original-path": "/public/x"},
        {"x-forwarded-method": "GET", "x-forwarded-host": "evil.example"},
    ):
        reply = anonymous.request("GET", f"{APP}/admin", field.items())
        assert reply.status in (400, 401), (field, reply.status)
    for path in ("/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin"):
        assert anonymous.get(APP + path).status in (400, 401)
    assert anonymous.request("POST", f"{APP}/public/x", (), b"a").status == 401
    assert front.app.count == before
    front.log_in("bob")
    sent = {
        "x_auth_request_groups": "admins",
        "x_auth_request_email": "root@example.com",
        "x_auth_request_access_token": "forged",
    }
    headers = received(front.get("/", **sent))
    assert headers["x-auth-request-groups"] == "staff"
    assert headers["x-auth-request-email"] == "bob@example.com"
    assert not headers.get("x-auth-request-access-token")


# Caddy drops the cookies of an auth check: its example requires a session store.
@pytest.mark.parametrize("name", ["traefik", "envoy", "haproxy"])
def test_refreshed_cookie_reaches_the_browser(name: str, start: Start) -> None:
    front = start(name, cookie_refresh="1s")
    front.log_in()
    before = front.client.cookies.named("_oauth2_proxy")
    wait_for(lambda: bool(front.get("/").all("set-cookie")), "a new cookie", 15.0)
    after = front.client.cookies.named("_oauth2_proxy")
    assert set(after) == set(before)
    assert after != before
    assert received(front.get("/"))["x-auth-request-email"] == "alice@example.com"


@pytest.mark.parametrize("name", ["caddy", "envoy", "haproxy"])
def test_authproxy_stopped_gateway_denies(name: str, start: Start) -> None:
    front = start(name)
    front.log_in()
    before = front.app.count
    *_, server = [one for one in processes.running() if one.name == "authproxy"]
    server.stop()
    reply = front.get("/")
    assert reply.status >= 500
    assert front.app.count == before


@pytest.mark.parametrize(("user", "status"), [("alice", 200), ("bob", 403)])
def test_nginx_query_in_auth_request_applies(
    user: str, status: int, start: Start
) -> None:
    front = start("nginx")
    assert "/oauth2/start" in front.get("/").text
    login = front.get("/oauth2/start?rd=/")
    front.client.get(front.provider.log_in(login.location, user))
    assert front.get("/").status == status
