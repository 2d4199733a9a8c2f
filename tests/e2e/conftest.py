"""Real programs for the tests of this folder; each is started once."""

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

SEED_NGINX = (ROOT / "tests" / "e2e" / "seed_nginx.conf").read_text()
DEPLOY_NGINX = (ROOT / "deploy" / "nginx.conf").read_text()


def need(name: str) -> Path:
    """The program, or a skip that names it."""
    program = find(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    return program


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for everything on loopback."""
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
    """A Keycloak with the seed's realm."""
    script = need("keycloak")
    started = start_keycloak(script, tmp_path_factory.mktemp("keycloak"), certificate)
    yield started
    started.process.stop()


@pytest.fixture(scope="session")
def app() -> Iterator[EchoApp]:
    """The application: says what it received."""
    with EchoApp() as running:
        yield running


@pytest.fixture
def start(
    tmp_path: Path, keycloak: Keycloak
) -> Iterator[Callable[..., peers.AuthServer]]:
    """Start authproxy or the original with the seed's configuration, and changes."""
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
    """Start nginx in front of an auth server."""
    program = need("nginx")
    processes: list[Process] = []

    def starter(server: peers.AuthServer, block: str = SEED_NGINX) -> Gateway:
        port = free_port()
        folder = tmp_path / f"nginx-{len(processes)}"
        folder.mkdir()
        make = nginx.seed_block if "oauth2-proxy.svc" in block else nginx.deployed_block
        text = make(block, port, server.port, app.port)
        processes.append(nginx.start_nginx(program, folder, text, port, certificate))
        return Gateway(port)

    yield starter
    for process in processes:
        process.stop()


class Gateway:
    """A gateway that serves https://app.example.com, and a browser's client for it."""

    def __init__(self, port: int, cookies: Cookies | None = None) -> None:
        self.port = port
        self.client = Client({"app.example.com": port}, cookies)

    def get(self, path: str, **headers: str) -> Reply:
        """GET of the application."""
        return self.client.get(kc.APP + path, **headers)

    def log_in(self, user: str = "lisan123", rd: str = "/") -> Reply:
        """Through Keycloak's form and back; the answer of the callback."""
        return log_in(self.client, kc.APP, user, rd)


def log_in(client: Client, base: str, user: str, rd: str = "/") -> Reply:
    """Log in at *base*; the answer of the callback."""
    return client.get(callback_url(client, base, user, rd).replace(kc.APP, base, 1))


def callback_url(client: Client, base: str, user: str, rd: str = "/") -> str:
    """The URL that Keycloak sends the browser back to."""
    started = client.get(f"{base}/oauth2/start?rd={rd}")
    assert started.status == 302, started.text
    page = client.follow(started, until=kc.APP)
    if page.location.startswith(kc.APP):
        return page.location  # single sign-on
    answer = submit_credentials(client, page, user)
    answer = client.follow(answer, until=f"{kc.APP}/oauth2/callback")
    assert answer.location, answer.text[:2000]
    return answer.location
