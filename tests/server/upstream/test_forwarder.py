"""Forwarding over HTTP/1.1, from the client's to the upstream's socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from authproxy.server_settings import ForwardSettings
from authproxy.upstream.forwarder import Forwarder
from authproxy.upstream.relay import request_head
from authproxy_core.effects import Outcome
from authproxy_core.messages import Forward, Headers, Request, Upstream
from support.certificates import Certificate, make_certificate
from support.scripted import Peer, Script, ScriptedServer, Seen, run
from support.server import Answer, Server, Wire, until

T = TypeVar("T")
Talk = Callable[[Server, Wire], T]
COOKIE: Headers = ((b"set-cookie", b"renewed=1"),)
OK = b"HTTP/1.1 200 OK\r\n"


def forwarding(upstream: Upstream) -> Callable[[Request], Outcome]:
    """Return an application that forwards everything."""

    def handle(request: Request) -> Outcome:
        headers = tuple(
            field
            for field in request.headers
            if field[0] not in (b"connection", b"transfer-encoding")
        )
        return Forward(upstream, request.method, request.target, headers, COOKIE)

    return handle


def through(
    script: Script,
    talk: Talk[T],
    *,
    timeout: float = 20.0,
    tls: Certificate | None = None,
    path: str = "",
    verify: bool = True,
) -> T:
    """Return the result of *talk* with a proxy whose upstream runs *script*."""

    async def main() -> T:
        context = tls.server_context() if tls else None
        async with ScriptedServer(script, tls=context, path=path) as played:
            upstream = Upstream(
                "app",
                "https" if tls else "http",
                "127.0.0.1",
                1 if path else played.port,
                path,
                timeout,
                verify,
            )
            return await asyncio.to_thread(with_proxy, upstream, talk)

    return run(main())


def with_proxy(upstream: Upstream, talk: Talk[T]) -> T:
    """Return the result of *talk* with a proxy to *upstream*."""
    with Server(forwarding(upstream)) as server, Wire(server.port) as wire:
        return talk(server, wire)


@contextlib.contextmanager
def use_forwarder(server: Server, forwarder: Forwarder) -> Iterator[None]:
    """Replace the forwarder of *server*; close it at the end."""
    server.context.forwarder = forwarder
    closed = threading.Event()

    async def close() -> None:
        await forwarder.close()
        closed.set()

    try:
        yield
    finally:
        server.call(lambda: server.context.spawn(close()))
        assert closed.wait(15.0)


def request(
    method: bytes = b"GET",
    *fields: bytes,
    target: bytes = b"/",
    body: bytes = b"",
    version: bytes = b"1.1",
) -> bytes:
    lines = [b"%b %b HTTP/%b" % (method, target, version), b"Host: app.test", *fields]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def exchange(data: bytes, *, head_only: bool = False) -> Talk[Answer]:
    """Return a talk that sends *data* and reads one response."""

    def talk(_: Server, wire: Wire) -> Answer:
        wire.send(data)
        return wire.answer(head_only=head_only)

    return talk


def responds(data: bytes) -> Script:
    """Return a script that reads a request, sends *data* and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return script


def seen_by_upstream(data: bytes) -> Seen:
    """Return the request at the upstream when the client sends *data*."""
    seen: list[Seen] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.answer()

    through(script, exchange(data))
    return seen[0]


# The request


def test_forwarder_head_is_sent_unchanged() -> None:
    target = b"/a%2F..//b;c?d=%zz&&e"
    seen = seen_by_upstream(request(b"DELETE", b"X-A: 1", b"x-a: 2", target=target))
    assert (seen.method, seen.target) == (b"DELETE", target)
    assert seen.headers == [(b"host", b"app.test"), (b"x-a", b"1"), (b"x-a", b"2")]


@pytest.mark.parametrize(
    ("method", "lengths"), [(b"GET", []), (b"POST", [b"0"]), (b"PUT", [b"0"])]
)
def test_forwarder_empty_body_announced_for_methods_with_body(
    method: bytes, lengths: list[bytes]
) -> None:
    assert seen_by_upstream(request(method)).values(b"content-length") == lengths


def test_forwarder_body_with_content_length() -> None:
    seen = seen_by_upstream(request(b"POST", body=b"a=b"))
    assert (seen.values(b"content-length"), seen.body) == ([b"3"], b"a=b")
    assert not seen.values(b"transfer-encoding")


