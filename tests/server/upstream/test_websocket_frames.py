"""WebSocket conversations like those of Autobahn's fuzzing client.

Each conversation runs with an echo server directly, and with the same server behind
authproxy. The received bytes must be equal: every message, every Close frame with its
code and reason, and the end of the connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import websockets as ws
from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.program import Program, session_cookie
from support.websockets import BINARY, CONTINUATION, PING, PONG, TEXT, frame

SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20)
LEGAL = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
ILLEGAL = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
# RFC 3629: surrogates, overlong forms, above U+10FFFF, truncated, lone bytes.
INVALID_UTF8 = (
    b"\xed\xa0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf4\x90\x80\x80", b"\xf8\x88",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", b"\x80", b"\xff",
    b"\xe2\x82",
)  # fmt: skip
VALID_UTF8 = ("κόσμε", "\x00", "\u07ff\uffff", "\U0010ffff", "Hello-µ@ßöäüàá-UTF-8!!")
HALF = "κόσ".encode()


def conversations() -> dict[str, bytes]:
    """Return the bytes that a client sends after the handshake, by name."""
    cases: dict[str, bytes] = {}
    for size in SIZES:
        cases[f"text of {size}"] = frame(TEXT, b"*" * size)
        cases[f"binary of {size}"] = frame(BINARY, b"\xfe" * size)
    cases |= {f"ping of {n}": frame(PING, b"p" * n) for n in (0, 1, 8, 125, 126, 200)}
    cases["unsolicited pong"] = frame(PONG, b"x") + frame(PING, b"y")
    cases["ten pings"] = b"".join(frame(PING, b"%d" % n) for n in range(10))
    cases |= _fragmented() | _wrong_frames() | _texts() | _closes()
    return cases


def _fragmented() -> dict[str, bytes]:
    pings = frame(PING, b"now")
    parts = [b"frag", b"ment", b"", b"ed"]
    many = [b"%06d" % number for number in range(500)]
    return {
        "fragments": ws.fragments(TEXT, parts),
        "fragments with pings between": ws.fragments(TEXT, parts, pings),
        "fragments with pongs between": ws.fragments(BINARY, parts, frame(PONG)),
        "five hundred fragments": ws.fragments(BINARY, many),
        "empty fragments": ws.fragments(TEXT, [b"", b"", b""]),
        "a megabyte in fragments": ws.fragments(BINARY, [b"m" * 65_536] * 16, pings),
        "message inside of another": frame(TEXT, b"a", final=False) + frame(TEXT, b"b"),
        "continuation without a start": frame(CONTINUATION, b"a"),
        "a fragmented ping": frame(PING, b"a", final=False),
        "a Close between fragments": frame(TEXT, b"a", final=False) + ws.close(1000),
        "text cut inside of a letter": ws.fragments(TEXT, [HALF[:3], HALF[3:]]),
        "text byte by byte": ws.fragments(TEXT, [bytes([one]) for one in HALF]),
    }


def _wrong_frames() -> dict[str, bytes]:
    cases = {f"reserved bits {n}": frame(TEXT, b"x", reserved=n) for n in range(1, 8)}
    cases |= {
        f"opcode {n}": frame(TEXT, b"first") + frame(n, b"x")
        for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    }
    cases["reserved bits on a ping"] = frame(PING, b"x", reserved=2)
    cases["no mask"] = frame(TEXT, b"x", masked=False)
    cases["size above 2**63"] = frame(BINARY, b"x", size=(1 << 63) + 1)
    cases["half a frame"] = frame(BINARY, b"x", size=10)
    cases["half a head"] = frame(BINARY, b"x" * 200)[:3]
    cases["not a frame"] = b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"
    return cases


def _texts() -> dict[str, bytes]:
    cases = {f"invalid UTF-8: {data!r}": frame(TEXT, data) for data in INVALID_UTF8}
    cases |= {f"UTF-8: {text!r}": frame(TEXT, text.encode()) for text in VALID_UTF8}
    cases["invalid UTF-8 in a later fragment"] = ws.fragments(
        TEXT, [HALF, b"\xff", b"c"]
    )
    return cases


def _closes() -> dict[str, bytes]:
    cases = {f"Close {code}": ws.close(code, b"why") for code in LEGAL + ILLEGAL}
    cases |= {
        f"Close {code} by the server": frame(TEXT, b"close %d enough" % code)
        + ws.close(code)
        for code in LEGAL
    }
    cases["Close without a code"] = ws.close()
    cases["Close with half a code"] = frame(ws.CLOSE, b"\x03")
    cases["Close with the longest reason"] = ws.close(1000, b"r" * 123)
    cases["Close with a reason above the limit"] = ws.close(1000, b"r" * 124)
    cases["Close with invalid UTF-8"] = ws.close(1000, b"\xed\xa0\x80")
    cases["messages after the Close"] = ws.close(1000) + frame(TEXT, b"late")
    return cases


CASES = conversations()
UNFINISHED = ("half a frame", "half a head", "size above 2**63")


class Endpoints:
    """The ports of one echo server: direct, behind authproxy, and with TLS."""

    def __init__(self, direct: int, proxied: int, secure: int, trust: str) -> None:
        self.direct = direct
        self.proxied = proxied
        self.secure = secure
        self._cookie = session_cookie()
        self._context = ssl.create_default_context(cafile=trust)

    def open(self, port: int) -> tuple[socket.socket, bytes]:
        """Return a connection after the handshake, and the bytes received after it."""
        sock = socket.create_connection((LOOPBACK, port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if port == self.secure:
            sock = self._context.wrap_socket(sock, server_hostname=LOOPBACK)
        sock.sendall(ws.opening("/chat", f"{LOOPBACK}:{port}", self._cookie))
        received = b""
        while b"\r\n\r\n" not in received:
            data = sock.recv(4096)
            assert data, received
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        # Sec-WebSocket-Accept for the key of RFC 6455 §1.3.
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        return sock, rest

    def talk(
        self, port: int, data: bytes, *, chop: int = 0, closes: bool = True
    ) -> bytes:
        """Send *data*; return all bytes received until the server closes.

        With *chop*, send so many bytes at a time. With *closes*, end with a Close
        frame, else half-close the connection without one.
        """
        sock, received = self.open(port)
        with sock:
            sending = threading.Thread(
                target=self._send, args=(sock, data, chop, closes)
            )
            sending.start()
            if port == self.secure:
                sending.join()  # OpenSSL can't read and write concurrently
            while more := sock.recv(1 << 16):
                received += more
            sending.join()
        return received

    @staticmethod
    def _send(sock: socket.socket, data: bytes, chop: int, closes: bool) -> None:
        # With TLS, the server can't read after its close.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for piece in pieces(data + (ws.close(1000) if closes else b""), chop):
                sock.sendall(piece)
            if not closes:
                sock.shutdown(socket.SHUT_WR)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Yield *data* in pieces of *size* bytes; 0 for all in one."""
    for start in range(0, len(data), size or len(data) or 1):
        yield data[start : start + (size or len(data))]


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    trust = make_certificate(tmp_path_factory.mktemp("tls"), LOOPBACK)
    with ws.EchoServer() as echo:
        upstreams = [f"http://{LOOPBACK}:{echo.port}/"]
        plain = tmp_path_factory.mktemp("plain")
        secure = Path(trust.cert_file).parent
        with (
            Program(plain, upstreams=upstreams, cookie_secure=False) as http,
            Program(
                secure,
                upstreams=upstreams,
                cookie_secure=False,
                https_address=f"{LOOPBACK}:0",
                tls_cert_file=trust.cert_file,
                tls_key_file=trust.key_file,
            ) as https,
        ):
            yield Endpoints(echo.port, http.port, https.port, trust.cert_file)


