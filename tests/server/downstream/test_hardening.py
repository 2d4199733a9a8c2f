"""Answers that can't be sent, bodies that come late, heads of unusual size."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from authproxy.contract import SentRequest
from authproxy.serve.encoding_caches import ResponseHeadCache
from authproxy.server_settings import Limits
from authproxy_core.effects import Offload, Outcome, ReadBody, Sleep
from authproxy_core.errors import ClientGone
from authproxy_core.messages import Forward, Request, Respond, Upstream
from support.server import Server, Wire, talk, until

HOST = b"Host: app.example.com\r\n"
DATE = b"Date: x\r\n"
SPLIT = Respond(200, ((b"x-user", b"a\r\nset-cookie: b"),))


def get(target: bytes, *fields: bytes) -> bytes:
    """A GET with additional field lines."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"GET %b HTTP/1.1\r\n" % target + HOST + lines + b"\r\n"


def _later(respond: Respond) -> Any:
    yield Sleep(0.0)
    return respond


def _careless() -> Any:
    """A flow that takes any fault of the body for an empty one."""
    try:
        yield ReadBody(1000)
    except Exception:
        return Respond(202)
    return Respond(200)


def site(request: Request) -> Outcome:
    """The application: some answers are bugs."""
    match request.target:
        case b"/split":
            return SPLIT
        case b"/split-later":
            return _later(SPLIT)  # type: ignore[no-any-return]
        case b"/careless":
            return _careless()  # type: ignore[no-any-return]
        case b"/large":
            return Respond(200, (), b"x" * (4 << 20))
        case b"/nap":
            return _nap()  # type: ignore[no-any-return]
        case b"/forward":
            return Forward(Upstream("u", "http", "127.0.0.1", 1), b"POST", b"/", ())
    return Respond(200, (), request.id.encode())


RESTED = threading.Event()


def _nap() -> Any:
    yield Offload(lambda: RESTED.wait(10))
    return Respond(200, (), b"rested")


def test_answer_is_never_split() -> None:
    """A line end in a field is a bug: 500 and the end, never two answers."""
    with Server(site) as server:
        for target in (b"/split", b"/split-later"):
            with Wire(server.port) as wire:
                wire.send(get(target) + get(b"/next"))
                answer = wire.answer()
                assert answer.status == 500
                assert answer.headers["connection"] == "close"
                assert "set-cookie" not in answer.headers
                assert wire.ended
        assert [one.target for one in server.application.requests] == [
            b"/split",
            b"/split-later",
        ]
        server.logged("control character in header field x-user")


def test_malformed_body_is_refused_whatever_the_flow_says() -> None:
    """HT05: no 2xx for a request whose framing is broken."""
    raw = b"POST /careless HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with Server(site) as server:
        answer = talk(server.port, raw + b"+5\r\nhello\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_body_in_driblets() -> None:
    """The time limit is for the whole body, not for each of its bytes."""
    raw = b"POST /careless HTTP/1.1\r\n" + HOST + b"Content-Length: 900\r\n\r\n"
    with Server(site, Limits(head_timeout=0.2)) as server, Wire(server.port) as wire:
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


def test_unread_chunks_are_skipped() -> None:
    """HT19: to their end, then the next request is read."""
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
def test_unread_chunks_that_end_the_connection(rest: bytes) -> None:
    """HT19: too many, or malformed; what follows is not taken for a request."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(CHUNKED)
        assert wire.answer().status == 200
        wire.send(rest + get(b"/next"))
        assert wire.ended
        assert [one.target for one in server.application.requests] == [b"/other"]


def test_unread_body_that_never_comes() -> None:
    """The connection ends by time."""
    head = b"POST /other HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
    with Server(site, Limits(head_timeout=0.1)) as server, Wire(server.port) as wire:
        wire.send(head + b"hell")
        assert wire.answer().status == 200
        assert wire.ended


def test_slow_reader_gets_everything() -> None:
    """Answers wait while the client does not read; none is lost, none piles up."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/large") * 12)
        until(lambda: server.application.requests, "the first request")
        until(
            lambda: any(not one._writable for one in server.hub.connections),
            "the buffers to be full",
        )
        assert len(server.application.requests) < 12
        for _ in range(12):
            assert len(wire.answer().body) == 4 << 20
    assert len(server.application.requests) == 12


def test_no_continue_after_the_answer() -> None:
    """HT20: an interim answer in the middle of the final one would garble it."""
    seen: list[str] = []

    class AnswersFirst:
        async def forward(
            self, exchange: Any, forward: Forward, sent: SentRequest | None = None
        ) -> None:
            await exchange.start(200, (), length=2)
            try:
                await exchange.body.read_all(100)
            except ClientGone as error:
                seen.append(str(error))
            await exchange.write(b"ok")
            await exchange.finish()

        def try_fast_path(self, exchange: Any, forward: Forward) -> bool:
            return False

    head = b"POST /forward HTTP/1.1\r\n" + HOST
    with Server(site) as server, Wire(server.port) as wire:
        server.hub.forwarder = AnswersFirst()
        wire.send(head + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers["connection"] == "close"
        assert wire.ended
    assert len(seen) == 1


def test_head_above_the_receive_buffer() -> None:
    """A larger limit for heads is really one."""
    limits = Limits(head_bytes=300_000, header_count=20)
    field = b"X-Long: " + b"a" * 200_000
    with Server(site, limits) as server, Wire(server.port) as wire:
        raw = get(b"/", field, b"X-Request-Id: it-came")
        for at in range(0, len(raw), 50_000):
            wire.send(raw[at : at + 50_000])
        assert wire.answer().body == b"it-came"


def test_ambiguous_request_id() -> None:
    """Two ids are none."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/", b"X-Request-Id: one", b"X-Request-Id: two"))
        assert wire.answer().body not in (b"one", b"two")
        wire.send(get(b"/", b"X-Request-Id: one", b"X-A: 1", b"X-A: 2"))
        assert wire.answer().body == b"one"


def test_last_answer_when_stopping() -> None:
    """HT37: a flow under way is finished, and its connection ends with it."""
    with Server(site) as server, Wire(server.port) as wire:
        wire.send(get(b"/nap"))
        until(lambda: server.application.requests, "the request")
        server.call(lambda: setattr(server.hub, "stopping", True))
        server.call(RESTED.set)
        answer = wire.answer()
        assert (answer.status, answer.body) == (200, b"rested")
        assert answer.headers["connection"] == "close"
        assert wire.ended


def test_answer_cache_is_bounded_with_all_it_keeps() -> None:
    """Fresh answers in any number hold no more memory than allowed; pages none."""

    def encoded(cache: ResponseHeadCache, respond: Respond) -> bytes:
        return cache.encoded(respond, DATE, head_only=False, persistence="")

    cache = ResponseHeadCache(limit=100_000)
    for number in range(1000):
        value = b"%d" % number
        respond = Respond(202, ((b"authorization", value * 1000),), reusable=True)
        assert value * 1000 in encoded(cache, respond)
    kept = [respond for respond, _ in cache._heads.values()]
    assert 0 < sum(len(respond.headers[0][1]) for respond in kept) < 50_000
    page = Respond(200, (), b"x" * 5000)
    assert encoded(cache, page).endswith(page.body)
    assert id(page) not in cache._heads
    huge = Respond(202, ((b"authorization", b"x" * 60_000),), reusable=True)
    assert encoded(cache, huge).count(b"x") > 60_000
    assert id(huge) not in cache._heads
