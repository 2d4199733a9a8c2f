"""Start the demonstration: provider and sample application in threads, authproxy here."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence

from authproxy_core.settings import (
    CookieSettings,
    ProviderSettings,
    Secret,
    Settings,
    UpstreamSettings,
)

from .. import __version__
from ..config.headers import request_rules
from ..config.collected import Collected
from ..server_settings import Limits, Listener, ServerSettings
from ..workers import run
from . import sample_app
from .config import Client, DemoConfig, example_users
from .provider import DemoProvider, serve
from .web import Running

HOST = "127.0.0.1"
BANNER = """
  authproxy demo: NOT FOR PRODUCTION. Everything listens on this machine only.

    open      http://localhost:{port}/
    users     {users}
    password  {password}

  Stop with Ctrl-C.
"""


def run_demo(arguments: Sequence[str]) -> int:
    """Run until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="authproxy demo", description="a demonstration")
    parser.add_argument("--port", type=int, default=4180, help="port of authproxy (4180)")
    port: int = parser.parse_args(arguments).port
    password, secret = secrets.token_hex(4), secrets.token_urlsafe(24)
    callbacks = tuple(
        f"http://{host}:{port}/oauth2/callback" for host in ("localhost", HOST)
    )
    client = Client(id="authproxy-demo", secret=secret, redirect_uris=callbacks)
    config = DemoConfig(users=example_users(password), clients=(client,))
    with serve(DemoProvider(config)) as provider, Running(sample_app.handle, HOST, 0) as app:
        users = ", ".join(f"{u.name} ({' '.join(u.groups)})" for u in config.users)
        text = BANNER.format(port=port, users=users, password=password)
        sys.stdout.write(text)
        sys.stdout.flush()
        return run(_settings(port, provider.url, app.url, client))


def _settings(port: int, issuer: str, app: str, client: Client) -> ServerSettings:
    provider = ProviderSettings(
        id="demo",
        type="keycloak-oidc",
        name="the demo provider",
        client_id=client.id,
        client_secret=Secret(client.secret),
        issuer=issuer,
    )
    core = Settings(
        # Plain http on this machine: a secure cookie would not come back.
        cookie=CookieSettings(secrets=(Secret(secrets.token_bytes(32)),), secure=False),
        providers=(provider,),
        email_domains=("*",),
        inject_request_headers=request_rules(Collected()),
        upstreams=(UpstreamSettings(id="sample", path="/", uri=app),),
        version=__version__,
    )
    return ServerSettings(
        core=core,
        listeners=(Listener(host=HOST, port=port),),
        limits=Limits(drain_timeout=2.0),
    )

