"""Start authproxy and oauth2-proxy with the same file and environment."""

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
WORKERS = 2  # of authproxy, also on a machine with one CPU
COOKIE_SECRET = "iSGfyi0EbDrkg6eNJpAXGLmwN1jZDZossmElq5GgXeI="
REFERENCE = (ROOT / "tests" / "e2e" / "reference.cfg").read_text()


@dataclass(frozen=True)
class AuthServer:
    """A running authproxy or oauth2-proxy."""

    name: str
    process: Process
    port: int

    @property
    def url(self) -> str:
        """The URL of its listener, without a gateway."""
        return f"http://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()


def command(name: str) -> list[str | Path] | None:
    """Return the command of a program, None if it is not installed.

    *name* is `AUTHPROXY`, `OAUTH2_PROXY` or the path of a zipapp.
    """
    if name == OAUTH2_PROXY:
        program = find(OAUTH2_PROXY)
        return [program] if program else None
    if name == AUTHPROXY:
        # Without coverage, which would double the time of the many short runs: what
        # they execute is measured in the tests of the server.
        return [sys.executable, "-m", "authproxy"]
    return [sys.executable, name]


def coverage_arguments() -> list[str | Path]:
    """Return the arguments that measure coverage in a process, if the tests do."""
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
    """Start the program *name* with the reference configuration and wait for it.

    Args:
        folder: directory for its configuration and its log.
        config: the text of the configuration file.
        environment: added to the environment; replaces variables of the same name.
        path: the program is ready when GET of this path returns 200; with "", when it
            listens.
    """
    started = command(name)
    assert started, f"{name} is not installed"
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
    process.wait_until(lambda: _is_ready(server, path), 60.0)
    return server


def _is_ready(server: AuthServer, path: str) -> bool:
    if not path:
        return listens(server.port)
    try:
        return Client().get(server.url + path).status == 200
    except OSError:
        return False
