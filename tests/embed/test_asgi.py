"""The ASGI middleware around Starlette under uvicorn."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from authproxy.asgi import AuthMiddleware, build_request
from authproxy_core import AuthProxy, Secret, UpstreamSettings
from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig
from authproxy_devprovider.provider import DevProvider, serve
from support.harness import ALICE, BOB, provider_settings, rule, settings
from support.http import Client
from support.ports import free_port
from support.processes import wait_for


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    return JSONResponse({"headers": dict(request.headers), "body": body.decode()})


@pytest.fixture
def running() -> Iterator[tuple[str, DevProvider]]:
    """Yield the URL of a protected Starlette application, and its provider."""
    provider = DevProvider(ProviderConfig(users=(ALICE, BOB)))
    with serve(provider) as idp:
        given = settings(
            cookie={"secure": False},
            provider={"issuer": idp.url},
            upstreams=(UpstreamSettings(id="app", uri="http://app.invalid"),),
            inject_request_headers=(rule("X-Forwarded-Email", "email"),),
            signature_key=Secret("sha256:key"),
        )
        app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
        guarded = AuthMiddleware(app, AuthProxy(given))  # type: ignore[arg-type]
        with served(guarded) as url:
            yield url, provider


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Yield the URL of a protected application when its provider is ready."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_level="warning", lifespan="on", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: server.started, "uvicorn")
        wait_for(lambda: Client().get(f"{url}/ready").status == 200, "the provider")
        yield url
    finally:
        server.should_exit = True
        thread.join()


PAGE = Path(__file__).parents[2] / "docs" / "embedding.md"


def test_asgi_documented_example_works() -> None:
    """Unchanged except for the provider's URL and secret, and plain HTTP."""
    [code] = re.findall(
        r"```python\n(import authproxy_core.*?)```", PAGE.read_text(), re.DOTALL
    )
    assert len(code.splitlines()) <= 25
    client = DemoClient(id="app", secret="s3cret")
    provider = DevProvider(ProviderConfig(users=(ALICE,), clients=(client,)))
    with serve(provider) as idp:
        for text, replacement in (
            ("https://keycloak.example.com/realms/main", idp.url),
            ("…", client.secret),
            ("CookieSettings(", "CookieSettings(secure=False, "),
        ):
            assert text in code
            code = code.replace(text, replacement)
        names: dict[str, Any] = {}
        exec(code, names)
        with served(names["app"]) as url:
            browser = Client()
            assert browser.get(f"{url}/").status == 403
            log_in(browser, url, provider, "/")
            assert browser.get(f"{url}/").text == "Hello, alice@example.com"


def log_in(client: Client, url: str, provider: DevProvider, rd: str = "/deep") -> None:
    started = client.get(f"{url}/oauth2/start?rd={rd}")
    callback = provider.log_in(started.location, "alice")
    reply = client.get(callback)
    assert (reply.status, reply.location) == (302, f"{url}{rd}")


def test_asgi_login_protects_the_application(running: tuple[str, DevProvider]) -> None:
    url, provider = running
    client = Client()
    page = client.get(f"{url}/deep")
    assert page.status == 403
    assert "Sign in with Keycloak" in page.text
    log_in(client, url, provider)
    reply = client.request(
        "POST", f"{url}/deep", [("x-forwarded-email", "x@y")], b"body"
    )
    assert reply.status == 200
    assert reply.json["headers"]["x-forwarded-email"] == "alice@example.com"
    assert reply.json["body"] == "body"  # although it was read for the signature
    assert reply.json["headers"]["gap-signature"].startswith("sha256 ")
    assert reply.header("gap-auth") == "alice@example.com"
    assert client.get(f"{url}/oauth2/auth").status == 202
    head = client.request("HEAD", f"{url}/robots.txt")
    assert (head.status, head.body) == (200, b"")


def test_asgi_posted_form_read_within_limit(running: tuple[str, DevProvider]) -> None:
    url, _ = running
    client = Client()
    reply = client.submit(f"{url}/oauth2/start", {"rd": "/posted"})
    assert reply.status == 302
    too_large = client.submit(f"{url}/oauth2/start", {"rd": "x" * 70_000})
    assert too_large.status == 413


def test_build_request_minimal_scope() -> None:
    scope = {"method": "GET", "path": "/é", "headers": [(b"Host", b"x")]}
    request = build_request(scope)
    assert request.target == b"/%C3%A9"
    assert request.headers == ((b"host", b"x"),)
    assert (request.peer, request.secure) == ("", False)


def test_settings_built_in_code_accepted() -> None:
    given = msgspec.structs.replace(settings(), providers=(provider_settings(),))
    assert AuthProxy(given).settings is given
    assert urlsplit(given.providers[0].issuer).scheme == "https"
    assert time.time() > 0
