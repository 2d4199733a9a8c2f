"""HTTP/1.1 connections over real sockets: order, framing, timeouts, failures."""

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
    """Return a GET request with additional field lines."""
    line = b"GET %b HTTP/%b\r\n" % (target, version)
    return line + HOST + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def post(body: bytes, *fields: bytes, target: bytes = b"/read") -> bytes:
    """Return a POST request with Content-Length."""
    head = b"POST %b HTTP/1.1\r\n" % target + HOST
    lines = b"".join(field + b"\r\n" for field in fields)
    return head + b"Content-Length: %d\r\n" % len(body) + lines + b"\r\n" + body


def site(request: Request) -> Outcome:
    """The application; some paths read the body, wait or fail."""
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
        case b"/user":
            user = first_header(request.headers, b"cookie")
            return Respond(200 if user == b"s=alice" else 401, (), user or b"anonymous")
    return Respond(200, (), request.method + b" " + request.target)


def _fails() -> Any:
    yield Sleep(0.0)
    raise RuntimeError("boom later")


def test_connection_keep_alive_serves_several_requests() -> None:
    with Server(site) as server, Wire(server.port) as wire:
        for number in range(5):
            wire.send(get(b"/%d" % number))
            response = wire.answer()
            assert (response.status, response.body) == (200, b"GET /%d" % number)
            assert "connection" not in response.headers
            assert response.headers["date"].endswith(" GMT")
        wire.send(get(b"/last", b"Connection: close"))
        assert wire.answer().headers["connection"] == "close"
        assert wire.ended


@pytest.mark.parametrize("size", [1, 9, 10_000])
def test_connection_pipelined_requests_answered_in_order(size: int) -> None:
    """Fast and slow responses are in the order of the requests."""
    targets = [b"/%d" % number if number % 3 else b"/slow" for number in range(40)]
    raw = b"".join(get(target) for target in targets)
    with Server(site) as server, Wire(server.port) as wire:
        for start in range(0, len(raw), size):
            wire.send(raw[start : start + size])
        for target in targets:
            body = wire.answer().body
            assert body == (b"None" if target == b"/slow" else b"GET " + target)


def test_ht17_connection_requests_are_decided_independently() -> None:
    """No credential of a request affects the next one."""
    raw = get(b"/user", b"Cookie: s=alice") + get(b"/user")
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(raw * 20)
        for _ in range(20):
            assert wire.answer().body == b"s=alice"
            response = wire.answer()
            assert (response.status, response.body) == (401, b"anonymous")


def test_connection_head_and_204_have_no_body() -> None:
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(b"HEAD /a HTTP/1.1\r\n" + HOST + b"\r\n" + get(b"/empty") + get())
        assert wire.answer(head_only=True).headers["content-length"] == "7"
        response = wire.answer()
        assert (response.status, "content-length" in response.headers) == (204, False)
        assert wire.answer().body == b"GET /"


def test_connection_http_1_0_closes_unless_keep_alive() -> None:
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(version=b"1.0"))
            assert wire.answer().headers["connection"] == "close"
            assert wire.ended
        with Wire(server.port) as wire:
            for target in (b"/a", b"/slow"):
                wire.send(get(target, b"Connection: keep-alive", version=b"1.0"))
                assert wire.answer().headers["connection"] == "keep-alive"


def test_connection_half_closed_client_gets_responses() -> None:
    with Server(site) as server:
        response = talk(server.port, get(b"/slow") + get(b"/a") + get(b"/slow"))
        assert response.count(b"HTTP/1.1 200 OK") == 3


def test_connection_bodies_are_decoded() -> None:
    """With Content-Length and chunked, in one packet and byte by byte."""
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


def test_ht20_connection_expect_100_continue() -> None:
    """100 is sent only when the flow reads the body."""
    with Server(site) as server, Wire(server.port) as wire:
        head = post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 5")
        wire.send(head)
        assert wire.answer().status == 100
        wire.send(b"hello")
        assert wire.answer().body == b"hello"
        wire.send(head.replace(b"/read", b"/other"))
        response = wire.answer()
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert wire.ended


def test_ht20_connection_unknown_expectation_gets_417() -> None:
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/", b"Expect: 200-ok"))
        assert wire.answer().status == 417
        assert not server.application.requests


@pytest.mark.parametrize("chunked", [False, True])
def test_connection_body_too_large_gets_413(chunked: bool) -> None:
    """The response arrives although the client is still sending."""
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


def test_ht19_connection_unread_body_is_skipped_or_closes() -> None:
    """An unread body is never parsed as a request."""
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
        targets = {request.target for request in server.application.requests}
        assert targets == {b"/other", b"/next"}


@pytest.mark.parametrize("target", [b"/fails", b"/fails-later"])
def test_fa01_connection_application_error_gets_500(target: bytes) -> None:
    """500 without the cause, which is only logged."""
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(target) + get(b"/next"))
            response = wire.answer()
            assert response.status == 500
            assert b"boom" not in response.body
        assert b" 200 OK" in talk(server.port, get())
        assert "RuntimeError: boom" in server.logged("RuntimeError: boom")


def test_connection_incomplete_body_closes_and_ends_task() -> None:
    with Server(site) as server:
        assert talk(server.port, post(b"hello")[:-2]) == b""
        until(lambda: not server.context.connections, "the connection to end")
        until(lambda: not server.context.tasks, "the task to end")


def test_connection_slow_head_gets_408() -> None:
    """A connection without any byte is closed without a response."""
    with Server(site, Limits(head_timeout=0.5)) as server:
        with Wire(server.port) as wire:
            wire.send(b"GET / HT")
            assert wire.answer().status == 408
            assert wire.ended
        with Wire(server.port) as wire:
            assert wire.ended
        assert not server.application.requests


def test_connection_slow_body_closes() -> None:
    with Server(site, Limits(head_timeout=0.05)) as server, Wire(server.port) as wire:
        wire.send(post(b"hello")[:-2])
        assert b" 200 " not in wire.rest()
        until(lambda: not server.context.tasks, "the task to end")


def test_connection_idle_timeout_closes() -> None:
    with Server(site, Limits(idle_timeout=0.05)) as server, Wire(server.port) as wire:
        wire.send(get())
        assert wire.answer().status == 200
        assert wire.ended


def test_ht28_connection_write_timeout_closes() -> None:
    """A client that does not read is disconnected."""
    with Server(site, Limits(write_timeout=0.1)) as server, Wire(server.port) as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(get(b"/big") * 4)
        until(lambda: server.application.requests, "the request")
        until(lambda: not server.context.connections, "the connection to be cut")
        # Further requests are not handled while the client does not read.
        assert len(server.application.requests) == 1


def test_connection_disconnect_during_flow_ends_cleanly() -> None:
    with Server(site) as server:
        with Wire(server.port) as wire:
            wire.send(get(b"/slow"))
            until(lambda: server.application.requests, "the request")
        until(lambda: not server.context.tasks, "the task to end")
        until(lambda: not server.context.connections, "the connection to end")


def test_connection_empty_lines_do_not_extend_timeout() -> None:
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
