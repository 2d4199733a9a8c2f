"""HTTP/2 upstreams: multiplexing, trailers, flow control, failures."""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import pytest
from h2.errors import ErrorCodes

from authproxy.upstream.h2_relay import MAX_ATTEMPTS
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Request, Upstream
from support.h2_server import Call, H2Server, Reply
from support.ports import LOOPBACK, free_port
from support.server import Answer, Server, Wire, until

LARGE = 1_000_000  # bytes: more than all windows


def to(port: int, timeout: float = 5.0, **more: bool) -> Callable[[Request], Outcome]:
    """Return an application that forwards everything."""
    upstream = Upstream(
        id="grpc",
        scheme="http",
        host=LOOPBACK,
        port=port,
        timeout=timeout,
        http2=True,
        **more,
    )

    def forward(request: Request) -> Outcome:
        return Forward(
            upstream,
            request.method,
            request.target,
            tuple(request.headers),
            response_headers=((b"set-cookie", b"s=1"),),
        )

    return forward


def ask(
    server: Server, *lines: bytes, method: bytes = b"GET", body: bytes = b""
) -> Answer:
    """Send a request over a new connection; return the response."""
    with Wire(server.port) as wire:
        fields = [b"Host: app.example.com", *lines]
        if body:
            fields.append(b"Content-Length: %d" % len(body))
        wire.send(
            b"%b /x?q=1 HTTP/1.1\r\n" % method + b"\r\n".join(fields) + b"\r\n\r\n"
        )
        wire.send(body)
        return wire.answer(head_only=method == b"HEAD")


def echo(call: Call) -> Reply:
    """Return the body and the fields of the request."""
    shown = " ".join(f"{name}={value}" for name, value in call.fields.items())
    return Reply(fields=[("x-seen", shown), ("content-type", "a/b")], body=call.body)


def test_h2_relay_request_and_response() -> None:
    with H2Server(echo) as app, Server(to(app.port)) as server:
        response = ask(
            server, b"X-A: 1", b"TE: trailers", method=b"POST", body=b"hello"
        )
        assert (response.status, response.body) == (200, b"hello")
        assert response.headers["set-cookie"] == "s=1"
        seen = response.headers["x-seen"]
        for part in (
            ":method=POST",
            ":path=/x?q=1",
            ":scheme=http",
            ":authority=app.example.com",
            "x-a=1",
            "te=trailers",
            "content-length=5",
        ):
            assert part in seen
        assert " host=" not in seen
        assert ask(server, method=b"HEAD").status == 200
        assert "te=" not in ask(server).headers["x-seen"]
        assert app.connections == 1


