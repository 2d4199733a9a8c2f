"""HTTP/2 upstreams that answer nothing, and clients that leave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from h2.errors import ErrorCodes

from authproxy.server_settings import ForwardSettings
from authproxy.upstream.forwarder import Forwarder
from authproxy.upstream.h2_liveness import LONG_DELAY, MAX_TIMEOUTS, Liveness
from authproxy.upstream.h2_pool import MAX_CONNECTIONS
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Request, Upstream
from support.h2_server import Call, H2Server, Reply
from support.ports import LOOPBACK
from support.server import Answer, Server, Wire, hello, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
WINDOW = 65_535  # bytes of a stream, if the upstream never extends it
NEVER = 600.0  # seconds: longer than every test
Answering = Callable[[Call], Reply]


def fine(_: Call) -> Reply:
    return Reply(body=b"fine")


@contextlib.contextmanager
def proxy(port: int, settings: ForwardSettings, timeout: float = 0) -> Iterator[Server]:
    """Run a server that forwards everything to the HTTP/2 upstream at *port*."""
    upstream = Upstream("grpc", "http", LOOPBACK, port, timeout=timeout, http2=True)

    def forward(request: Request) -> Outcome:
        fields = tuple(request.headers)
        return Forward(upstream, request.method, request.target, fields)

    with Server(forward) as server:
        closed = threading.Event()

        async def close() -> None:
            await forwarder.close()
            closed.set()

        forwarder = server.context.forwarder = Forwarder(settings)
        yield server
        server.call(lambda: server.context.spawn(close()))
        assert closed.wait(15.0)


def ask(server: Server, data: bytes = GET) -> Answer:
    with Wire(server.port) as wire:
        wire.send(data)
        return wire.answer()


def ask_together(server: Server, count: int) -> list[Answer]:
    """Send *count* requests at the same time."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(server)))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# Connections that answer nothing


def test_h2_upstream_timeout_leaves_dead_connection() -> None:
    with (
        H2Server(fine) as app,
        proxy(app.port, ForwardSettings(), timeout=0.3) as server,
    ):
        assert ask(server).status == 200
        app.freeze()
        assert ask(server).status == 504
        assert ask(server).status == 200
        assert app.connections == 2


@pytest.mark.parametrize(("data", "status"), [(GET, 200), (POST, 504)])
def test_h2_upstream_unanswered_ping_ends_connection(data: bytes, status: int) -> None:
    """An idempotent request is sent again on another connection."""
    settings = ForwardSettings(ping_delay=0.1, ping_timeout=0.3)
    with H2Server(fine) as app, proxy(app.port, settings) as server:
        assert ask(server).status == 200
        app.freeze()
        assert ask(server, data).status == status
        assert ask(server).status == 200
        assert app.connections == 2


def test_h2_upstream_answered_ping_keeps_connection() -> None:
    settings = ForwardSettings(ping_delay=0.1, ping_timeout=NEVER)
    reply = Reply(body=b"slow", after_ping=True)
    with H2Server(lambda _: reply) as app, proxy(app.port, settings) as server:
        assert [ask(server).body for _ in range(4)] == [b"slow"] * 4
        assert (app.connections, app.pings) == (1, 4)


def test_h2_upstream_timeouts_without_response_retire_connection() -> None:
    """The upstream answers each PING, but no request."""
    replies = [Reply(silent=True)] * MAX_TIMEOUTS

    def answer(call: Call) -> Reply:
        return replies.pop() if replies else fine(call)

    with (
        H2Server(answer) as app,
        proxy(app.port, ForwardSettings(), timeout=0.3) as server,
    ):
        for _ in range(MAX_TIMEOUTS):
            assert ask(server).status == 504
        assert app.connections == 1
        assert ask(server).status == 200
        assert app.connections == 2


def test_h2_upstream_idle_connection_closed() -> None:
    settings = ForwardSettings(idle_timeout=0.1)
    with H2Server(fine) as app, proxy(app.port, settings) as server:
        assert ask(server).status == 200
        until(lambda: app.ended == 1, "the closed connection")
        assert ask(server).status == 200


def test_liveness_pings_within_limits_of_grpc_servers() -> None:
    """Two PINGs between two responses, then one in more than five minutes."""
    liveness = Liveness(ForwardSettings(ping_delay=10.0))
    liveness.activate(1000.0)
    sent = []
    now = 1000.0
    while now < 3000.0:
        assert not liveness.is_dead(now)
        if liveness.should_ping(now):
            sent.append(now)
            liveness.receive(now + 1.0)
        now = max(now + 0.5, liveness.next_check())
    assert sent[:2] == [1010.0, 1021.0]
    assert all(b - a >= LONG_DELAY for a, b in pairwise(sent[1:]))
    liveness.respond(3000.0)
    liveness.receive(3000.0)
    assert liveness.next_check() == 3010.0


# Dials


