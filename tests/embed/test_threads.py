"""The core in a threaded server, without an event loop."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from authproxy_core import (
    AuthProxy,
    Fetch,
    FetchError,
    Forward,
    Lock,
    Request,
    Response,
    UpstreamSettings,
    decide_sync,
    drive_sync,
)
from authproxy_devprovider.config import ProviderConfig
from authproxy_devprovider.provider import DevProvider, serve
from support.harness import ALICE, rule, settings
from support.http import Client
from support.in_thread import InThread
from support.ports import LOOPBACK


def perform(effect: Any) -> Any:
    """Perform the effects of a login with the standard library."""
    if isinstance(effect, Lock):
        return True
    if not isinstance(effect, Fetch):
        return None
    request = urllib.request.Request(
        effect.url,
        effect.body or None,
        {name.decode(): value.decode() for name, value in effect.headers},
        method=effect.method,
    )
    try:
        with urllib.request.urlopen(request, timeout=effect.timeout) as reply:
            return Response(reply.status, (), reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, (), error.read())
    except OSError as error:
        raise FetchError(str(error)) from None


@pytest.fixture
def running() -> Iterator[tuple[str, DevProvider]]:
    provider = DevProvider(ProviderConfig(users=(ALICE,)))
    with serve(provider) as idp:
        proxy = AuthProxy(
            settings(
                cookie={"secure": False},
                provider={"issuer": idp.url},
                upstreams=(UpstreamSettings(id="app", uri="http://app.invalid"),),
                inject_request_headers=(rule("X-User", "email"),),
            )
        )
        drive_sync(proxy.warm_up(), perform)
        lock = threading.Lock()  # an AuthProxy is not thread-safe

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fields = tuple(
                    (name.lower().encode(), value.encode())
                    for name, value in self.headers.items()
                )
                request = Request(
                    b"GET", self.path.encode(), fields, self.client_address[0]
                )
                with lock:
                    decision = decide_sync(proxy.handle(request), perform)
                if isinstance(decision, Forward):
                    body = json.dumps(
                        {
                            name.decode(): value.decode()
                            for name, value in decision.headers
                        }
                    ).encode()
                    self.respond(200, decision.response_headers, body)
                else:
                    self.respond(decision.status, decision.headers, decision.body)

            def respond(self, status: int, headers: Any, body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name.decode(), value.decode())
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        with InThread(server) as running:
            yield f"http://{LOOPBACK}:{running.port}", provider


def test_threaded_server_login_protects_the_application(
    running: tuple[str, DevProvider],
) -> None:
    url, provider = running
    client = Client()
    assert client.get(f"{url}/page").status == 403
    started = client.get(f"{url}/oauth2/start?rd=/page")
    callback = client.get(provider.log_in(started.location, "alice"))
    assert callback.location == f"{url}/page"
    reply = client.get(f"{url}/page")
    assert reply.json["x-user"] == "alice@example.com"
