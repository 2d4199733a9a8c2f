"""Request smuggling: authproxy and a real upstream see the same requests.

Each input of the corpus is sent to authproxy over a new connection, with a valid
session. Either it is rejected, or the upstream sees exactly the requests that were
answered. authproxy must reject every input that h11 rejects.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import h11
import pytest

from support.app_servers import NAMES, AppServer
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.programs import find

LAST_REQUEST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
# 52 bytes
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a POST of ``/seen`` with these raw field lines and a session."""
    lines = b"".join(fields)
    return (
        b"POST /seen HTTP/%b\r\nHost: a\r\nCookie: SESSION\r\n" % version
        + lines
        + b"\r\n"
        + body
    )


def chunks(body: bytes, *fields: bytes) -> bytes:
    return post(CHUNKED, *fields, body=body)


LAST = b"0\r\n\r\n"
CORPUS = {
    # Two lengths, or two framings.
    "cl-te": post(b"Content-Length: 6\r\n", CHUNKED, body=LAST + HIDDEN),
    "te-cl": post(CHUNKED, b"Content-Length: 4\r\n", body=b"34\r\n" + HIDDEN + LAST),
    "cl-cl": post(b"Content-Length: 0\r\nContent-Length: 52\r\n", body=HIDDEN),
    "cl-same": post(b"Content-Length: 1\r\nContent-Length: 1\r\n", body=b"x" + HIDDEN),
    "cl-list": post(b"Content-Length: 0, 52\r\n", body=HIDDEN),
    "cl-plus": post(b"Content-Length: +52\r\n", body=HIDDEN),
    "cl-hex": post(b"Content-Length: 0x34\r\n", body=HIDDEN),
    "cl-underscore": post(b"Content-Length: 5_2\r\n", body=HIDDEN),
    "cl-minus": post(b"Content-Length: -1\r\n", body=HIDDEN),
    "cl-long": post(b"Content-Length: " + b"0" * 30 + b"1\r\n", body=b"x" + HIDDEN),
    "cl-empty": post(b"Content-Length: \r\n", body=HIDDEN),
    "cl-blank-inside": post(b"Content-Length: 5 2\r\n", body=HIDDEN),
    "te-te": post(CHUNKED, b"Transfer-Encoding: identity\r\n", body=LAST + HIDDEN),
    "te-list": post(b"Transfer-Encoding: gzip, chunked\r\n", body=LAST + HIDDEN),
    "te-xchunked": post(b"Transfer-Encoding: xchunked\r\n", body=LAST + HIDDEN),
    "te-identity": post(b"Transfer-Encoding: identity\r\n", body=HIDDEN),
    "te-tab": post(b"Transfer-Encoding:\tchunked\r\n", body=LAST + HIDDEN),
    "te-vertical-tab": post(b"Transfer-Encoding: \x0bchunked\r\n", body=LAST + HIDDEN),
    "te-quoted": post(b'Transfer-Encoding: "chunked"\r\n', body=LAST + HIDDEN),
    "te-1.0": post(CHUNKED, body=LAST + HIDDEN, version=b"1.0"),
    "te-name-blank": post(b"Transfer-Encoding : chunked\r\n", body=LAST + HIDDEN),
    "te-name-tab": post(b"Transfer-Encoding\t: chunked\r\n", body=LAST + HIDDEN),
    "te-underscore": post(b"Transfer_Encoding: chunked\r\n", body=LAST + HIDDEN),
    "te-folded": post(b"Transfer-Encoding:\r\n chunked\r\n", body=LAST + HIDDEN),
    "te-hidden-in-fold": post(
        b"X: y\r\n Transfer-Encoding: chunked\r\n", body=LAST + HIDDEN
    ),
    # Line ends that only some parsers accept.
    "bare-lf-field": post(b"X: y\nTransfer-Encoding: chunked\r\n", body=LAST + HIDDEN),
    "bare-cr-field": post(b"X: y\rTransfer-Encoding: chunked\r\n", body=LAST + HIDDEN),
    "bare-lf-head": b"POST /seen HTTP/1.1\nHost: a\nCookie: SESSION\n\n" + HIDDEN,
    "lf-lf-end": b"GET /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\n\n" + HIDDEN,
    "cr-cr-lf": b"GET /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\r\n\r\n" + HIDDEN,
    "nul-in-value": post(b"X: a\x00b\r\n", b"Content-Length: 0\r\n"),
    "nul-in-name": post(b"X\x00: a\r\n", b"Content-Length: 0\r\n"),
    "no-colon": post(b"Content-Length 52\r\n", body=HIDDEN),
    "blank-first": b" GET /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "fold-first": b"GET /seen HTTP/1.1\r\n Host: a\r\nCookie: SESSION\r\n\r\n",
    # Chunks.
    "chunk-0x": chunks(b"0x3\r\nabc\r\n" + LAST),
    "chunk-plus": chunks(b"+3\r\nabc\r\n" + LAST),
    "chunk-minus": chunks(b"-3\r\nabc\r\n" + LAST),
    "chunk-underscore": chunks(b"0_3\r\nabc\r\n" + LAST),
    "chunk-blank": chunks(b" 3\r\nabc\r\n" + LAST),
    "chunk-empty": chunks(b"\r\nabc\r\n" + LAST),
    "chunk-huge": chunks(b"f" * 17 + b"\r\nabc\r\n" + LAST),
    "chunk-overflow": chunks(b"10000000000000003\r\nabc\r\n" + LAST),
    "chunk-lf": chunks(b"3\nabc\r\n" + LAST),
    "chunk-lf-after": chunks(b"3\r\nabc\n" + LAST),
    "chunk-cr-after": chunks(b"3\r\nabc\r" + LAST),
    "chunk-no-end": chunks(b"3\r\nabc" + LAST),
    "chunk-too-long": chunks(b"2\r\nabc\r\n" + LAST),
    "chunk-extension-lf": chunks(b"3;x\nabc\r\n" + LAST),
    "chunk-extension-cr": chunks(b"3;a\rb\r\nabc\r\n" + LAST),
    "chunk-last-lf": chunks(b"3\r\nabc\r\n0\n\n" + HIDDEN),
    "chunk-trailer-lf": chunks(b"0\r\nX: y\n\r\n" + HIDDEN),
    "chunk-trailer-fold": chunks(b"0\r\nX: y\r\n z\r\n\r\n"),
    # Request lines.
    "two-blanks": b"GET  /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "tab": b"GET\t/seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "blank-target": b"GET /seen /hidden HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "lower-version": b"GET /seen http/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "version-2": b"GET /seen HTTP/2.0\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "version-1.2": b"GET /seen HTTP/1.2\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "no-version": b"GET /seen\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    "connect": b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nCookie: SESSION\r\n\r\n",
    "absolute": b"GET http://b/seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n"
    b"Connection: close\r\n\r\n",
    "fragment": b"GET /seen#x HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n\r\n",
    # Host.
    "no-host": b"GET /seen HTTP/1.1\r\nCookie: SESSION\r\n\r\n",
    "two-hosts": b"GET /seen HTTP/1.1\r\nHost: a\r\nHost: b\r\nCookie: SESSION\r\n\r\n",
    "bad-host": b"GET /seen HTTP/1.1\r\nHost: a b\r\nCookie: SESSION\r\n\r\n",
    # Upgrades that would hide the following bytes.
    "h2c": b"GET /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n\r\n" + HIDDEN,
    "websocket": b"GET /seen HTTP/1.1\r\nHost: a\r\nCookie: SESSION\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 777\r\n\r\n" + HIDDEN,
    # Valid requests, which show that not everything is rejected.
    "good-length": post(b"Content-Length: 3\r\n", body=b"abc"),
    "good-chunks": chunks(b"3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n"),
    "good-hidden-in-body": post(b"Content-Length: 52\r\n", body=HIDDEN),
    "good-anonymous-after": post(b"Content-Length: 1\r\n", body=b"x" + HIDDEN),
}
GOOD = {name for name in CORPUS if name.startswith("good")}


