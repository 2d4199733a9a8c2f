"""Streaming and failures end to end with nginx, Node and Go as upstreams.

A scripted upstream behaves as its author expects; these are real servers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.app_servers import NAMES, AppServer
from support.processes import wait_for
from support.program import Program, session_cookie
from support.programs import find
from support.server import Answer, Wire

GIGABYTE = 1 << 30
MAX_GROWTH = 20 << 20  # bytes of resident memory
CHUNK = bytes(1 << 18)
TIMEOUT = 1  # seconds for a response head
FAILURES = {
    "/raw/garbage": (502, "malformed_answer"),
    "/raw/head": (502, "head_too_large"),
    "/raw/early": (502, "closed_early"),
    "/never": (504, "timeout"),
}
INCOMPLETE = ("/raw/half", "/raw/chunk")
# The configuration of nginx can't produce the other failures.
FAILING = [("nginx", "/raw/early")] + [
    (name, path) for name in ("node", "go") for path in FAILURES
]
programmed = pytest.mark.parametrize(
    "proxied", ["node", "go"], indirect=True, scope="module"
)


class Proxied:
    """authproxy in front of one of the servers."""

    def __init__(self, program: Program, app: AppServer) -> None:
        self.program = program
        self.app = app
        self.port = program.port
        self.cookie = session_cookie()

    @contextlib.contextmanager
    def connect(self, line: str, *fields: str, body: bytes = b"") -> Iterator[Wire]:
        """Return a connection on which a request has been sent."""
        with Wire(self.port) as wire:
            self.send(wire, line, *fields, body=body)
            yield wire

    def send(self, wire: Wire, line: str, *fields: str, body: bytes = b"") -> None:
        head = [f"{line} HTTP/1.1", "Host: a", f"Cookie: {self.cookie}", *fields]
        wire.send("\r\n".join([*head, "", ""]).encode() + body)

    def get(self, path: str) -> Answer:
        with self.connect(f"GET {path}") as wire:
            return wire.answer()

    def logged(self, text: str) -> None:
        wait_for(lambda: text in self.program.log_since_mark(), repr(text))


@pytest.fixture(scope="module", params=NAMES)
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    name: str = request.param
    if find(name) is None:
        pytest.skip(f"{name} is not installed")
    folder = tmp_path_factory.mktemp(name)
    with AppServer(name, folder / "app") as app:
        with (folder / "app" / "big").open("wb") as big:
            big.truncate(GIGABYTE)  # for nginx; a sparse file
        upstreams = [f"http://127.0.0.1:{app.port}/"]
        with Program(
            folder, upstreams=upstreams, upstream_timeout=f"{TIMEOUT}s"
        ) as program:
            yield Proxied(program, app)


@pytest.fixture(autouse=True)
def marked(proxied: Proxied) -> None:
    proxied.program.mark()


# Failures


@pytest.mark.parametrize(
    ("proxied", "path"), FAILING, indirect=["proxied"], scope="module"
)
def test_real_upstream_failure_gets_page_and_log_line(
    proxied: Proxied, path: str
) -> None:
    status, reason = FAILURES[path]
    with proxied.connect(f"GET {path}", "Accept: text/html") as wire:
        response = wire.answer()
        assert response.status == status
        assert response.headers["content-type"].startswith("text/html")
        assert response.headers["cache-control"].startswith("no-")
        assert b"aaaaaaaa" not in response.body
        assert b"what is this" not in response.body
        proxied.logged(f"[upstream_failed] upstream /: {reason} (request ")
        # The client connection and the upstream are still usable.
        proxied.send(wire, "GET /next")
        assert wire.answer().body == b"ok"


@programmed
@pytest.mark.parametrize("path", INCOMPLETE)
def test_real_upstream_incomplete_response_aborts_client(
    proxied: Proxied, path: str
) -> None:
    with proxied.connect(f"GET {path}") as wire:
        received = wire.rest()
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"half" in received
        assert not received.endswith(b"0\r\n\r\n")
    proxied.logged("closed_early while receiving the response")
    assert proxied.get("/next").body == b"ok"


def test_real_upstream_failed_post_is_not_retried(proxied: Proxied) -> None:
    with proxied.connect("POST /raw/early", "Content-Length: 3", body=b"abc") as wire:
        assert wire.answer().status == 502
    assert proxied.get("/next").body == b"ok"


# Streaming


def test_real_upstream_gigabyte_download_memory_bounded(proxied: Proxied) -> None:
    with proxied.connect(f"GET /big?size={GIGABYTE}") as wire:
        received = len(wire.socket.recv(1 << 18))
        before = proxied.program.peak()
        buffer = bytearray(1 << 20)
        while received < GIGABYTE:
            size = wire.socket.recv_into(buffer)
            assert size
            received += size
    assert proxied.program.peak() - before < MAX_GROWTH


@programmed
@pytest.mark.parametrize("chunked", [False, True])
def test_real_upstream_gigabyte_upload_memory_bounded(
    proxied: Proxied, chunked: bool
) -> None:
    length = f"Content-Length: {GIGABYTE}"
    framing = "Transfer-Encoding: chunked" if chunked else length
    chunk = b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK) if chunked else CHUNK
    with proxied.connect("POST /count", framing) as wire:
        wire.socket.sendall(chunk)
        before = proxied.program.peak()
        for _ in range(GIGABYTE // len(CHUNK) - 1):
            wire.socket.sendall(chunk)
        if chunked:
            wire.socket.sendall(b"0\r\n\r\n")
        wire.socket.settimeout(30)
        response = wire.answer()
    assert response.status == 200
    assert response.body == b"%d" % GIGABYTE
    assert proxied.program.peak() - before < MAX_GROWTH


@programmed
def test_real_upstream_events_are_streamed(proxied: Proxied) -> None:
    with proxied.connect("GET /events", "Accept: text/event-stream") as wire:
        _read_until(wire, b"data: one\n\n")
        # The response can't be complete before this request:
        assert proxied.get("/go").body == b"went"
        _read_until(wire, b"data: two\n\n")


@programmed
def test_real_upstream_sees_client_disconnect(proxied: Proxied) -> None:
    before = proxied.app.log().count("ENDED /events")
    with proxied.connect("GET /events") as wire:
        _read_until(wire, b"data: one\n\n")
    wait_for(
        lambda: proxied.app.log().count("ENDED /events") > before,
        "the upstream to see the disconnect",
    )


@programmed
def test_real_upstream_trailers_in_both_directions(proxied: Proxied) -> None:
    fields = ("Transfer-Encoding: chunked", "TE: trailers", "Trailer: Asked")
    body = b"1\r\nx\r\n0\r\nAsked: 42\r\n\r\n"
    with proxied.connect("POST /trailers", *fields, body=body) as wire:
        response = wire.answer()
    assert (response.body, response.trailers) == (b"body", {"x-sum": "42"})


@programmed
def test_real_upstream_early_hints_relayed(proxied: Proxied) -> None:
    with proxied.connect("GET /hints") as wire:
        hints, response = wire.answer(), wire.answer()
    assert (hints.status, response.status) == (103, 200)
    assert "style.css" in hints.headers["link"]
    assert response.body == b"hinted"


def test_real_upstream_continue_sent_before_body(proxied: Proxied) -> None:
    fields = ("Content-Length: 3", "Expect: 100-continue")
    with proxied.connect("POST /count", *fields) as wire:
        assert wire.answer().status == 100
        wire.send(b"abc")
        assert wire.answer().body == b"3"


def test_real_upstream_response_during_request_body(proxied: Proxied) -> None:
    with proxied.connect("POST /early", f"Content-Length: {GIGABYTE}") as wire:
        stop = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    wire.socket.sendall(CHUNK)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert wire.answer().status == 413
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)
            sender.join()
    assert proxied.get("/next").body == b"ok"


def test_real_upstream_head_keeps_connection(proxied: Proxied) -> None:
    with proxied.connect("HEAD /big?size=1048576") as wire:
        head = wire.answer(head_only=True)
        assert head.status == 200
        assert int(head.headers["content-length"]) >= 1 << 20
        proxied.send(wire, "GET /next")
        assert wire.answer().body == b"ok"


@programmed
def test_real_upstream_close_delimited_body(proxied: Proxied) -> None:
    with proxied.connect("GET /raw/open") as wire:
        response = wire.answer()
        assert response.body == b"until the end"
        assert response.headers["transfer-encoding"] == "chunked"
        proxied.send(wire, "GET /next")
        assert wire.answer().body == b"ok"


def test_real_upstream_connections_reused(proxied: Proxied) -> None:
    for _ in range(5):
        assert proxied.get("/next").body == b"ok"
    assert _count_connections(proxied.app.port) <= 4


def _read_until(wire: Wire, text: bytes) -> None:
    """Read until *text* has been received."""
    while text not in wire.buffer:
        data = wire.socket.recv(1 << 16)
        assert data, wire.buffer
        wire.buffer += data


def _count_connections(port: int) -> int:
    """Return the number of open connections to *port* on this machine."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01"
        for line in lines
    )
