"""Streaming and faults with nginx, Node and Go as upstreams, through the whole program.

Each server does what it does in its own way: what a scripted upstream of ours is taught
may be what we believe, these are what there is.
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
GROWTH = 20 << 20  # bytes that the worker may grow by
PIECE = bytes(1 << 18)
TIMEOUT = 1  # seconds for the head of an answer
FAULTS = {
    "/raw/garbage": (502, "malformed_answer"),
    "/raw/head": (502, "head_too_large"),
    "/raw/early": (502, "closed_early"),
    "/never": (504, "timeout"),
}
BROKEN_OFF = ("/raw/half", "/raw/chunk")
# nginx does as it is told by its configuration, which can't say any of the others.
FAULTY = [("nginx", "/raw/early")] + [
    (name, path) for name in ("node", "go") for path in FAULTS
]
programmed = pytest.mark.parametrize(
    "proxied", ["node", "go"], indirect=True, scope="module"
)


class Proxied:
    """The program in front of one of the servers."""

    def __init__(self, program: Program, app: AppServer) -> None:
        self.program = program
        self.app = app
        self.port = program.port
        self.cookie = session_cookie()

    @contextlib.contextmanager
    def asked(self, line: str, *fields: str, body: bytes = b"") -> Iterator[Wire]:
        """A connection on which a request has been sent."""
        with Wire(self.port) as wire:
            self.ask(wire, line, *fields, body=body)
            yield wire

    def ask(self, wire: Wire, line: str, *fields: str, body: bytes = b"") -> None:
        head = [f"{line} HTTP/1.1", "Host: a", f"Cookie: {self.cookie}", *fields]
        wire.send("\r\n".join([*head, "", ""]).encode() + body)

    def get(self, path: str) -> Answer:
        with self.asked(f"GET {path}") as wire:
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
            big.truncate(GIGABYTE)  # for nginx; takes no room
        upstreams = [f"http://127.0.0.1:{app.port}/"]
        with Program(
            folder, upstreams=upstreams, upstream_timeout=f"{TIMEOUT}s"
        ) as program:
            yield Proxied(program, app)


@pytest.fixture(autouse=True)
def marked(proxied: Proxied) -> None:
    proxied.program.mark()


# Faults


@pytest.mark.parametrize(
    ("proxied", "path"), FAULTY, indirect=["proxied"], scope="module"
)
def test_a_fault_is_a_page_a_line_and_no_more(proxied: Proxied, path: str) -> None:
    status, reason = FAULTS[path]
    with proxied.asked(f"GET {path}", "Accept: text/html") as wire:
        answer = wire.answer()
        assert answer.status == status
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"].startswith("no-")
        assert b"aaaaaaaa" not in answer.body
        assert b"what is this" not in answer.body
        proxied.logged(f"[upstream_failed] upstream /: {reason} (request ")
        # The same client goes on, and so does the upstream.
        proxied.ask(wire, "GET /next")
        assert wire.answer().body == b"ok"


@programmed
@pytest.mark.parametrize("path", BROKEN_OFF)
def test_an_answer_that_breaks_off_is_seen_to(proxied: Proxied, path: str) -> None:
    with proxied.asked(f"GET {path}") as wire:
        received = wire.rest()
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"half" in received
        assert not received.endswith(b"0\r\n\r\n")
    proxied.logged("closed_early while receiving the response")
    assert proxied.get("/next").body == b"ok"


def test_a_post_that_meets_a_fault_is_not_repeated(proxied: Proxied) -> None:
    with proxied.asked("POST /raw/early", "Content-Length: 3", body=b"abc") as wire:
        assert wire.answer().status == 502
    assert proxied.get("/next").body == b"ok"


# Streaming


def test_a_gigabyte_down(proxied: Proxied) -> None:
    with proxied.asked(f"GET /big?size={GIGABYTE}") as wire:
        received = len(wire.socket.recv(1 << 18))
        before = proxied.program.peak()
        room = bytearray(1 << 20)
        while received < GIGABYTE:
            size = wire.socket.recv_into(room)
            assert size
            received += size
    assert proxied.program.peak() - before < GROWTH


@programmed
@pytest.mark.parametrize("chunked", [False, True])
def test_a_gigabyte_up(proxied: Proxied, chunked: bool) -> None:
    length = f"Content-Length: {GIGABYTE}"
    framing = "Transfer-Encoding: chunked" if chunked else length
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    with proxied.asked("POST /count", framing) as wire:
        wire.socket.sendall(piece)
        before = proxied.program.peak()
        for _ in range(GIGABYTE // len(PIECE) - 1):
            wire.socket.sendall(piece)
        if chunked:
            wire.socket.sendall(b"0\r\n\r\n")
        wire.socket.settimeout(30)
        answer = wire.answer()
    assert answer.status == 200
    assert answer.body == b"%d" % GIGABYTE
    assert proxied.program.peak() - before < GROWTH


@programmed
def test_events_arrive_as_they_are_sent(proxied: Proxied) -> None:
    with proxied.asked("GET /events", "Accept: text/event-stream") as wire:
        _until(wire, b"data: one\n\n")
        # The answer is not complete, and will not be before this:
        assert proxied.get("/go").body == b"went"
        _until(wire, b"data: two\n\n")


@programmed
def test_an_upstream_is_told_that_the_client_has_left(proxied: Proxied) -> None:
    before = proxied.app.log().count("ENDED /events")
    with proxied.asked("GET /events") as wire:
        _until(wire, b"data: one\n\n")
    wait_for(
        lambda: proxied.app.log().count("ENDED /events") > before, "the upstream's end"
    )


@programmed
def test_trailers_both_ways(proxied: Proxied) -> None:
    fields = ("Transfer-Encoding: chunked", "TE: trailers", "Trailer: Asked")
    body = b"1\r\nx\r\n0\r\nAsked: 42\r\n\r\n"
    with proxied.asked("POST /trailers", *fields, body=body) as wire:
        answer = wire.answer()
    assert (answer.body, answer.trailers) == (b"body", {"x-sum": "42"})


@programmed
def test_early_hints(proxied: Proxied) -> None:
    with proxied.asked("GET /hints") as wire:
        hints, answer = wire.answer(), wire.answer()
    assert (hints.status, answer.status) == (103, 200)
    assert "style.css" in hints.headers["link"]
    assert answer.body == b"hinted"


def test_continue_is_said_before_the_body_is_sent(proxied: Proxied) -> None:
    fields = ("Content-Length: 3", "Expect: 100-continue")
    with proxied.asked("POST /count", *fields) as wire:
        assert wire.answer().status == 100
        wire.send(b"abc")
        assert wire.answer().body == b"3"


def test_an_answer_may_come_while_the_body_is_sent(proxied: Proxied) -> None:
    with proxied.asked("POST /early", f"Content-Length: {GIGABYTE}") as wire:
        stop = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    wire.socket.sendall(PIECE)

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


def test_head_and_what_follows(proxied: Proxied) -> None:
    with proxied.asked("HEAD /big?size=1048576") as wire:
        head = wire.answer(head_only=True)
        assert head.status == 200
        assert int(head.headers["content-length"]) >= 1 << 20
        proxied.ask(wire, "GET /next")
        assert wire.answer().body == b"ok"


@programmed
def test_a_body_that_only_the_end_ends(proxied: Proxied) -> None:
    with proxied.asked("GET /raw/open") as wire:
        answer = wire.answer()
        assert answer.body == b"until the end"
        assert answer.headers["transfer-encoding"] == "chunked"
        proxied.ask(wire, "GET /next")
        assert wire.answer().body == b"ok"


def test_connections_to_the_upstream_are_kept(proxied: Proxied) -> None:
    for _ in range(5):
        assert proxied.get("/next").body == b"ok"
    assert _connections(proxied.app.port) <= 4


def _until(wire: Wire, text: bytes) -> None:
    """Read until *text* has come."""
    while text not in wire.buffer:
        data = wire.socket.recv(1 << 16)
        assert data, wire.buffer
        wire.buffer += data


def _connections(port: int) -> int:
    """How many connections to *port* are open, from this machine."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01"
        for line in lines
    )
