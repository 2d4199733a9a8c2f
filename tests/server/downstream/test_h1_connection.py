"""Connections over real sockets: order, framing, limits, failures."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from authproxy.server_settings import Limits
from authproxy_core.effects import Lock, Outcome, ReadBody, Sleep
from authproxy_core.messages import Request, Respond, first_header
from support.server import Server, Wire, flow, talk, until

HOST = b"Host: app.example.com\r\n"


def get(target: bytes = b"/", *fields: bytes, version: bytes = b"1.1") -> bytes:
    """A GET with additional field lines."""
    line = b"GET %b HTTP/%b\r\n" % (target, version)
    return line + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(body: bytes, *fields: bytes, target: bytes = b"/read") -> bytes:
    """A POST with its length."""
    head = b"POST %b HTTP/1.1\r\n" % target + HOST
    lines = b"".join(field + b"\r\n" for field in fields)
    return head + b"Content-Length: %d\r\n" % len(body) + lines + b"\r\n" + body


def site(request: Request) -> Outcome:
    """The application: some paths read, wait, fail; others answer."""
    match request.target.partition(b"?")[0]:
        case b"/read":
            return flow(ReadBody(1000))  # type: ignore[return-value]
        case b"/slow":
            return flow(Sleep(0.02))  # type: ignore[return-value]
        case b"/locked":
            return flow(Lock("k", 60.0, 60.0))  # type: ignore[return-value]
        case b"/fails":
            raise RuntimeError("boom")
        case b"/fails-later":
            return _fails()  # type: ignore[return-value]
        case b"/big":
            return Respond(200, (), b"x" * (8 << 20))
        case b"/empty":
            return Respond(204)
        case b"/who":
            user = first_header(request.headers, b"cookie")
            return Respond(200 if user == b"s=alice" else 401, (), user or b"nobody")
    return Respond(200, (), request.method + b" " + request.target)


def _fails() -> Any:
    yield Sleep(0.0)
    raise RuntimeError("boom later")


def test_keep_alive() -> None:
    """Several requests over one connection, each answered in full."""
    with Server(site) as server, Wire(server.port) as wire:
        for number in range(5):
            wire.send(get(b"/%d" % number))
            answer = wire.answer()
            assert (answer.status, answer.body) == (200, b"GET /%d" % number)
            assert "connection" not in answer.headers
            assert answer.headers["date"].endswith(" GMT")
        wire.send(get(b"/last", b"Connection: close"))
        assert wire.answer().headers["connection"] == "close"
        assert wire.ended


@pytest.mark.parametrize("cut", [1, 9, 10_000])
def test_pipelining_keeps_the_order(cut: int) -> None:
    """Quick and slow answers come in the order of the requests, however cut."""
    targets = [b"/%d" % number if number % 3 else b"/slow" for number in range(40)]
    raw = b"".join(get(target) for target in targets)
    with Server(site) as server, Wire(server.port) as wire:
        for at in range(0, len(raw), cut):
            wire.send(raw[at : at + cut])
        for target in targets:
            body = wire.answer().body
            assert body == (b"None" if target == b"/slow" else b"GET " + target)


def test_each_request_is_judged_alone() -> None:
    """HT17: what the request before had is not the next one's."""
    raw = get(b"/who", b"Cookie: s=alice") + get(b"/who")
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(raw * 20)
        for _ in range(20):
            assert wire.answer().body == b"s=alice"
            answer = wire.answer()
            assert (answer.status, answer.body) == (401, b"nobody")


def test_head_and_no_content() -> None:
    """HEAD has the length but no body; 204 has neither."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"/empty") + get())
        assert wire.answer(head_only=True).headers["content-length"] == "7"
        answer = wire.answer()
        assert (answer.status, "content-length" in answer.headers) == (204, False)
        assert wire.answer().body == b"GET /"


def test_http_1_0() -> None:
    """Closed after the answer, unless the client asked to keep it."""
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(version=b"1.0"))
            assert wire.answer().headers["connection"] == "close"
            assert wire.ended
        with Wire(server.port) as wire:
            for target in (b"/a", b"/slow"):
                wire.send(get(target, b"Connection: keep-alive", version=b"1.0"))
                assert wire.answer().headers["connection"] == "keep-alive"


def test_half_closed_client_gets_its_answers() -> None:
    """Who has sent its last byte may still wait for what it asked."""
    with Server(site) as server:
        answer = talk(server.port, get(b"/slow") + get(b"/a") + get(b"/slow"))
        assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_bodies_are_read() -> None:
    """By length and in chunks, whole and byte by byte."""
    chunked = (
        b"POST /read HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nT: x\r\n\r\n"
    )
    with Server(site) as server, Wire(server.port) as wire:
        for raw in (post(b"hello world"), chunked):
            wire.send(raw)
            assert wire.answer().body == b"hello world"
            for at in range(len(raw)):
                wire.send(raw[at : at + 1])
            assert wire.answer().body == b"hello world"


def test_expect_100_continue() -> None:
    """HT20: the client is told to go on only when its body is wanted."""
    with Server(site) as server, Wire(server.port) as wire:
        head = post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 5")
        wire.send(head)
        assert wire.answer().status == 100
        wire.send(b"hello")
        assert wire.answer().body == b"hello"
        wire.send(head.replace(b"/read", b"/other"))
        answer = wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert wire.ended


def test_unknown_expectation() -> None:
    """HT20: 417."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/", b"Expect: 200-ok"))
        assert wire.answer().status == 417
        assert not server.application.requests