@pytest.mark.parametrize("name", CASES)
def test_websocket_conversation_is_unchanged(endpoints: Endpoints, name: str) -> None:
    closes = name not in UNFINISHED
    expected = endpoints.talk(endpoints.direct, CASES[name], closes=closes)
    assert endpoints.talk(endpoints.proxied, CASES[name], closes=closes) == expected
    if closes:
        assert endpoints.talk(endpoints.secure, CASES[name]) == expected


@pytest.mark.parametrize("chop", [1, 2, 7, 126])
@pytest.mark.parametrize(
    "name",
    [
        "text of 125", "text of 126", "fragments with pings between", "Close 4999",
        "text byte by byte", "invalid UTF-8 in a later fragment", "opcode 3",
        "ping of 125",
    ],
)  # fmt: skip
def test_websocket_conversation_is_independent_of_packets(
    endpoints: Endpoints, name: str, chop: int
) -> None:
    expected = endpoints.talk(endpoints.direct, CASES[name])
    assert endpoints.talk(endpoints.proxied, CASES[name], chop=chop) == expected


@pytest.mark.parametrize("name", ["text of 65536", "half a frame", "fragments"])
def test_websocket_half_close_without_close_frame(
    endpoints: Endpoints, name: str
) -> None:
    expected = endpoints.talk(endpoints.direct, CASES[name], closes=False)
    assert endpoints.talk(endpoints.proxied, CASES[name], closes=False) == expected


@pytest.mark.parametrize("code", LEGAL)
def test_websocket_close_code_relayed(endpoints: Endpoints, code: int) -> None:
    """Show with known frames that the comparisons are not empty."""
    expected = struct.pack("!H", code)
    asked = endpoints.talk(
        endpoints.proxied, frame(TEXT, b"close %d no" % code) + ws.close(code)
    )
    assert asked == b"\x88\x04" + expected + b"no"
    assert (
        endpoints.talk(endpoints.proxied, ws.close(code, b"bye"))
        == b"\x88\x05" + expected + b"bye"
    )


def test_websocket_invalid_frames_reach_server(endpoints: Endpoints) -> None:
    for name, code in {
        "reserved bits 1": 1002, "opcode 3": 1002, "no mask": 1002, "Close 1005": 1002,
        "invalid UTF-8: b'\\xff'": 1007, "ping of 126": 1002, "continuation without a start": 1002,
    }.items():  # fmt: skip
        response = endpoints.talk(endpoints.proxied, CASES[name])
        assert b"\x88" in response, name
        expected = response[response.rindex(b"\x88") + 2 :][:2]
        assert struct.unpack("!H", expected)[0] == code, name


def test_websocket_many_messages_in_one_write(endpoints: Endpoints) -> None:
    data = b"".join(frame(BINARY, b"%d" % n * (n % 300)) for n in range(2000))
    expected = endpoints.talk(endpoints.direct, data)
    assert len(expected) > 800_000
    assert endpoints.talk(endpoints.proxied, data) == expected