@pytest.fixture(scope="module", params=NAMES)
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Program, AppServer]]:
    """authproxy in front of a real server."""
    if find(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    directory: Path = tmp_path_factory.mktemp(request.param)
    with (
        AppServer(request.param, directory / "app") as app,
        Program(directory, upstreams=[f"http://{LOOPBACK}:{app.port}/"]) as program,
    ):
        program.started()
        yield program, app


def rejected_by_h11(data: bytes) -> bool:
    """Return whether h11 rejects the first request in *data*."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return False
    except h11.RemoteProtocolError:
        return True


def statuses(data: bytes) -> list[int]:
    """Return the status of each response in *data*."""
    return [
        int(part[9:12]) for part in data.split(b"\r\n") if part.startswith(b"HTTP/1.1 ")
    ]


def send(port: int, data: bytes, *, byte_by_byte: bool = False) -> list[int]:
    """Send *data*; return the status of each response until the server closes."""
    received = b""
    with socket.create_connection((LOOPBACK, port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(data), 1 if byte_by_byte else len(data)):
                client.sendall(data[at : at + 1] if byte_by_byte else data)
            while chunk := client.recv(1 << 16):
                received += chunk
        except ConnectionError:
            pass  # rejected before all was sent
    return statuses(received)


def test_smuggling_corpus_is_rejected_or_seen_alike(
    servers: tuple[Program, AppServer],
) -> None:
    program, app = servers
    cookie = session_cookie().encode()
    for name, template in CORPUS.items():
        before = len(app.seen())
        data = template.replace(b"SESSION", cookie)
        if name in GOOD:
            data += LAST_REQUEST
        responses = send(program.port, data)
        # When the marker request is in the log, all earlier ones are.
        mark = b"GET /mark-%b HTTP/1.1\r\nHost: a\r\nCookie: %b\r\nConnection: close\r\n\r\n"
        assert send(program.port, mark % (name.encode(), cookie)) == [200]
        wait_for(lambda n=name: any(f"/mark-{n} " in x for x in app.seen()), "the mark")
        seen = app.seen()[before:]
        reached = [line for line in seen if "/mark-" not in line]
        assert not any("/hidden" in line for line in reached), name
        assert len(reached) == responses.count(200), (name, responses, reached)
        if name in GOOD:
            assert responses[:1] == [200], (name, responses)
        if rejected_by_h11(data):
            assert not reached or name in GOOD, (name, reached)
            assert any(status >= 400 for status in responses) or not responses, name


def test_smuggling_result_is_independent_of_packets(
    servers: tuple[Program, AppServer],
) -> None:
    """The result must not depend on packet boundaries."""
    program, app = servers
    cookie = session_cookie().encode()
    for name in ("te-cl", "bare-lf-field", "te-folded", "good-chunks"):
        before = len(app.seen())
        data = CORPUS[name].replace(b"SESSION", cookie)
        if name in GOOD:
            data += LAST_REQUEST
        ok = send(program.port, data, byte_by_byte=True).count(200)
        assert ok == (1 if name in GOOD else 0), name
        wait_for(lambda n=before + ok: len(app.seen()) == n, "the log")
