"""Forward auth behind four gateways with our examples: log in, come back, stay out."""

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
from support.envoy import Envoy
from support.haproxy import start_haproxy
from support.http import Client, Reply
from support.ports import free_port
from support.processes import wait_for
from support.program import Program
from support.programs import ROOT
from support.traefik import Traefik

from .conftest import SEED_NGINX, need
from .test_traefik import OURS

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
    """A gateway, and a browser in front of it."""

    def __init__(self, port: int, provider: DevProvider, app: EchoApp) -> None:
        self.client = Client({HOST: port})
        self.app = app
        self._port = port
        self.provider = provider

    def get(self, path: str, **headers: str) -> Reply:
        """GET as a browser that navigates, unless *headers* say otherwise."""
        return self.client.get(APP + path, **{**BROWSER, **headers})

    def log_in(self, user: str = "alice", path: str = DEEP) -> Reply:
        """From *path* through the sign-in page and the provider; the callback's answer."""
        sent = self.get(path)
        assert sent.status == 302, (sent.status, sent.text)
        assert sent.location.startswith(f"{APP}/oauth2/sign_in?rd=")
        page = self.client.get(sent.location)
        assert "Sign in with" in page.text
        start = sent.location.replace("/sign_in?", "/start?")
        login = self.client.get(start)
        return self.client.get(self.provider.log_in(login.location, user))

    def stranger(self) -> Client:
        """Somebody else."""
        return Client({HOST: self._port})


@pytest.fixture(scope="module")
def provider() -> Iterator[DevProvider]:
    """A provider with two users."""
    users = (
        User(name="alice", password="pw", groups=("admins",)),
        User(name="bob", password="pw", groups=("staff",)),
    )
    client = IdpClient(id="web", secret="s", redirect_uris=(f"{APP}/oauth2/callback",))
    made = DevProvider(ProviderConfig(users=users, clients=(client,)))
    with serve(made):
        yield made


@pytest.fixture
def start(
    tmp_path: Path, provider: DevProvider, certificate: Certificate, app: EchoApp
) -> Iterator[Start]:
    """Start authproxy and a gateway by its name."""
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
    return running.enter_context(Traefik(auth, app, certificate, OURS)).port


def _envoy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    envoy = Envoy(auth, app, certificate, DEPLOY / "envoy.yaml")
    return running.enter_context(envoy).port


def _caddy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    program, port = need("caddy"), free_port()
    text = (DEPLOY / "Caddyfile").read_text()
    site = caddy_support.deployed_site(text, port, auth, app, certificate)
    site = site.replace(f"{HOST}:", f"https://{HOST}:")
    running.enter_context(caddy_support.start_caddy(program, folder, site, port))
    return port


def _haproxy(
    running: ExitStack, folder: Path, auth: int, app: int, certificate: Certificate
) -> int:
    program, port = need("haproxy"), free_port()
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
    """nginx with a query where it reads none, for one group alone."""
    program, port = need("nginx"), free_port()
    asked = "auth_request /oauth2/auth?allowed_groups=admins;"
    assert "auth_request /oauth2/auth;" in SEED_NGINX
    block = SEED_NGINX.replace("auth_request /oauth2/auth;", asked)
    text = nginx.seed_block(block, port, auth, app)
    running.enter_context(nginx.start_nginx(program, folder, text, port, certificate))
    return port


def received(reply: Reply) -> dict[str, str]:
    """The headers that the application got."""
    assert reply.status == 200, (reply.status, reply.text)
    return dict(reply.json["headers"])


@pytest.mark.parametrize("name", ALL)
def test_a_browser_logs_in_and_comes_back(name: str, start: Start) -> None:
    front = start(name)
    before = front.app.count
    back = front.log_in()
    assert front.app.count == before  # nothing reached the application
    assert (back.status, back.location) == (302, APP + DEEP)
    page = front.get(DEEP)
    headers = received(page)
    assert page.json["target"] == DEEP
    assert headers["x-auth-request-email"] == "alice@example.com"
    assert headers["x-auth-request-groups"].split(",")[0] == "admins"
    # A script of somebody else gets 401, whatever it sends; and no identity.
    stranger = front.stranger()
    for method, fields in (
        ("GET", {"accept": "*/*"}),
        ("GET", {"accept": "text/html", "x-requested-with": "XMLHttpRequest"}),
        ("GET", {"accept": "text/html", "sec-fetch-mode": "cors"}),
        ("POST", {"accept": "text/html", "sec-fetch-mode": "navigate"}),
    ):
        body = b"a=1" if method == "POST" else b""
        reply = stranger.request(method, APP + DEEP, fields.items(), body)
        assert reply.status == 401, (method, fields, reply.text)
        assert reply.header("content-type") == "application/json"
        assert reply.json["error"] == "login_required"
        assert not reply.header("x-auth-request-email")
    # Methods and bodies of a user reach the application.
    kind = ("content-type", "text/plain")
    posted = front.client.request("POST", f"{APP}/form", [kind], b"a=1")
    assert (posted.json["method"], posted.json["body"]) == ("POST", "a=1")


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_a_client_passes_for_the_gateways_word(
    name: str, start: Start
) -> None:
    front = start(name, skip_auth_routes=["GET=^/public/"])
    stranger = front.stranger()
    assert stranger.get(f"{APP}/public/x").status == 200
    before = front.app.count
    for field in (
        {"x-forwarded-uri": "/public/x"},
        {"x-original-url": f"{APP}/public/x"},
        {"x-original-uri": "/public/x"},
        {"x-envoy-original-path": "/public/x"},
        {"x-forwarded-method": "GET", "x-forwarded-host": "evil.example"},
    ):
        reply = stranger.request("GET", f"{APP}/admin", field.items())
        assert reply.status in (400, 401), (field, reply.status)
    for path in ("/public/../admin", "/public/%2e%2e/admin", "/public/..%2fadmin"):
        assert stranger.get(APP + path).status in (400, 401)
    assert stranger.request("POST", f"{APP}/public/x", (), b"a").status == 401
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


# Caddy keeps the answer's cookies to itself: its example wants a session store.
@pytest.mark.parametrize("name", ["traefik", "envoy", "haproxy"])
def test_a_refreshed_session_reaches_the_browser(name: str, start: Start) -> None:
    front = start(name, cookie_refresh="1s")
    front.log_in()
    before = front.client.cookies.named("_oauth2_proxy")
    wait_for(lambda: bool(front.get("/").all("set-cookie")), "a new cookie", 15.0)
    after = front.client.cookies.named("_oauth2_proxy")
    assert set(after) == set(before)
    assert after != before
    assert received(front.get("/"))["x-auth-request-email"] == "alice@example.com"


@pytest.mark.parametrize("name", ["caddy", "haproxy"])
def test_without_authproxy_nobody_passes(name: str, start: Start) -> None:
    front = start(name)
    front.log_in()
    before = front.app.count
    *_, server = [one for one in processes.running() if one.name == "authproxy"]
    server.stop()
    reply = front.get("/")
    assert reply.status >= 500
    assert front.app.count == before


@pytest.mark.parametrize(("user", "status"), [("alice", 200), ("bob", 403)])
def test_nginx_may_ask_with_a_query(user: str, status: int, start: Start) -> None:
    front = start("nginx")
    assert "/oauth2/start" in front.get("/").text
    login = front.get("/oauth2/start?rd=/")
    front.client.get(front.provider.log_in(login.location, user))
    assert front.get("/").status == status
