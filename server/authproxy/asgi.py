"""authproxy as ASGI middleware: the application is the upstream.

    app = AuthMiddleware(app, AuthProxy(settings))

The application gets the headers that an upstream would get. Request bodies are not
buffered. A WebSocket needs a session like a request. A rejected WebSocket gets an error
response if the server supports ``websocket.http.response``, else close code 1008.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote

from authproxy_core import (
    AuthProxy,
    ClientGone,
    Forward,
    Request,
    Respond,
    decide,
    drive,
)
from authproxy_core.messages import Decision, Headers

from .net.idp_client import HttpClient
from .serve.body_reader import read_body
from .serve.performer import Performer
from .server_settings import ClientSettings

UPGRADE: Headers = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
UPGRADE_NAMES = {name for name, _ in UPGRADE}
PATH_SAFE = "/:@!$&'()*+,;=~-._"  # unescaped in a path (RFC 3986 §3.3)
HEADS = {"http.response.start", "websocket.accept"}  # messages with headers
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AuthMiddleware:
    """Authenticates the requests to *app*.

    *proxy* must not be used by another event loop. A WebSocket is closed after
    *websocket_lifetime* seconds; 0 means no limit.
    """

    def __init__(
        self,
        app: Application,
        proxy: AuthProxy,
        client: ClientSettings | None = None,
        *,
        websocket_lifetime: float = 0.0,
    ) -> None:
        self._app = app
        self._websocket_lifetime = websocket_lifetime
        self._proxy = proxy
        self._client = HttpClient(client or ClientSettings())
        self._performer = Performer(self._client)
        self._warm_up: asyncio.Task[None] | None = None

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        """Respond to a request, or pass it to the application with identity headers."""
        if self._warm_up is None:
            self._warm_up = asyncio.create_task(
                drive(self._proxy.warm_up(), self._performer.perform)
            )
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self.close()
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            raise ValueError(f"unknown ASGI scope type {scope['type']!r}")

    async def close(self) -> None:
        """Close the connections to the provider; done at the lifespan's end, too."""
        if self._warm_up is not None:
            self._warm_up.cancel()
        await self._client.close()

    async def _http(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        request = build_request(scope)
        body = _Body(receive)
        perform = self._performer.bound_to(body)
        decision = await decide(self._proxy.handle(request), perform)
        if isinstance(decision, Forward):
            inner = {**scope, "headers": [list(field) for field in decision.headers]}
            await self._app(inner, body.receive, _with_headers(send, decision))
            return
        if not isinstance(decision, Respond):
            decision = Respond(404)
        await _send_response(send, decision, head_only=request.method == b"HEAD")

    async def _websocket(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        request = build_request(scope)
        outcome = self._proxy.handle(request)
        decision = await decide(outcome, self._performer.bound_to(_EmptyBody()))
        if not isinstance(decision, Forward) or not decision.upgrade:
            await _reject_websocket(scope, receive, send, decision)
            return
        inner = {**scope, "headers": [list(field) for field in decision.headers]}
        try:
            async with asyncio.timeout(self._websocket_lifetime or None) as deadline:
                await self._app(inner, receive, _with_headers(send, decision))
        except TimeoutError:
            if not deadline.expired():
                raise
            # 1001: the endpoint is going away (RFC 6455 §7.4.1).
            await send({"type": "websocket.close", "code": 1001})


def build_request(scope: MutableMapping[str, Any]) -> Request:
    """Return the request of an ASGI scope.

    Some servers remove the upgrade fields of a WebSocket, so they are set again.
    """
    path: bytes = scope.get("raw_path") or quote(scope["path"], safe=PATH_SAFE).encode()
    query: bytes = scope.get("query_string", b"")
    headers = tuple(
        (bytes(name).lower(), bytes(value)) for name, value in scope["headers"]
    )
    if scope.get("type") == "websocket":
        others = (field for field in headers if field[0] not in UPGRADE_NAMES)
        headers = (*others, *UPGRADE)
    return Request(
        scope.get("method", "GET").encode(),
        path + (b"?" + query if query else b""),
        headers,
        scope["client"][0] if scope.get("client") else "",
        scope.get("scheme") in ("https", "wss"),
        str(uuid.uuid4()),
    )


class _Body:
    """A request body that both authproxy and the application can read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._unread: list[Message] = []

    async def receive(self) -> Message:
        """Return the next ASGI message for the application."""
        return self._unread.pop() if self._unread else await self._receive()

    def unread(self, data: bytes) -> None:
        """Put back the whole body for the application."""
        message = {"type": "http.request", "body": data, "more_body": False}
        self._unread.append(message)

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body, at most *limit* bytes."""
        return await read_body(self._chunks(), limit)

    async def _chunks(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone("client disconnected during the request body")
            yield message.get("body", b"")
            more = message.get("more_body", False)


class _EmptyBody:
    """The body of a WebSocket's request."""

    def unread(self, data: bytes) -> None:
        """Do nothing."""

    async def read_all(self, limit: int) -> bytes:
        """Return b""."""
        return b""


async def _reject_websocket(
    scope: MutableMapping[str, Any], receive: Receive, send: Send, decision: Decision
) -> None:
    """Reject a WebSocket; without a redirect, which clients do not follow."""
    await receive()  # websocket.connect
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    respond = Respond(403)
    if isinstance(decision, Respond) and decision.status >= 400:
        respond = decision
    kind = "websocket.http.response"
    headers = [*respond.headers]
    start = {"type": f"{kind}.start", "status": respond.status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.body", "body": respond.body})


def _with_headers(send: Send, forward: Forward) -> Send:
    """Return a *send* that adds the headers of *forward* to the response."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] in HEADS:
            headers = tuple((name, value) for name, value in message.get("headers", ()))
            message = {
                **message,
                "headers": list(forward.merge_response_headers(headers)),
            }
        await send(message)

    return send_with_headers


async def _send_response(send: Send, respond: Respond, *, head_only: bool) -> None:
    length = (b"content-length", str(len(respond.body)).encode())
    headers = [*respond.headers, length]
    await send(
        {"type": "http.response.start", "status": respond.status, "headers": headers}
    )
    body = b"" if head_only else respond.body
    await send({"type": "http.response.body", "body": body})
