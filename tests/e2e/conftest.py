"""Real programs for the tests of this folder; Keycloak is started once.

The reference files are an existing oauth2-proxy deployment: its configuration, its
nginx server block and its sign-in page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import keycloak as kc
from support import nginx, peers
from support.certificates import Certificate, make_certificate
from support.echo import EchoApp
from support.http import Client, Cookies, Reply
from support.keycloak import Keycloak, start_keycloak, submit_credentials
from support.ports import free_port
from support.processes import Process
from support.programs import ROOT, find
from support.redis import RedisServer

REFERENCE_NGINX = (ROOT / "tests" / "e2e" / "reference_nginx.conf").read_text()
DEPLOY_NGINX = (ROOT / "deploy" / "nginx.conf").read_text()


def require(name: str) -> Path:
    """Return the path of the program *name*; skip the test if it is not installed."""
    program = find(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for the loopback names of the tests."""
    return make_certificate(
        tmp_path_factory.mktemp("certificate"),
        "127.0.0.1",
        "localhost",
        "app.example.com",
    )


@pytest.fixture(scope="session")
def keycloak(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Keycloak]:
    """A Keycloak with the realm of the reference deployment."""
    script = require("keycloak")
    started = start_keycloak(script, tmp_path_factory.mktemp("keycloak"), certificate)
    yield started
    started.process.stop()


@pytest.fixture(scope="session")
def app() -> Iterator[EchoApp]:
    """An application that echoes its requests."""
    with EchoApp() as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server."""
    if find("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def start(
    tmp_path: Path, keycloak: Keycloak
) -> Iterator[Callable[..., peers.AuthServer]]:
    """Start authproxy or oauth2-proxy with the reference configuration and changes."""
    servers: list[peers.AuthServer] = []

    def starter(name: str = peers.AUTHPROXY, **changes: object) -> peers.AuthServer:
        if peers.command(name) is None:
            pytest.skip(f"{name} is not installed")
        issuer = str(changes.pop("issuer", keycloak.issuer))
        folder = tmp_path / f"{Path(name).name}-{len(servers)}"
        server = peers.start_auth_server(name, folder, issuer, **changes)  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield starter
    for server in servers:
        server.stop()


@pytest.fixture
def gateway(
    tmp_path: Path, certificate: Certificate, app: EchoApp
) -> Iterator[Callable[..., Gateway]]:
    """Start nginx with a server block in front of an auth server."""
    program = require("nginx")
    processes: list[Process] = []

    def starter(server: peers.AuthServer, block: str = REFERENCE_NGINX) -> Gateway:
        port = free_port()
        folder = tmp_path / f"nginx-{len(processes)}"
        folder.mkdir()
        make = (
            nginx.reference_block
            if "oauth2-proxy.svc" in block
            else nginx.deployed_block
        )
        text = make(block, port, server.port, app.port)
        processes.append(nginx.start_nginx(program, folder, text, port, certificate))
        return Gateway(port)

    yield starter
    for process in processes:
        process.stop()


class Gateway:
    """A gateway that serves https://app.example.com, and a client for it."""

    def __init__(self, port: int, cookies: Cookies | None = None) -> None:
        self.port = port
        self.client = Client({"app.example.com": port}, cookies)

    def get(self, path: str, **headers: str) -> Reply:
        """GET *path* of the application."""
        return self.client.get(kc.APP + path, **headers)

    def log_in(self, user: str = "lisan123", rd: str = "/") -> Reply:
        """Log in through Keycloak's form; return the response of the callback."""
        return log_in(self.client, kc.APP, user, rd)


def log_in(client: Client, base: str, user: str, rd: str = "/") -> Reply:
    """Log in at *base*; return the response of the callback."""
    return client.get(callback_url(client, base, user, rd).replace(kc.APP, base, 1))


def callback_url(client: Client, base: str, user: str, rd: str = "/") -> str:
    """Log in at Keycloak; return the callback URL to which it redirects."""
    started = client.get(f"{base}/oauth2/start?rd={rd}")
    assert started.status == 302, started.text
    page = client.follow(started, until=kc.APP)
    if page.location.startswith(kc.APP):
        return page.location  # single sign-on
    response = submit_credentials(client, page, user)
    response = client.follow(response, until=f"{kc.APP}/oauth2/callback")
    assert response.location, response.text[:2000]
    return response.location