def test_h2_upstream_requests_share_failing_dial() -> None:
    """Each request has its own limit: none waits for the dials of the others."""
    settings = ForwardSettings(connect_timeout=0.5)
    with H2Server(fine, mute=100) as app, proxy(app.port, settings) as server:
        answers = ask_together(server, 10)
        assert [(one.status, one.body) for one in answers] == [(504, b"timeout")] * 10
        assert app.connections <= 3  # one per request, if they wait for each other
        server.logged("upstream grpc: connect timeout after 0.5 s")


def test_h2_upstream_request_outlives_dial_of_another() -> None:
    """It dials again, because the failed dial had begun before it came."""
    with (
        H2Server(fine, mute=1) as app,
        proxy(app.port, ForwardSettings()) as server,
        Wire(server.port) as first,
        Wire(server.port) as second,
    ):
        first.send(GET)
        until(lambda: app.connections == 1, "the dial")
        second.send(GET)
        until(lambda: len(server.application.requests) == 2, "both requests")
        app.disconnect()
        assert first.answer().status == 502
        assert second.answer().status == 200


def test_h2_upstream_of_other_protocol_fails_at_dial() -> None:
    with Server(hello) as app, proxy(app.port, ForwardSettings()) as server:
        answer = ask(server)
        assert (answer.status, answer.body) == (502, b"connection_failed")
        server.logged(f"127.0.0.1:{app.port} failed: protocol error")


def test_h2_upstream_small_stream_limit_gets_more_connections() -> None:
    """No request is sent before the limit is known, so none is refused."""
    barrier = threading.Barrier(12, timeout=15)

    def answer(call: Call) -> Reply:
        barrier.wait()  # all are in progress at the same time
        return fine(call)

    with (
        H2Server(answer, streams=1) as app,
        proxy(app.port, ForwardSettings()) as server,
    ):
        assert [one.status for one in ask_together(server, 12)] == [200] * 12
        assert app.connections == 12


def test_h2_upstream_request_waits_for_free_stream() -> None:
    """Requests above all limits are served one after another."""
    with H2Server(fine, streams=1) as app, proxy(app.port, ForwardSettings()) as server:
        answers = ask_together(server, 4 * MAX_CONNECTIONS)
        assert [one.status for one in answers] == [200] * 4 * MAX_CONNECTIONS
        assert app.connections <= MAX_CONNECTIONS


def test_h2_upstream_draining_connections_do_not_count() -> None:
    """The upstream sends GOAWAY on each connection, and leaves its request open."""
    silent = Reply(retires=True, silent=True)
    calls: list[Call] = []

    def answer(call: Call) -> Reply:
        calls.append(call)
        return silent if len(calls) <= MAX_CONNECTIONS else fine(call)

    with (
        H2Server(answer) as app,
        proxy(app.port, ForwardSettings()) as server,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(MAX_CONNECTIONS):
            before = len(calls)
            stack.enter_context(Wire(server.port)).send(GET)
            until(lambda: len(calls) > before, "the request")  # noqa: B023 - at once
        assert ask(server).status == 200


def test_h2_upstream_refused_streams_retried_on_other_connections() -> None:
    """A rolling restart: two connections in turn refuse the request."""
    replies = [Reply(goaway=True), Reply(goaway=True)]

    def answer(call: Call) -> Reply:
        return replies.pop() if replies else fine(call)

    with H2Server(answer) as app, proxy(app.port, ForwardSettings()) as server:
        assert ask(server).status == 200
        assert app.connections == 3


# Clients that leave


@pytest.mark.parametrize("http2", [True, False])
def test_upstream_dial_ends_when_client_leaves(http2: bool) -> None:
    settings = ForwardSettings(connect_timeout=NEVER)
    with H2Server(fine, mute=1) as app:
        scheme = "http" if http2 else "https"  # neither SETTINGS nor TLS handshake
        upstream = Upstream("x", scheme, LOOPBACK, app.port, http2=http2)

        def forward(request: Request) -> Outcome:
            return Forward(upstream, request.method, request.target, ())

        with Server(forward) as server:
            server.context.forwarder = Forwarder(settings)
            with Wire(server.port) as wire:
                wire.send(GET)
                until(lambda: app.connections == 1, "the dial")
            until(lambda: server.in_flight() == 0, "the forgotten request")
            if not http2:
                until(lambda: app.ended == 1, "the canceled dial")


def test_h2_upstream_stream_reset_when_client_leaves_during_body() -> None:
    """The upstream leaves the window closed."""
    with (
        H2Server(fine, withholds=True) as app,
        proxy(app.port, ForwardSettings()) as server,
    ):
        with Wire(server.port) as wire:
            wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n")
            # In portions, because reading pauses when a buffer is full.
            wire.send(b"x" * 60_000)
            until(lambda: app.body_bytes == 60_000, "the first portion")
            wire.send(b"x" * 20_000)
            until(lambda: app.body_bytes == WINDOW, "the full window")
        until(lambda: app.resets == [int(ErrorCodes.CANCEL)], "the canceled stream")
        assert ask(server).status == 200
