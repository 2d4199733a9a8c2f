"""WebSockets and streams behind the middleware, under Starlette and uvicorn."""

from __future__ import annotations

import asyncio
import http.client
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import uvicorn
import websockets.exceptions
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import ClientConnection, connect

from authproxy.asgi import AuthMiddleware
from authproxy_core import AuthProxy, Secret, UpstreamSettings
from support.harness import rule, settings
from support.ports import free_port
from support.processes import wait_for
from support.program import SECRET, session_cookie

go_on = threading.Event()


async def chat(socket: WebSocket) -> None:
    """Tell who it is, then send back what comes."""
    await socket.accept(headers=[(b"x-app", b"1")])
    await socket.send_text(socket.headers["x-forwarded-email"])
    async for message in socket.iter_text():
        if message == "close":
            await socket.close(4321, "enough")
            return
        await socket.send_text(message)


async def pieces(request: Request) -> StreamingResponse:
    """One piece, and the second when the test has seen the first."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.to_thread(go_on.wait, 10)
        yield b"second"

    return StreamingResponse(stream())


async def count(request: Request) -> StreamingResponse:
    """The size of what was sent."""
    size = 0
    async for piece in request.stream():
        size += len(piece)

    async def answer() -> AsyncIterator[bytes]:
        yield b"%d" % size

    return StreamingResponse(answer())


@pytest.fixture(params=[0.0, 0.3])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A guarded application; with a lifetime for websockets by parameter."""
    given = settings(
        cookie={"secure": False, "secrets": (Secret(SECRET),)},
        provider={"id": "oidc", "issuer": "http://127.0.0.1:9"},
        upstreams=(UpstreamSettings(id="app", uri="http://app.invalid"),),
        inject_request_headers=(rule("X-Forwarded-Email", "email"),),
    )
    routes = [
        WebSocketRoute("/chat", chat),
        Route("/pieces", pieces),
        Route("/count", count, methods=["POST"]),
    ]
    proxy = AuthProxy(given)
    guarded: Any = AuthMiddleware(
        Starlette(routes=routes),  # type: ignore[arg-type]
        proxy,
        websocket_lifetime=request.param,
    )
    number = free_port()
    config = uvicorn.Config(
        guarded, port=number, log_level="warning", lifespan="on", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "uvicorn")
    yield number
    server.should_exit = True
    thread.join()


unlimited = pytest.mark.parametrize("port", [0.0], indirect=True)
limited = pytest.mark.parametrize("port", [0.3], indirect=True)


def opened(port: int, *, origin: str | None = None, **headers: str) -> ClientConnection:
    fields = {"Cookie": session_cookie(), **headers}
    url = f"ws://127.0.0.1:{port}/chat"
    return connect(url, additional_headers=fields, origin=origin)  # type: ignore[arg-type]


@unlimited
def test_a_websocket_with_a_session(port: int) -> None:
    spoofed = {"X-Forwarded-Email": "root@example.com"}
    with opened(port, origin=f"http://127.0.0.1:{port}", **spoofed) as client:
        assert client.response is not None
        assert client.response.headers["x-app"] == "1"
        assert client.response.headers["gap-auth"] == "alice@example.com"
        assert client.recv(timeout=10) == "alice@example.com"
        client.send("hello")
        assert client.recv(timeout=10) == "hello"
        client.send("close")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as raised:
            client.recv(timeout=10)
        assert raised.value.rcvd is not None
        assert raised.value.rcvd.code == 4321


@unlimited
@pytest.mark.parametrize(
    ("headers", "origin", "status"),
    [({"Cookie": "x=y"}, None, 401), ({}, "https://evil.example", 403)],
)
def test_websockets_that_are_refused(
    port: int, headers: dict[str, str], origin: str | None, status: int
) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
        opened(port, origin=origin, **headers)
    assert raised.value.response.status_code == status


@limited
def test_a_websocket_ends_with_its_time(port: int) -> None:
    with opened(port) as client:
        assert client.recv(timeout=10) == "alice@example.com"
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            client.recv(timeout=10)
        assert client.close_code == 1001


@unlimited
def test_pieces_are_passed_as_they_come(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    client.request("GET", "/pieces", headers={"Cookie": session_cookie()})
    answer = client.getresponse()
    assert answer.read(5) == b"first"
    go_on.set()
    assert answer.read() == b"second"
    client.close()


@unlimited
def test_a_large_upload(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = bytes(8 << 20)
    client.request("POST", "/count", body, {"Cookie": session_cookie()})
    assert client.getresponse().read() == b"%d" % len(body)
    client.close()


def test_other_servers_and_other_scopes() -> None:
    async def main() -> list[dict[str, Any]]:
        guarded = AuthMiddleware(None, AuthProxy(settings()))  # type: ignore[arg-type]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"a"), (b"upgrade", b"websocket")]
        scope = {"type": "websocket", "path": "/", "headers": headers}
        await guarded(scope, receive, send)
        for path, extensions in (("/", {}), ("/robots.txt", {})):
            extensions = {"websocket.http.response": extensions}
            changed = {**scope, "path": path, "extensions": extensions}
            await guarded(changed, receive, send)
        with pytest.raises(ValueError, match="unknown ASGI scope type 'odd'"):
            await guarded({"type": "odd"}, receive, send)
        await guarded.close()
        return sent

    closed, *rest = asyncio.run(main())
    assert closed == {"type": "websocket.close", "code": 1008}
    assert [message["status"] for message in rest[::2]] == [401, 403]