def test_forwarder_chunked_body_with_trailers() -> None:
    chunks = b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nSum: 1\r\nHost: evil\r\n\r\n"
    seen = seen_by_upstream(request(b"POST", b"Transfer-Encoding: chunked") + chunks)
    assert seen.trailers == [(b"sum", b"1")]
    assert (seen.values(b"transfer-encoding"), seen.body) == ([b"chunked"], b"abc")
    assert not seen.values(b"content-length")


def test_forwarder_hop_by_hop_fields_removed() -> None:
    fields = (b"Expect: 100-continue", b"TE: deflate", b"Keep-Alive: 5", b"Upgrade: x")
    seen = seen_by_upstream(request(b"POST", *fields, body=b"a"))
    names = {name for name, _ in seen.headers}
    assert names == {b"host", b"content-length"}


def test_forwarder_continue_sent_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.answer(await peer.reader.readexactly(3))

    def talk(_: Server, wire: Wire) -> tuple[Answer, Answer]:
        wire.send(request(b"POST", b"Expect: 100-continue", b"Content-Length: 3"))
        interim = wire.answer()
        wire.send(b"abc")
        return interim, wire.answer()

    interim, response = through(script, talk)
    assert interim.status == 100
    assert (response.status, response.body) == (200, b"abc")


def test_forwarder_large_body_in_both_directions() -> None:
    body = bytes(range(256)) * (32 << 10)

    async def script(peer: Peer) -> None:
        seen = await peer.request()
        await peer.answer(seen.body)

    response = through(script, exchange(request(b"POST", body=body)))
    assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()


def test_forwarder_bodies_streamed_concurrently() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(OK + b"content-length: 6\r\n\r\n")
        for _ in range(3):
            await peer.send(await peer.reader.readexactly(2))

    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request(b"POST", b"Content-Length: 6"))
        while wire.line() != b"\r\n":
            pass
        echoed = b""
        for chunk in (b"ab", b"cd", b"ef"):
            wire.send(chunk)
            echoed += wire.take(2)
        return echoed

    assert through(script, talk) == b"abcdef"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        (b"/", ((b"x", b"a\r\nb: c"),)),
        (b"/", ((b"x", b"a\nb"),)),
        (b"/ HTTP/1.1\r\nx: y\r\n\r\n", ()),
        (b"/a b", ()),
        (b"", ()),
    ],
)
def test_request_head_with_line_end_raises(target: bytes, headers: Headers) -> None:
    forward = Forward(Upstream("a", "http", "h", 1), b"GET", target, headers)
    with pytest.raises(ValueError, match=r"line|control character"):
        request_head(forward, 0)


# The response


@pytest.mark.parametrize(
    ("data", "framing", "body"),
    [
        (b"content-length: 3\r\n\r\nabc", "content-length", b"abc"),
        (b"content-length: 0\r\n\r\n", "content-length", b""),
        (
            b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\ny: z\r\n\r\n",
            "transfer-encoding",
            b"abc",
        ),
        (b"\r\nabc", "transfer-encoding", b"abc"),
        (b"\r\n", "transfer-encoding", b""),
    ],
)
def test_forwarder_response_framing_relayed(
    data: bytes, framing: str, body: bytes
) -> None:
    response = through(responds(OK + data), exchange(request()))
    assert (response.status, response.body) == (200, body)
    assert framing in response.headers
    assert response.trailers == ({"y": "z"} if b"y: z" in data else {})


def test_forwarder_forbidden_response_trailers_removed() -> None:
    trailers = b"x-sum: 1\r\nset-cookie: a=b\r\ncontent_length: 5\r\nx-sum: 2\r\n"
    data = OK + b"transfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"
    response = through(responds(data), exchange(request()))
    assert response.trailers == {"x-sum": "2"}


