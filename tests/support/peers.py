"""authproxy and oauth2-proxy, started alike: the same file, the same environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.http import Client
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import ROOT, find

AUTHPROXY = "authproxy"
OAUTH2_PROXY = "oauth2-proxy"
SOURCES = f"{ROOT / 'core'}:{ROOT / 'server'}"
WORKERS = 2  # of authproxy, on machines with one CPU as well
COOKIE_SECRET = "iSGfyi0EbDrkg6eNJpAXGLmwN1jZDZossmElq5GgXeI="
REFERENCE = (ROOT / "tests" / "e2e" / "reference.cfg").read_text()


@dataclass(frozen=True)
class AuthServer:
    """One of the two, running; ``url`` is where it listens itself."""

    name: str
    process: Process
    port: int

    @property
    def url(self) -> str:
        """Its own address, without a gateway."""
        return f"http://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def command(name: str) -> list[str | Path] | None:
    """How a program is started; None when it isn't there.

    *name* is one of the two, or the path of an archive of authproxy.
    """
    if name == OAUTH2_PROXY:
        program = find(OAUTH2_PROXY)
        return [program] if program else None
    if name == AUTHPROXY:
        return [sys.executable, *measured(), "-m", "authproxy"]
    return [sys.executable, name]


def measured() -> list[str | Path]:
    """When coverage is measured, measure the server's processes too."""
    coverage = sys.modules.get("coverage")
    if coverage is None or coverage.Coverage.current() is None:
        return []
    data = os.environ.get("COVERAGE_FILE") or ROOT / ".coverage"
    files = [f"--rcfile={ROOT / 'pyproject.toml'}", f"--data-file={data}"]
    return ["-m", "coverage", "run", "--parallel-mode", *files]


def start_auth_server(
    name: str,
    folder: Path,
    issuer: str,
    *,
    config: str = REFERENCE,
    environment: Mapping[str, str] | None = None,
    path: str = "/ready",
) -> AuthServer:
    """Start the program *name* with the seed's configuration and return it.

    Args:
        folder: takes its configuration and its log.
        config: the text of the configuration file.
        environment: settings beside the seed's own; those named alike replace them.
        path: it has started when this path is answered with 200; "" means, when it
            listens.
    """
    started = command(name)
    assert started, f"{name} isn't installed"
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(name).name
    file = folder / f"{name}.cfg"
    file.write_text(config)
    port = free_port()
    process = Process(
        name,
        [*started, "--config", file],
        folder=folder,
        environment={
            "OAUTH2_PROXY_CLIENT_ID": CLIENT_ID,
            "OAUTH2_PROXY_CLIENT_SECRET": CLIENT_SECRET,
            "OAUTH2_PROXY_COOKIE_SECRET": COOKIE_SECRET,
            "OAUTH2_PROXY_OIDC_ISSUER_URL": issuer,
            "OAUTH2_PROXY_REDIRECT_URL": "",
            "OAUTH2_PROXY_HTTP_ADDRESS": f"{LOOPBACK}:{port}",
            "OAUTH2_PROXY_WORKERS": str(WORKERS),
            "AUTHPROXY_CACHE": str(folder / "unpacked"),
            **({"PYTHONPATH": SOURCES} if name == AUTHPROXY else {}),
            **(environment or {}),
        },
    )
    server = AuthServer(name, process, port)
    process.wait_until(lambda: _answers(server, path), 30.0)
    return server


def _answers(server: AuthServer, path: str) -> bool:
    if not path:
        return listens(server.port)
    # Each worker gets the provider's keys by itself; an answer tells of one of them.
    ready = server.process.log().count("[provider_ready]")
    if path == "/ready" and server.name != OAUTH2_PROXY and ready < WORKERS:
        return False
    try:
        return Client().get(server.url + path).status == 200
    except OSError:
        return False