def test_h2_relay_concurrent_requests_share_connection() -> None:
    together = threading.Barrier(20, timeout=5)
    responses: list[Answer] = []

    def one() -> None:
        together.wait()
        responses.append(ask(server, method=b"POST", body=b"x" * 70_000))

    with H2Server(echo) as app, Server(to(app.port)) as server:
        threads = [threading.Thread(target=one) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [len(response.body) for response in responses] == [70_000] * 20
        assert app.connections == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_h2_relay_large_body_in_both_directions(chunked: bool) -> None:
    with H2Server(echo) as app, Server(to(app.port)) as server:
        if chunked:
            with Wire(server.port) as wire:
                wire.send(
                    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for _ in range(10):
                    wire.send(b"%x\r\n%b\r\n" % (LARGE // 10, b"x" * (LARGE // 10)))
                wire.send(b"0\r\n\r\n")
                response = wire.answer()
        else:
            response = ask(server, method=b"POST", body=b"x" * LARGE)
        assert response.body == b"x" * LARGE
        assert ("content-length" in response.headers["x-seen"]) != chunked


def test_h2_relay_response_trailers() -> None:
    """Forbidden trailers are removed."""
    reply = Reply(
        body=b"data",
        trailers=[("grpc-status", "0"), ("x-cost", "7"), ("set-cookie", "a=b")],
    )
    with H2Server(lambda call: reply) as app, Server(to(app.port)) as server:
        with Wire(server.port) as wire:
            wire.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            text = b""
            while not text.endswith(b"\r\n\r\n") or b"0\r\n" not in text:
                text += wire.line()
        assert text.endswith(b"0\r\nGrpc-Status: 0\r\nX-Cost: 7\r\n\r\n")


def test_h2_relay_informational_relayed() -> None:
    reply = Reply(interim=[("link", "</a>")], body=b"x")
    with (
        H2Server(lambda call: reply) as app,
        Server(to(app.port)) as server,
        Wire(server.port) as wire,
    ):
        wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.line().startswith(b"HTTP/1.1 103")


@pytest.mark.parametrize(
    ("reply", "status", "reason"),
    [
        (Reply(reset=int(ErrorCodes.INTERNAL_ERROR)), 502, "closed_early"),
        (Reply(reset=int(ErrorCodes.REFUSED_STREAM)), 502, "closed_early"),
        (Reply(goaway=True), 502, "closed_early"),
        (Reply(silent=True), 504, "timeout"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\n\r\n" * 9), 502, "closed_early"),
        (Reply(status="banana"), 502, "malformed_answer"),
        (
            Reply(fields=[("content-length", "1"), ("content-length", "2")]),
            502,
            "malformed_answer",
        ),
        (Reply(fields=[("x-big", "x" * 70_000)]), 502, "closed_early"),
    ],
)
def test_h2_relay_failure_gets_error_page(
    reply: Reply, status: int, reason: str
) -> None:
    """The next request succeeds."""
    replies = [reply] * MAX_ATTEMPTS

    def response(call: Call) -> Reply:
        return replies.pop() if replies else Reply(body=b"fine")

    limit = 0.5 if reply.silent else 30.0
    with H2Server(response) as app, Server(to(app.port, limit)) as server:
        assert ask(server).status == status
        assert server.application.failures == [reason]
        replies.clear()
        assert ask(server).body == b"fine"


def test_h2_relay_refused_stream_is_retried() -> None:
    replies = [Reply(reset=int(ErrorCodes.REFUSED_STREAM))]

    def response(call: Call) -> Reply:
        return replies.pop() if replies else Reply(body=b"fine")

    with H2Server(response) as app, Server(to(app.port)) as server:
        assert ask(server).body == b"fine"


def test_h2_relay_incomplete_response_aborts_client() -> None:
    reply = Reply(body=b"x" * 100, reset=int(ErrorCodes.INTERNAL_ERROR))
    with H2Server(lambda call: reply) as app, Server(to(app.port)) as server:
        with Wire(server.port) as wire:
            wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            text = b""
            while data := wire.socket.recv(65536):
                text += data
        assert not text.endswith(b"0\r\n\r\n")
        server.logged("closed_early while receiving the response")


def test_h2_relay_disconnect_cancels_stream() -> None:
    started = threading.Event()

    def response(call: Call) -> Reply:
        started.set()
        return Reply(silent=True)

    with H2Server(response) as app, Server(to(app.port)) as server:
        with Wire(server.port) as wire:
            wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
            assert started.wait(5)
        until(lambda: app.resets == [int(ErrorCodes.CANCEL)], "the canceled request")


def test_h2_relay_slow_client_blocks_only_its_stream() -> None:
    """The slow response stops at its window."""
    sizes = {"/slow": 4 * LARGE, "/x?q=1": 1}

    def response(call: Call) -> Reply:
        return Reply(body=b"y" * sizes[call.fields[":path"]])

    with (
        H2Server(response) as app,
        Server(to(app.port)) as server,
        Wire(server.port) as slow,
    ):
        slow.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        with Wire(server.port) as quick:
            quick.send(b"GET /x?q=1 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert len(slow.answer().body) == 4 * LARGE
            assert quick.answer().body == b"y"


def test_h2_relay_connection_refused() -> None:
    with Server(to(free_port())) as server:
        assert ask(server).status == 502
        assert server.application.failures == ["connection_failed"]


def test_h2_relay_goaway_lets_streams_finish() -> None:
    """The next request uses a new connection."""
    reply = Reply(body=b"fine", retires=True)
    with H2Server(lambda call: reply) as app, Server(to(app.port)) as server:
        assert ask(server).body == b"fine"
        assert ask(server).body == b"fine"
        assert app.connections == 2


def test_h2_relay_protected_trailers_removed() -> None:
    calls: list[Call] = []

    def response(call: Call) -> Reply:
        calls.append(call)
        return Reply(body=b"x")

    def forward(request: Request) -> Outcome:
        decision = to(app.port)(request)
        assert isinstance(decision, Forward)
        return msgspec.structs.replace(decision, protected=frozenset({b"user-id"}))

    with (
        H2Server(response) as app,
        Server(forward) as server,
        Wire(server.port) as wire,
    ):
        wire.send(
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\nx\r\n0\r\nUser_Id: root\r\nChecksum: 1\r\n\r\n"
        )
        assert wire.answer().status == 200
    assert calls[0].trailers == [("checksum", "1")]


def test_h2_relay_head_only_response_has_length_0() -> None:
    reply = Reply(fields=[("grpc-status", "5")])
    with H2Server(lambda call: reply) as app, Server(to(app.port)) as server:
        response = ask(server, method=b"POST", body=b"x")
        assert response.headers["grpc-status"] == "5"
        assert response.headers["content-length"] == "0"


MALFORMED = {
    "length": Reply(fields=[("content-length", "x")]),
    "conflicting lengths": Reply(
        fields=[("content-length", "1"), ("content-length", "2")]
    ),
    "shorter body": Reply(fields=[("content-length", "5")], body=b"abc"),
    "longer body": Reply(fields=[("content-length", "2")], body=b"abc"),
    "no body": Reply(fields=[("content-length", "5")]),
    "connection field": Reply(fields=[("connection", "close")], body=b"abc"),
    "upper case": Reply(fields=[("X-A", "1")], body=b"abc"),
    "pseudo field": Reply(fields=[(":path", "/")], body=b"abc"),
    "trailers": Reply(body=b"abc", trailers=[(":status", "200")]),
}


@pytest.mark.parametrize("kind", list(MALFORMED))
def test_h2_relay_malformed_response_fails_only_its_stream(kind: str) -> None:
    """RFC 9113 §8.1.1: a stream error; the other request of the connection goes on."""

    def response(call: Call) -> Reply:
        if call.fields[":path"] == "/slow":
            return Reply(body=b"fine")
        return MALFORMED[kind]

    with (
        H2Server(response, validates=False) as app,
        Server(to(app.port)) as server,
        Wire(server.port) as slow,
    ):
        slow.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        until(lambda: app.heads == 1, "the first request")
        with Wire(server.port) as wire:
            wire.send(b"GET /bad HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"fine" not in wire.rest()
        slow.send(b"b")
        assert slow.answer().body == b"fine"
        assert app.connections == 1


def test_h2_relay_without_keep_alive_uses_each_connection_once() -> None:
    with (
        H2Server(echo) as app,
        Server(to(app.port, keep_alive=False)) as server,
    ):
        for count in (1, 2, 3):
            assert ask(server).status == 200
            until(lambda count=count: app.ended == count, "the end of the connection")
        assert app.connections == 3


def test_h2_relay_without_keep_alive_serves_many_requests_at_once() -> None:
    together = threading.Barrier(20, timeout=20)

    def response(call: Call) -> Reply:
        together.wait()  # no connection is closed for another one
        return Reply(body=b"fine")

    responses: list[Answer] = []
    with (
        H2Server(response) as app,
        Server(to(app.port, keep_alive=False)) as server,
    ):
        threads = [
            threading.Thread(target=lambda: responses.append(ask(server)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [response.body for response in responses] == [b"fine"] * 20
        assert app.connections == 20