def test_forwarder_http_1_0_client_gets_close_delimited_body() -> None:
    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request(version=b"1.0"))
        return wire.rest()

    raw = through(
        responds(OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"), talk
    )
    assert raw.endswith(b"\r\n\r\nx")
    assert b"chunked" not in raw


def test_forwarder_http_1_0_upstream() -> None:
    response = through(responds(b"HTTP/1.0 200 OK\r\n\r\nabc"), exchange(request()))
    assert response.body == b"abc"


@pytest.mark.parametrize(
    ("method", "data", "status", "length"),
    [
        (b"HEAD", OK + b"content-length: 5\r\n\r\n", 200, "5"),
        (b"HEAD", OK + b"transfer-encoding: chunked\r\n\r\n", 200, None),
        (b"GET", b"HTTP/1.1 204 No\r\n\r\n", 204, None),
        (b"GET", b"HTTP/1.1 304 Not\r\ncontent-length: 5\r\n\r\n", 304, "5"),
        (b"GET", b"HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", 204, None),
    ],
)
def test_forwarder_response_without_body(
    method: bytes, data: bytes, status: int, length: str | None
) -> None:
    def talk(_: Server, wire: Wire) -> tuple[Answer, Answer]:
        wire.send(request(method))
        first = wire.answer(head_only=True)
        wire.send(request(method))
        return first, wire.answer(head_only=True)

    for response in through(responds(data), talk):
        assert response.status == status
        assert response.headers.get("content-length") == length


def test_forwarder_response_headers() -> None:
    data = (
        b"HTTP/1.1 418 Teapot\r\nServer: app\r\nDate: then\r\nX-Utf8: \xc3\xa9\r\n"
        b"Connection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: x\r\nUpgrade: h2c\r\nTrailer: x\r\nTE: x\r\n"
        b"Set-Cookie: a=1\r\nContent-Length: 0\r\n\r\n"
    )
    response = through(responds(data), exchange(request()))
    assert response.status == 418
    assert set(response.headers) == {
        "server",
        "date",
        "x-utf8",
        "set-cookie",
        "content-length",
    }
    assert response.headers["date"] == "then"
    assert b"Set-Cookie: a=1\r\nSet-Cookie: renewed=1\r\n" in response.head
    assert b"X-Utf8: \xc3\xa9\r\n" in response.head


def test_forwarder_informational_relayed_except_100() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n"
        + OK
        + b"content-length: 0\r\n\r\n"
    )

    def talk(_: Server, wire: Wire) -> tuple[Answer, Answer]:
        wire.send(request())
        return wire.answer(), wire.answer()

    interim, response = through(responds(data), talk)
    assert (interim.status, interim.headers) == (103, {"link": "</a>"})
    assert response.status == 200


def test_forwarder_response_is_streamed() -> None:
    got = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-type: text/event-stream\r\n\r\nfirst")
        await asyncio.to_thread(got.wait, 15.0)
        await peer.send(b"second")

    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request())
        while wire.line() != b"\r\n":
            pass
        first = wire.line() + wire.take(7)  # the chunk size line is first
        got.set()
        return first + wire.line() + wire.take(8)

    assert through(script, talk) == b"5\r\nfirst\r\n6\r\nsecond\r\n"


def test_forwarder_early_response_relayed_before_body_ends() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.answer(b"no", status=b"413 Too Large")
        await peer.gone()

    response = through(script, exchange(request(b"POST", b"Content-Length: 99")))
    assert (response.status, response.body) == (413, b"no")


# Failures before the response is started


def fail(script: Script, *, timeout: float = 20.0) -> tuple[Answer, list[str]]:
    """Return the response when the upstream runs *script*, and the reason codes."""

    def talk(server: Server, wire: Wire) -> tuple[Answer, list[str]]:
        wire.send(request())
        return wire.answer(), server.application.failures

    return through(script, talk, timeout=timeout)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.10 200 OK\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        OK + b" x: y\r\n\r\n",
        OK + b"x y: z\r\n\r\n",
        OK + b"content-length : 1\r\n\r\na",
        OK + b"content-length:\r\n 1\r\n\r\na",
        OK + b"connection: close\r\n , x\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"x: a\0b\r\n\r\n",
        OK + b"x: a\rb\r\n\r\n",
        OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n",
        OK + b"transfer-encoding: identity\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
        OK + b"content-length: 1, 1\r\n\r\na",
        OK + b"content-length: +1\r\n\r\na",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: 1234567890123456789\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
    ],
)
def test_forwarder_malformed_response_gets_502(data: bytes) -> None:
    """HT34: the client never sees ambiguous bytes."""
    response, reasons = fail(responds(data))
    assert (response.status, reasons) == (502, ["malformed_answer"])