@pytest.mark.parametrize("chunked", [False, True])
def test_body_too_large(chunked: bool) -> None:
    """413, and the connection stays readable until the answer has arrived."""
    raw = post(b"x" * 2000)
    if chunked:
        head = b"POST /read HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        raw = head + b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(raw + get(b"/next", b"Connection: close"))
        assert wire.answer().status == 413
        if wire.rest().startswith(b"HTTP/1.1 200 OK"):
            assert server.application.requests[-1].target == b"/next"
        assert len(server.application.requests) <= 2


def test_unread_body_is_skipped_or_ends_the_connection() -> None:
    """HT19: a body that nobody wanted is never taken for a request."""
    smuggled = get(b"/smuggled")
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(post(smuggled * 10, target=b"/other") + get(b"/next"))
            assert wire.answer().body == b"POST /other"
            assert wire.answer().body == b"GET /next"
        with Wire(server.port) as wire:
            wire.send(post(smuggled * 5000, target=b"/other"))
            assert wire.answer().headers["connection"] == "close"
            assert wire.ended
        seen = {request.target for request in server.application.requests}
        assert seen == {b"/other", b"/next"}


@pytest.mark.parametrize("target", [b"/fails", b"/fails-later"])
def test_failure_is_a_denial(target: bytes) -> None:
    """FA01: 500 without a word about the cause; the server goes on."""
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(target) + get(b"/next"))
            answer = wire.answer()
            assert answer.status == 500
            assert b"boom" not in answer.body
        assert b" 200 OK" in talk(server.port, get())
        assert "RuntimeError: boom" in server.logged("RuntimeError: boom")


def test_malformed_body_in_the_middle_of_a_flow() -> None:
    """A client that leaves during its body leaves nothing behind."""
    with Server(site) as server:
        assert talk(server.port, post(b"hello")[:-2]) == b""
        until(lambda: not server.hub.connections, "the connection to end")
        until(lambda: not server.hub.tasks, "the task to end")


def test_slow_head() -> None:
    """408 for a head that has begun; a silent newcomer is just closed."""
    with Server(site, Limits(head_timeout=0.05)) as server:
        with Wire(server.port) as wire:
            wire.send(b"GET / HT")
            assert wire.answer().status == 408
            assert wire.ended
        with Wire(server.port) as wire:
            assert wire.ended
        assert not server.application.requests


def test_slow_body() -> None:
    """A body that does not come ends the connection."""
    with Server(site, Limits(head_timeout=0.05)) as server, Wire(server.port) as wire:
        wire.send(post(b"hello")[:-2])
        assert b" 200 " not in wire.rest()
        until(lambda: not server.hub.tasks, "the task to end")


def test_idle_timeout() -> None:
    """A connection without requests is closed, without a word."""
    with Server(site, Limits(idle_timeout=0.05)) as server, Wire(server.port) as wire:
        wire.send(get())
        assert wire.answer().status == 200
        assert wire.ended


def test_write_timeout() -> None:
    """HT28: who does not read its answers is cut off."""
    with Server(site, Limits(write_timeout=0.1)) as server, Wire(server.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(get(b"/big") * 4)
        until(lambda: server.application.requests, "the request")
        until(lambda: not server.hub.connections, "the connection to be cut")
        # No answers are piled up for a client that does not read.
        assert len(server.application.requests) == 1


def test_client_that_leaves_during_a_flow() -> None:
    """The flow runs to its end; nothing is left."""
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(b"/slow"))
            until(lambda: server.application.requests, "the request")
        until(lambda: not server.hub.tasks, "the task to end")
        until(lambda: not server.hub.connections, "the connection to end")


def test_blank_lines_do_not_keep_a_connection_open() -> None:
    """Empty lines before a request are skipped, but are no sign of life."""
    with Server(site, Limits(head_timeout=0.2)) as server, Wire(server.port) as wire:
        wire.socket.settimeout(0.02)
        for _ in range(500):
            wire.send(b"\r\n")
            try:
                if not wire.socket.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection stays open")
