"""Limits of HTTP/2 upstreams: at the limit and just above it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from authproxy.server_settings import ForwardSettings
from authproxy.upstream.forwarder import Forwarder
from authproxy.upstream.h2_pool import MAX_CONNECTIONS
from authproxy.upstream.h2_upstream_connection import MAX_INFORMATIONAL, MAX_STREAMS
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Request, Upstream
from support.h2_server import Call, H2Server, Reply
from support.ports import LOOPBACK
from support.server import Server, Wire, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def to(port: int) -> Callable[[Request], Outcome]:
    """Return an application that forwards everything."""
    upstream = Upstream("grpc", "http", LOOPBACK, port, http2=True)

    def forward(request: Request) -> Outcome:
        fields = tuple(request.headers)
        return Forward(upstream, request.method, request.target, fields)

    return forward


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 502)])
def test_h2_upstream_informational_limit(more: int, status: int) -> None:
    reply = Reply(interim=[("a", "b")], interims=MAX_INFORMATIONAL + more)
    with (
        H2Server(lambda call: reply) as app,
        Server(to(app.port)) as server,
        Wire(server.port) as wire,
    ):
        wire.send(GET)
        while (response := wire.answer()).status == 103:
            pass
        assert response.status == status


class Waiting:
    """Requests that wait for an upstream that does not respond."""

    def __init__(self, stack: contextlib.ExitStack, streams: int) -> None:
        self.calls: list[Call] = []
        self.app = stack.enter_context(H2Server(self._silent, streams=streams))
        self._server = stack.enter_context(Server(to(self.app.port)))
        self._server.context.forwarder = Forwarder(ForwardSettings(connect_timeout=2.0))
        self._stack = stack

    def _silent(self, call: Call) -> Reply:
        self.calls.append(call)
        return Reply(silent=True)

    def ask(self) -> Wire:
        """Send another request."""
        wire = self._stack.enter_context(Wire(self._server.port))
        wire.send(GET)
        return wire

    def add(self) -> None:
        """Send another request; wait until the upstream has it and its SETTINGS are known."""
        count = len(self.calls) + 1
        self.ask()
        until(lambda: len(self.calls) == count, "the request")
        app = self.app
        until(lambda: app.acknowledged == app.connections, "the settings")


def test_h2_upstream_connection_limit() -> None:
    with contextlib.ExitStack() as stack:
        waiting = Waiting(stack, streams=1)
        for number in range(MAX_CONNECTIONS):
            waiting.add()
            assert waiting.app.connections == number + 1
        answer = waiting.ask().answer()
        assert (answer.status, answer.body) == (502, b"busy")
        assert waiting.app.connections == MAX_CONNECTIONS


def test_h2_upstream_stream_limit() -> None:
    with contextlib.ExitStack() as stack:
        waiting = Waiting(stack, streams=10 * MAX_STREAMS)
        for _ in range(MAX_STREAMS):
            waiting.add()
        assert waiting.app.connections == 1
        waiting.add()
        assert waiting.app.connections == 2