@pytest.mark.parametrize(("number", "status"), [(16, 200), (17, 502)])
def test_forwarder_informational_limit(number: int, status: int) -> None:
    """HT34: a flood of 1xx responses ends in 502."""
    data = b"HTTP/1.1 103 Early\r\n\r\n" * number + OK + b"content-length: 0\r\n\r\n"

    def talk(_: Server, wire: Wire) -> list[int]:
        wire.send(request())
        statuses = [wire.answer().status]
        while statuses[-1] < 200:
            statuses.append(wire.answer().status)
        return statuses

    assert through(responds(data), talk) == [103] * 16 + [status]


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 O", OK + b"x: y\r\n"])
def test_forwarder_upstream_closes_early_gets_502(data: bytes) -> None:
    response, reasons = fail(responds(data))
    assert (response.status, reasons) == (502, ["closed_early"])


def test_forwarder_upstream_reset_gets_closed_early() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    assert fail(script)[1] == ["closed_early"]


@pytest.mark.parametrize("piece", [b"x: y\r\n", b"x"], ids=["fields", "one-line"])
def test_forwarder_endless_head_rejected(piece: bytes) -> None:
    """HT34: 502 at the limit."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        while not peer.writer.transport.is_closing():
            await peer.send(piece * 1000)
            await asyncio.sleep(0)

    assert fail(script)[1] == ["head_too_large"]


def test_forwarder_large_head_relayed() -> None:
    big = b"x-big: " + b"y" * (60 << 10) + b"\r\n"
    response = through(
        responds(OK + big * 1 + b"content-length: 0\r\n\r\n"), exchange(request())
    )
    assert len(response.headers["x-big"]) == 60 << 10


def test_forwarder_no_response_gets_504() -> None:
    response, reasons = fail(Peer.gone, timeout=0.05)
    assert (response.status, reasons) == (504, ["timeout"])


def test_forwarder_slow_head_does_not_extend_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"x: ")
        while not peer.writer.transport.is_closing():
            await peer.send(b"y")
            await asyncio.sleep(0.005)

    assert fail(script, timeout=0.1)[1] == ["timeout"]


def test_forwarder_informational_does_not_extend_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        await peer.gone()

    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request())
        while (response := wire.answer()).status < 200:
            pass
        return response.body

    assert through(script, talk, timeout=0.05) == b"timeout"


def test_forwarder_timeout_ends_with_head() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"content-length: 4\r\n\r\n")
        await asyncio.sleep(1.5)
        await peer.send(b"late")

    assert through(script, exchange(request()), timeout=1.0).body == b"late"


def test_forwarder_timeout_zero_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.05)
        await peer.answer(b"late")

    assert through(script, exchange(request()), timeout=0.0).body == b"late"


def test_forwarder_timeout_starts_after_request_body() -> None:
    waited = 0.5

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.reader.readexactly(1)
        await asyncio.sleep(waited * 1.5)  # longer than the timeout
        await peer.send(b"HTTP/1.1 103 Go\r\n\r\n")
        await peer.reader.readexactly(1)
        await peer.answer(b"done")

    def talk(_: Server, wire: Wire) -> Answer:
        wire.send(request(b"POST", b"Content-Length: 2") + b"a")
        assert wire.answer().status == 103
        wire.send(b"b")
        return wire.answer()

    assert through(script, talk, timeout=waited).body == b"done"


def test_forwarder_upstream_that_does_not_read_times_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # it's a socket's
        await left.wait()

    left = asyncio.Event()

    def talk(server: Server, wire: Wire) -> list[str]:
        wire.socket.settimeout(1.0)
        wire.send(request(b"POST", b"Content-Length: %d" % (1 << 30)))
        with contextlib.suppress(OSError):
            while True:
                wire.socket.sendall(bytes(1 << 20))
        until(lambda: server.application.failures, "the failure")
        return server.application.failures

    assert through(script, talk, timeout=0.2) == ["timeout"]


def test_forwarder_started_response_need_not_read_body() -> None:
    full = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # it's a socket's
        await peer.send(OK + b"content-length: 5\r\n\r\nfirst"[:-2])
        await asyncio.to_thread(full.wait, 15.0)
        await asyncio.sleep(1.5)  # longer than the upstream's timeout
        await peer.send(b"st")

    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request(b"POST", b"Content-Length: %d" % (1 << 30)))
        first = wire.line()
        wire.socket.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            while True:
                wire.socket.sendall(bytes(1 << 20))
        full.set()
        wire.socket.settimeout(15.0)
        while wire.line() != b"\r\n":
            pass
        return first + wire.take(5)

    assert through(script, talk, timeout=1.0) == OK + b"first"


def test_forwarder_connection_refused() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]

        def talk(server: Server, wire: Wire) -> tuple[Answer, str]:
            wire.send(request())
            response = wire.answer()
            return response, server.logged(f"refused by 127.0.0.1:{port}")

        response, log = with_proxy(Upstream("app", "http", "127.0.0.1", port), talk)
    assert (response.status, response.body) == (502, b"connection_failed")
    assert "upstream app: connection refused" in log


def test_forwarder_connect_timeout() -> None:
    async def main() -> bytes:
        async with ScriptedServer(Peer.gone) as played:  # no TLS handshake
            upstream = Upstream("app", "https", "127.0.0.1", played.port)
            return await asyncio.to_thread(with_proxy, upstream, talk)

    def talk(server: Server, wire: Wire) -> bytes:
        with use_forwarder(server, Forwarder(ForwardSettings(connect_timeout=0.05))):
            wire.send(request())
            return wire.answer().body

    assert run(main()) == b"timeout"


def test_forwarder_invalid_host_name() -> None:
    upstream = Upstream("app", "http", "a" * 64, 80)
    assert with_proxy(upstream, exchange(request())).body == b"connection_failed"


def test_forwarder_missing_unix_socket(tmp_path: Path) -> None:
    upstream = Upstream("app", "http", "localhost", 80, str(tmp_path / "none"))
    assert with_proxy(upstream, exchange(request())).body == b"connection_failed"


def test_forwarder_failure_keeps_client_connection() -> None:
    def talk(_: Server, wire: Wire) -> list[int]:
        statuses = []
        for _number in range(2):
            wire.send(request())
            statuses.append(wire.answer().status)
        return statuses

    assert through(responds(b"nonsense\r\n\r\n"), talk) == [502, 502]


# Failures during the response body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"content-length: 9\r\n\r\nabc", "closed_early"),
        (b"transfer-encoding: chunked\r\n\r\n9\r\nabc", "closed_early"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "closed_early"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n", "malformed_answer"),
        (b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", "malformed_answer"),
    ],
)
def test_forwarder_incomplete_response_aborts_client(data: bytes, reason: str) -> None:
    def talk(server: Server, wire: Wire) -> tuple[bytes, str]:
        wire.send(request())
        raw = wire.rest()
        return raw, server.logged(f"{reason} while receiving")

    raw, _ = through(responds(OK + data), talk)
    assert raw.startswith(OK)
    assert not raw.endswith(b"0\r\n\r\n")
    assert b"502" not in raw


def test_forwarder_reset_does_not_complete_close_delimited_body() -> None:
    passed = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK + b"\r\nabc")
        await asyncio.to_thread(passed.wait, 15.0)
        peer.reset()

    def talk(_: Server, wire: Wire) -> bytes:
        wire.send(request())
        while wire.line() != b"\r\n":
            pass
        assert wire.line() == b"3\r\n"
        passed.set()
        return wire.rest()

    assert through(script, talk) == b"abc\r\n"


# Clients that disconnect or send malformed bodies


def closed_upstream(
    start: Callable[[threading.Event, Wire], None], response: bytes = b""
) -> Seen:
    """Return the request at the upstream when *start* makes the proxy disconnect.

    The event is set when the upstream has received the head.
    """
    seen: list[Seen] = []
    arrived, left = threading.Event(), threading.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        arrived.set()
        await peer.send(response)
        body = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await peer.reader.read(1 << 16):
                body += chunk
        seen.append(head._replace(body=body))
        left.set()

    def talk(_: Server, wire: Wire) -> None:
        start(arrived, wire)
        assert left.wait(15.0)

    through(script, talk)
    return seen[0]


def reset(wire: Wire) -> None:
    """Reset the connection."""
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.socket.close()


def test_forwarder_disconnect_before_response_closes_upstream() -> None:
    def start(arrived: threading.Event, wire: Wire) -> None:
        wire.send(request())
        assert arrived.wait(15.0)
        reset(wire)

    assert closed_upstream(start).body == b""


def test_forwarder_disconnect_during_response_closes_upstream() -> None:
    def start(_: threading.Event, wire: Wire) -> None:
        wire.send(request())
        while wire.line() != b"\r\n":
            pass
        reset(wire)

    closed_upstream(start, OK + b"\r\nfirst")


@pytest.mark.parametrize("chunked", [False, True])
def test_forwarder_half_close_during_body_closes_upstream(chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 9"

    def start(_: threading.Event, wire: Wire) -> None:
        wire.send(request(b"POST", framing) + (b"3\r\nabc\r\n" if chunked else b"abc"))
        while wire.line() != b"\r\n":  # the request has been forwarded
            pass
        wire.socket.shutdown(socket.SHUT_WR)

    body = closed_upstream(start, b"HTTP/1.1 103 Early Hints\r\n\r\n").body
    assert body == (b"3\r\nabc\r\n" if chunked else b"abc")


def test_forwarder_malformed_body_gets_400() -> None:
    responses: list[Answer] = []

    def start(_: threading.Event, wire: Wire) -> None:
        # The informational response shows that the request has been forwarded.
        wire.send(request(b"POST", b"Transfer-Encoding: chunked") + b"3\r\nabc\r\n")
        assert wire.answer().status == 103
        wire.send(b"zz\r\n")
        responses.append(wire.answer())

    early = b"HTTP/1.1 103 Early\r\n\r\n"
    assert closed_upstream(start, early).body in (b"", b"3\r\nabc\r\n")
    assert responses[0].status == 400
    assert responses[0].headers["connection"] == "close"


def test_forwarder_buffered_malformed_body_is_not_forwarded() -> None:
    def talk(_: Server, wire: Wire) -> Answer:
        chunks = b"3\r\nabc\r\nzz\r\n"
        wire.send(request(b"POST", b"Transfer-Encoding: chunked") + chunks)
        return wire.answer()

    async def script(peer: Peer) -> None:
        raise AssertionError("unexpected connection")

    response = through(script, talk)
    assert (response.status, response.headers["connection"]) == (400, "close")


# Back-pressure


def test_forwarder_slow_client_pauses_upstream() -> None:
    total = 128 << 20
    sent = 0
    full = threading.Event()

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(OK + b"content-length: %d\r\n\r\n" % total)
        try:
            while sent < total:
                async with asyncio.timeout(0.5):
                    await peer.send(bytes(1 << 18))
                sent += 1 << 18
        except TimeoutError:
            pass
        full.set()

    def talk(_: Server, wire: Wire) -> None:
        wire.send(request())
        assert full.wait(15.0)

    through(script, talk)
    assert sent < total // 2


def test_forwarder_slow_upstream_pauses_client() -> None:
    total = 128 << 20
    done = threading.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # it's a socket's
        await asyncio.to_thread(done.wait, 15.0)

    def talk(_: Server, wire: Wire) -> int:
        sent = 0
        wire.socket.settimeout(0.5)
        try:
            wire.socket.sendall(request(b"POST", b"Content-Length: %d" % total))
            while sent < total:
                sent += wire.socket.send(bytes(1 << 18))
        except TimeoutError:
            pass
        done.set()
        return sent

    assert through(script, talk) < total // 2


# Persistent connections


class RecordingUpstream:
    """Responds to requests and records the connection of each."""

    def __init__(self, response: Callable[[Peer, int], Awaitable[None]]) -> None:
        self.seen: list[tuple[int, bytes]] = []  # connection number, method
        self.closed = threading.Event()
        self._connections = 0
        self._respond = response

    async def __call__(self, peer: Peer) -> None:
        self._connections += 1
        number = self._connections
        try:
            while True:
                self.seen.append((number, (await peer.request()).method))
                await self._respond(peer, len(self.seen))
        finally:
            self.closed.set()


async def respond_plain(peer: Peer, _: int) -> None:
    await peer.answer(b"x")


def fetch(wire: Wire, data: bytes) -> Answer:
    """Return the response to the request *data*."""
    wire.send(data)
    return wire.answer(head_only=data.startswith(b"HEAD"))


def fetch_all(recorder: RecordingUpstream, *requests: bytes) -> list[Answer]:
    """Return the responses to *requests*, sent one after the other."""
    return through(recorder, lambda _, wire: [fetch(wire, data) for data in requests])


def test_forwarder_connection_reused() -> None:
    recorder = RecordingUpstream(respond_plain)
    fetch_all(recorder, request(), request(), request(b"PUT"))
    assert recorder.seen == [(1, b"GET"), (1, b"GET"), (1, b"PUT")]


@pytest.mark.parametrize(
    "data", [request(b"POST"), request(b"PATCH"), request(b"PUT", body=b"a")]
)
def test_forwarder_not_retryable_request_gets_new_connection(data: bytes) -> None:
    recorder = RecordingUpstream(respond_plain)

    def talk(server: Server, wire: Wire) -> None:
        with use_forwarder(server, Forwarder(ForwardSettings(recent=0.0))):
            fetch(wire, request())
            fetch(wire, data)

    through(recorder, talk)
    assert [number for number, _ in recorder.seen] == [1, 2]


@pytest.mark.parametrize("data", [request(b"POST"), request(b"PUT", body=b"a")])
def test_forwarder_recent_connection_reused_for_all_requests(data: bytes) -> None:
    async def response(peer: Peer, count: int) -> None:
        if count < 3:
            return await peer.answer(b"x")
        peer.writer.close()  # while the request is on its way
        return None

    recorder = RecordingUpstream(response)
    responses = fetch_all(recorder, request(), data, data)
    assert [number for number, _ in recorder.seen] == [1, 1, 1]
    # The upstream may have processed it, so it is not retried.
    assert [one.status for one in responses] == [200, 200, 502]


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (OK + b"content-length: 1\r\nconnection: close\r\n\r\nx", b"GET"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", b"GET"),
        (OK + b"content-length: 1\r\n\r\nxHTTP/1.1 500 No\r\n\r\n", b"GET"),
        (OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\r\n", b"GET"),
        (OK + b"content-length: 1\r\n\r\nx", b"HEAD"),
        (b"HTTP/1.1 204 No\r\n\r\nx", b"GET"),
    ],
    ids=["close", "http/1.0", "second-response", "more", "head-body", "204-body"],
)
def test_forwarder_connection_not_reused(data: bytes, method: bytes) -> None:
    async def response(peer: Peer, _: int) -> None:
        await peer.send(data)

    recorder = RecordingUpstream(response)
    responses = fetch_all(recorder, request(method), request(method))
    assert [number for number, _ in recorder.seen] == [1, 2]
    expected = 204 if b" 204 " in data else 200
    assert [one.status for one in responses] == [expected, expected]


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_forwarder_connection_reused_after_response_without_body(method: bytes) -> None:
    async def response(peer: Peer, _: int) -> None:
        status = b"200 OK" if method == b"HEAD" else b"304 Not"
        await peer.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 9\r\n\r\n")

    recorder = RecordingUpstream(response)

    def talk(_: Server, wire: Wire) -> None:
        for _number in range(2):
            wire.send(request(method))
            wire.answer(head_only=True)

    through(recorder, talk)
    assert recorder.seen == [(1, method), (1, method)]


async def closes_on_second(peer: Peer, count: int) -> None:
    """Respond to the first request, close at the second."""
    if count == 2:
        raise ConnectionResetError
    await peer.answer(b"x")


async def resets_on_second(peer: Peer, count: int) -> None:
    """Respond to the first request, reset at the second."""
    if count == 2:
        peer.reset()
        raise ConnectionResetError
    await peer.answer(b"x")


@pytest.mark.parametrize("response", [closes_on_second, resets_on_second])
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_forwarder_stale_connection_is_retried(
    response: Callable[[Peer, int], Awaitable[None]], method: bytes
) -> None:
    recorder = RecordingUpstream(response)
    responses = fetch_all(recorder, request(), request(method))
    assert [one.status for one in responses] == [200, 200]
    assert recorder.seen == [(1, b"GET"), (1, method), (2, method)]


def test_forwarder_retries_once() -> None:
    async def dies(peer: Peer, count: int) -> None:
        if count > 1:
            raise ConnectionResetError
        await peer.answer(b"x")

    recorder = RecordingUpstream(dies)
    responses = fetch_all(recorder, request(), request())
    assert [one.status for one in responses] == [200, 502]
    assert len(recorder.seen) == 3


def test_forwarder_started_response_is_not_retried() -> None:
    async def breaks(peer: Peer, count: int) -> None:
        if count == 2:
            await peer.send(b"H")
            raise ConnectionResetError
        await peer.answer(b"x")

    recorder = RecordingUpstream(breaks)
    responses = fetch_all(recorder, request(), request())
    assert [one.status for one in responses] == [200, 502]
    assert len(recorder.seen) == 2


def test_forwarder_post_is_not_retried() -> None:
    async def dies(peer: Peer, count: int) -> None:
        raise ConnectionResetError

    recorder = RecordingUpstream(dies)
    responses = fetch_all(recorder, request(b"POST", body=b"a"))
    assert [one.status for one in responses] == [502]
    assert recorder.seen == [(1, b"POST")]


def test_forwarder_idle_timeout_closes_connection() -> None:
    recorder = RecordingUpstream(respond_plain)

    def talk(server: Server, wire: Wire) -> bool:
        with use_forwarder(server, Forwarder(ForwardSettings(idle_timeout=0.01))):
            wire.send(request())
            wire.answer()
            return recorder.closed.wait(15.0)

    assert through(recorder, talk)


def test_forwarder_incomplete_request_closes_connection() -> None:
    """The upstream would parse the next request as the rest of the body."""
    methods: list[bytes] = []

    async def script(peer: Peer) -> None:
        methods.append((await peer.head()).method)
        await peer.answer(b"x")
        await peer.gone()

    def talk(server: Server, wire: Wire) -> None:
        wire.send(request(b"POST", b"Content-Length: 99"))
        assert wire.answer().status == 200
        with Wire(server.port) as other:
            other.send(request())
            assert other.answer().status == 200

    through(script, talk)
    assert methods == [b"POST", b"GET"]


def test_forwarder_connection_in_use_does_not_expire() -> None:
    async def slow(peer: Peer, count: int) -> None:
        await asyncio.sleep(0.3 if count == 2 else 0.0)
        await peer.answer(b"x")

    recorder = RecordingUpstream(slow)

    def talk(server: Server, wire: Wire) -> list[int]:
        with use_forwarder(server, Forwarder(ForwardSettings(idle_timeout=0.1))):
            return [fetch(wire, request()).status for _ in range(2)]

    assert through(recorder, talk) == [200, 200]


def test_forwarder_idle_connection_limit() -> None:
    number = ForwardSettings().idle_connections + 2
    arrived = 0
    closed: list[bool] = []
    together = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal arrived
        await peer.request()
        arrived += 1
        if arrived == number:
            together.set()
        await together.wait()
        await peer.answer(b"x")
        await peer.gone()
        closed.append(True)

    def talk(server: Server, _: Wire) -> int:
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(server.port)) for _ in range(number)]
            for wire in wires:
                wire.send(request())
            for wire in wires:
                wire.answer()
            until(lambda: len(closed) >= 2, "the surplus connections")
            return len(closed)

    assert through(script, talk) == 2


def test_forwarder_closed_connection_not_reused() -> None:
    responded, gone = threading.Event(), threading.Event()

    async def closes(peer: Peer, count: int) -> None:
        await peer.answer(b"x")
        if count == 1:
            await asyncio.to_thread(responded.wait, 15.0)
            await peer.answer(b"unsolicited", status=b"500 No")
            peer.writer.write_eof()
            await peer.gone()  # the proxy has closed the connection as well
            gone.set()

    recorder = RecordingUpstream(closes)

    def talk(_: Server, wire: Wire) -> None:
        wire.send(request())
        wire.answer()
        responded.set()
        assert gone.wait(15.0)
        wire.send(request())
        assert wire.answer().status == 200

    through(recorder, talk)
    assert recorder.seen == [(1, b"GET"), (2, b"GET")]


# Other transports


def test_forwarder_unix_socket(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"unix")

    response = through(script, exchange(request()), path=str(tmp_path / "app.sock"))
    assert response.body == b"unix"


@pytest.mark.parametrize("verify", [True, False])
def test_forwarder_tls_verifies_certificate(tmp_path: Path, verify: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"tls")

    response = through(
        script,
        exchange(request()),
        tls=make_certificate(tmp_path, "127.0.0.1"),
        verify=verify,
    )
    assert response.body == (b"connection_failed" if verify else b"tls")
