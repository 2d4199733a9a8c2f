"""WebSockets and streamed bodies behind the ASGI middleware."""

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

first_chunk_read = threading.Event()


async def chat(socket: WebSocket) -> None:
    """Send the user's email, then echo messages."""
    await socket.accept(headers=[(b"x-app", b"1")])
    await socket.send_text(socket.headers["x-forwarded-email"])
    async for message in socket.iter_text():
        if message == "close":
            await socket.close(4321, "enough")
            return
        await socket.send_text(message)


async def chunks(request: Request) -> StreamingResponse:
    """Respond with one chunk, and a second when the test has read the first."""

    async def stream() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.to_thread(first_chunk_read.wait, 10)
        yield b"second"

    return StreamingResponse(stream())


async def count(request: Request) -> StreamingResponse:
    """Respond with the size of the request body."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)

    async def body() -> AsyncIterator[bytes]:
        yield b"%d" % size

    return StreamingResponse(body())


@pytest.fixture(params=[0.0, 0.3])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Yield the port of a protected application; the parameter is the lifetime."""
    configured = settings(
        cookie={"secure": False, "secrets": (Secret(SECRET),)},
        provider={"id": "oidc", "issuer": "http://127.0.0.1:9"},
        upstreams=(UpstreamSettings(id="app", uri="http://app.invalid"),),
        inject_request_headers=(rule("X-Forwarded-Email", "email"),),
    )
    routes = [
        WebSocketRoute("/chat", chat),
        Route("/chunks", chunks),
        Route("/count", count, methods=["POST"]),
    ]
    proxy = AuthProxy(configured)
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
def test_asgi_websocket_with_session_accepted(port: int) -> None:
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
def test_asgi_websocket_without_session_or_origin_rejected(
    port: int, headers: dict[str, str], origin: str | None, status: int
) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as raised:
        opened(port, origin=origin, **headers)
    assert raised.value.response.status_code == status


@limited
def test_asgi_websocket_lifetime_expired_closed_with_1001(port: int) -> None:
    with opened(port) as client:
        assert client.recv(timeout=10) == "alice@example.com"
        with pytest.raises(websockets.exceptions.ConnectionClosedOK):
            client.recv(timeout=10)
        assert client.close_code == 1001


@unlimited
def test_asgi_response_chunks_not_buffered(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("GET", "/chunks", headers={"Cookie": session_cookie()})
    response = client.getresponse()
    assert response.read(5) == b"first"
    first_chunk_read.set()
    assert response.read() == b"second"
    client.close()


@unlimited
def test_asgi_large_upload_passed(port: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = bytes(8 << 20)
    client.request("POST", "/count", body, {"Cookie": session_cookie()})
    assert client.getresponse().read() == b"%d" % len(body)
    client.close()


def test_asgi_websocket_rejection_depends_on_extension() -> None:
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
