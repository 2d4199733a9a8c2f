"""Start the demonstration: provider, sample application and authproxy.

Provider and application run in threads, authproxy runs in the main thread.

authproxy is configured by its documented flags. The environment is ignored, because it
may belong to a real deployment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from authproxy.config.load import load_settings
from authproxy.net.listeners import ListenError, ListeningSocket, open_listeners
from authproxy.server_settings import Listener, ServerSettings
from authproxy.worker.serve import serve as serve_authproxy
from authproxy_devprovider.config import Client, ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from authproxy_devprovider.web import RunningServer

from . import sample_app

HOST = "127.0.0.1"
PORT = 4180
POLL_INTERVAL = 0.02  # seconds between two readiness checks
READY_REQUEST = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
BANNER = """
  authproxy demo: NOT FOR PRODUCTION. All servers listen on the loopback interface.

    open      http://localhost:{port}/
    users     {users}
    password  {password}

  Stop with Ctrl-C.

"""


def run_demo(arguments: Sequence[str]) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    port = _parse_port(arguments)
    # In effect before and after the handlers of authproxy's event loop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with open_listeners((Listener(host=HOST, port=port),)) as sockets:
            _run(sockets)
    except ListenError as error:
        sys.stderr.write(f"authproxy demo: {error}; choose another port with --port\n")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _parse_port(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="authproxy demo", description=f"Start a demonstration on {HOST}."
    )
    help_ = f"port of authproxy (default: {PORT}; 0: any free port)"
    parser.add_argument("--port", type=int, default=PORT, help=help_)
    port: int = parser.parse_args(arguments).port
    if not 0 <= port <= 65535:
        parser.error(f"--port: got {port}, expected 0 to 65535")
    return port


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(sockets: Sequence[ListeningSocket]) -> None:
    """Run provider, sample application and authproxy until authproxy exits."""
    port = sockets[0].socket.getsockname()[1]
    password = secrets.token_hex(4)
    client = Client(
        id="authproxy-demo",
        secret=secrets.token_urlsafe(24),
        redirect_uris=tuple(
            f"http://{host}:{port}/oauth2/callback" for host in ("localhost", HOST)
        ),
    )
    config = ProviderConfig(users=example_users(password), clients=(client,))
    with contextlib.ExitStack() as stack:
        provider = stack.enter_context(serve(DevProvider(config), HOST))
        app = stack.enter_context(RunningServer(sample_app.handle, HOST))

        users = ", ".join(f"{u.name} ({' '.join(u.groups)})" for u in config.users)
        banner = BANNER.format(port=port, users=users, password=password)
        tasks: list[asyncio.Task[None]] = []  # a reference keeps the task alive

        def started() -> None:
            loop = asyncio.get_running_loop()
            tasks.append(loop.create_task(_show_when_ready(banner, port)))

        settings = _settings(port, provider.url, app.url, client)
        serve_authproxy(settings, sockets, started=started)


async def _show_when_ready(banner: str, port: int) -> None:
    """Print *banner* once users can sign in."""
    while not await _is_ready(port):  # noqa: ASYNC110 - polls the endpoint
        await asyncio.sleep(POLL_INTERVAL)
    sys.stdout.write(banner)
    sys.stdout.flush()


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(READY_REQUEST)
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
    except OSError:
        return False


def _settings(port: int, issuer: str, app: str, client: Client) -> ServerSettings:
    flags = {
        "http-address": f"{HOST}:{port}",
        "provider": "keycloak-oidc",
        "provider-display-name": "the demo provider",
        "oidc-issuer-url": issuer,
        "client-id": client.id,
        "client-secret": client.secret,
        "cookie-secret": secrets.token_urlsafe(32),
        "cookie-secure": "false",  # a secure cookie requires HTTPS
        "email-domain": "*",
        "upstream": app,
        "drain-timeout": "2s",
        "workers": "1",  # in this process, so no shared state is required
        "silence-ping-logging": "true",  # hides the readiness checks
    }
    return load_settings([f"--{name}={value}" for name, value in flags.items()], {})
