"""Hardening of HTTP/1.1: invalid responses, late or malformed bodies, large heads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from authproxy.contract import SentRequest
from authproxy.server_settings import Limits
from authproxy_core.effects import Offload, Outcome, ReadBody, Sleep
from authproxy_core.errors import ClientGone
from authproxy_core.messages import Forward, Request, Respond, Upstream
from support.server import Server, Wire, talk, until

HOST = b"Host: app.example.com\r\n"
SPLIT = Respond(200, ((b"x-user", b"a\r\nset-cookie: b"),))


def get(target: bytes, *fields: bytes) -> bytes:
    """A GET with additional field lines."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"GET %b HTTP/1.1\r\n" % target + HOST + lines + b"\r\n"


def _later(respond: Respond) -> Any:
    yield Sleep(0.0)
    return respond


def _careless() -> Any:
    """A flow that ignores all errors of the body."""
    try:
        yield ReadBody(1000)
    except Exception:
        return Respond(202)
    return Respond(200)


def site(request: Request) -> Outcome:
    """The application; some of its responses are bugs."""
    match request.target:
        case b"/split":
            return SPLIT
        case b"/split-later":
            return _later(SPLIT)  # type: ignore[no-any-return]
        case b"/careless":
            return _careless()  # type: ignore[no-any-return]
        case b"/large":
            return Respond(200, (), b"x" * (4 << 20))
        case b"/wait":
            return _wait_for_wake()  # type: ignore[no-any-return]
        case b"/forward":
            return Forward(Upstream("u", "http", "127.0.0.1", 1), b"POST", b"/", ())
    return Respond(200, (), request.id.encode())


WAKE = threading.Event()


def _wait_for_wake() -> Any:
    yield Offload(lambda: WAKE.wait(10))
    return Respond(200, (), b"awake")


def test_response_with_line_end_in_field_is_replaced_by_500() -> None:
    """A line end in a field value is a bug of the core: 500 and close."""
    with Server(site) as server:
        for target in (b"/split", b"/split-later"):
            with Wire(server.port) as wire:
                wire.send(get(target) + get(b"/next"))
                response = wire.answer()
                assert response.status == 500
                assert response.headers["connection"] == "close"
                assert "set-cookie" not in response.headers
                assert wire.ended
        assert [one.target for one in server.application.requests] == [
            b"/split",
            b"/split-later",
        ]
        server.logged("control character in header field x-user")


def test_ht05_malformed_body_rejected_even_if_flow_ignores_it() -> None:
    """No 2xx for a request with malformed framing."""
    raw = b"POST /careless HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with Server(site) as server:
        response = talk(server.port, raw + b"+5\r\nhello\r\n0\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.count(b"HTTP/1.1") == 1


def test_body_sent_byte_by_byte_hits_timeout() -> None:
    """The timeout is for the whole body, not for each byte."""
    raw = b"POST /careless HTTP/1.1\r\n" + HOST + b"Content-Length: 900\r\n\r\n"
    with Server(site, Limits(head_timeout=1.0)) as server, Wire(server.port) as wire:
        wire.send(raw)
        wire.socket.settimeout(0.02)
        received = b""
        for _ in range(800):
            wire.send(b"x")
            try:
                received += wire.socket.recv(1000)
                break
            except TimeoutError:
                continue
        assert received.startswith(b"HTTP/1.1 202 ")
        assert b"Connection: close" in received


CHUNKED = b"POST /other HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def test_ht19_unread_chunked_body_is_skipped() -> None:
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(CHUNKED)
        assert wire.answer().status == 200
        wire.send(b"5\r\nGET /")
        wire.send(b"\r\n0\r\n\r\n" + get(b"/next", b"X-Request-Id: n"))
        assert wire.answer().body == b"n"


@pytest.mark.parametrize(
    "rest",
    [b"11170\r\n" + b"x" * 0x11170 + b"\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n"],
    ids=["long", "malformed"],
)
def test_ht19_unread_chunked_body_too_long_or_malformed_closes(rest: bytes) -> None:
    """The bytes after them are never parsed as a request."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(CHUNKED)
        assert wire.answer().status == 200
        wire.send(rest + get(b"/next"))
        assert wire.ended
        assert [one.target for one in server.application.requests] == [b"/other"]


def test_unread_incomplete_body_times_out() -> None:
    head = b"POST /other HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
    with Server(site, Limits(head_timeout=1.0)) as server, Wire(server.port) as wire:
        wire.send(head + b"hell")
        assert wire.answer().status == 200
        assert wire.ended


def test_slow_reader_pauses_pipelined_requests() -> None:
    """Requests are not handled while the client does not read the responses."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/large") * 12)
        until(lambda: server.application.requests, "the first request")
        until(
            lambda: any(not one._writable for one in server.context.connections),
            "the buffers to be full",
        )
        assert len(server.application.requests) < 12
        for _ in range(12):
            assert len(wire.answer().body) == 4 << 20
    assert len(server.application.requests) == 12


def test_ht20_continue_not_sent_after_response_started() -> None:
    """ "100 Continue" inside the final response would corrupt it."""
    errors: list[str] = []

    class RespondsFirst:
        async def forward(
            self, exchange: Any, forward: Forward, sent: SentRequest | None = None
        ) -> None:
            await exchange.start(200, (), length=2)
            try:
                await exchange.body.read_all(100)
            except ClientGone as error:
                errors.append(str(error))
            await exchange.write(b"ok")
            await exchange.finish()

        def try_fast_path(self, exchange: Any, forward: Forward) -> bool:
            return False

    head = b"POST /forward HTTP/1.1\r\n" + HOST
    with Server(site) as server, Wire(server.port) as wire:
        server.context.forwarder = RespondsFirst()
        wire.send(head + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        response = wire.answer()
        assert (response.status, response.body) == (200, b"ok")
        assert response.headers["connection"] == "close"
        assert wire.ended
    assert len(errors) == 1


def test_head_larger_than_receive_buffer_accepted() -> None:
    limits = Limits(head_bytes=300_000, header_count=20)
    field = b"X-Long: " + b"a" * 200_000
    with Server(site, limits) as server, Wire(server.port) as wire:
        raw = get(b"/", field, b"X-Request-Id: large-head")
        for at in range(0, len(raw), 50_000):
            wire.send(raw[at : at + 50_000])
        assert wire.answer().body == b"large-head"


def test_duplicate_request_id_is_ignored() -> None:
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/", b"X-Request-Id: one", b"X-Request-Id: two"))
        assert wire.answer().body not in (b"one", b"two")
        wire.send(get(b"/", b"X-Request-Id: one", b"X-A: 1", b"X-A: 2"))
        assert wire.answer().body == b"one"


def test_ht37_shutdown_finishes_running_flow() -> None:
    """The running flow is finished, then its connection is closed."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/wait"))
        until(lambda: server.application.requests, "the request")
        server.call(lambda: setattr(server.context, "stopping", True))
        server.call(WAKE.set)
        response = wire.answer()
        assert (response.status, response.body) == (200, b"awake")
        assert response.headers["connection"] == "close"
        assert wire.ended
