"""Upstreams whose responses are not quite HTTP: what both programs make of them."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator

import pytest

from support.peers import (
    AUTHPROXY,
    OAUTH2_PROXY,
    AuthServer,
    command,
    start_auth_server,
)
from support.ports import LOOPBACK

pytestmark = pytest.mark.peers

CONFIG = """
provider = "oidc"
skip_oidc_discovery = true
login_url = "http://127.0.0.1:1/authorize"
redeem_url = "http://127.0.0.1:1/token"
oidc_jwks_url = "http://127.0.0.1:1/keys"
email_domains = ["*"]
cookie_secure = false
skip_auth_routes = ["^/"]
upstreams = ["http://{upstream}/"]
"""
OK = b"HTTP/1.1 200 OK\r\n"
FIVE = b"Content-Length: 5\r\n"
END = b"\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
# Both programs relay these, with the same status, fields and body.
RELAYED = {
    "ordinary": OK + FIVE + END,
    "bare-lf": b"HTTP/1.1 200 OK\nX-A: b\nContent-Length: 5\n\nhello",
    "mixed-lf": b"HTTP/1.1 200 OK\nX-A: b\r\nContent-Length: 5\n\r\nhello",
    "last-lf": OK + b"X-A: b\r\n" + FIVE + b"\nhello",
    "lf-in-103": b"HTTP/1.1 103 Early Hints\nLink: </a>\n\n" + OK + FIVE + END,
    "equal-lengths": OK + FIVE + FIVE + END,
    "folded": OK + b"X-A: one\r\n two\r\n\tthree\r\n" + FIVE + END,
    "folded-empty": OK + b"X-A: one\r\n \r\n" + FIVE + END,
    "no-reason": b"HTTP/1.1 200\r\n" + FIVE + END,
    "odd-reason": b"HTTP/1.1 200 \xfcber\x01\r\n" + FIVE + END,
    "two-spaces": b"HTTP/1.1  200 OK\r\n" + FIVE + END,
    "http-1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "http-1.2": b"HTTP/1.2 200 OK\r\n" + FIVE + END,
    "status-600": b"HTTP/1.1 600 Odd\r\n" + FIVE + END,
    "status-999": b"HTTP/1.1 999 Odd\r\n" + FIVE + END,
    "latin-1": OK + b"X-A: \xfc\xff\r\n" + FIVE + END,
    "empty-value": OK + b"X-A:\r\n" + FIVE + END,
    "content-after-204": b"HTTP/1.1 204 No Content\r\n" + FIVE + END,
    "chunk-extension": CHUNKED + b"5;a=b\r\nhello\r\n000\r\n\r\n",
    "chunk-padded": CHUNKED + b"5   \r\nhello\r\n0  \r\n\r\n",
    "upper-case-coding": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNKS,
    "more-than-length": OK + FIVE + END + b" surplus",
}
# Both programs fail: 502, or an incomplete response.
FAILED = {
    "different-lengths": OK + FIVE + b"Content-Length: 6\r\n" + END,
    "length-in-another-form": OK + FIVE + b"Content-Length: 05\r\n" + END,
    "length-list": OK + b"Content-Length: 5, 5\r\n" + END,
    "length-signed": OK + b"Content-Length: +5\r\n" + END,
    "length-empty": OK + b"Content-Length: \r\n" + END,
    "length-folded-twice": OK + b"Content-Length: 5\r\n 6\r\n" + END,
    "length-huge": OK + b"Content-Length: 99999999999999999999\r\n" + END,
    "length-too-long": OK + b"Content-Length: 6\r\n" + END,
    "coding-twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + CHUNKS,
    "coding-gzip": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "coding-identity": OK + b"Transfer-Encoding: identity\r\n" + END,
    "http-0.9": b"hello",
    "http-lower-case": b"http/1.1 200 OK\r\n" + FIVE + END,
    "other-protocol": b"ICY 200 OK\r\n" + FIVE + END,
    "status-000": b"HTTP/1.1 000 Odd\r\n" + FIVE + END,
    "status-099": b"HTTP/1.1 099 Odd\r\n" + FIVE + END,
    "status-99": b"HTTP/1.1 99 Odd\r\n" + FIVE + END,
    "status-1000": b"HTTP/1.1 1000 Odd\r\n" + FIVE + END,
    "status-signed": b"HTTP/1.1 +20 Odd\r\n" + FIVE + END,
    "tab-in-start-line": b"HTTP/1.1\t200 OK\r\n" + FIVE + END,
    "leading-space": b" HTTP/1.1 200 OK\r\n" + FIVE + END,
    "leading-line": b"\r\nHTTP/1.1 200 OK\r\n" + FIVE + END,
    "folded-start-line": OK + b" X-A: b\r\n" + FIVE + END,
    "no-colon": OK + b"X-A\r\n" + FIVE + END,
    "empty-name": OK + b": b\r\n" + FIVE + END,
    "name-beyond-ascii": OK + b"X-\xc3\xbc: b\r\n" + FIVE + END,
    "name-with-nul": OK + b"X\0A: b\r\n" + FIVE + END,
    "value-with-nul": OK + b"X-A: b\0c\r\n" + FIVE + END,
    "value-with-cr": OK + b"X-A: b\rc\r\n" + FIVE + END,
    "switching-unasked": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "lf-after-chunk-size": CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "lf-after-chunk": CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "chunk-size-signed": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk-size-long": CHUNKED + b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n",
    "no-last-chunk": CHUNKED + b"5\r\nhello\r\n",
    "head-incomplete": OK + b"Content-Length: 5",
}
# oauth2-proxy relays these; their readers may disagree, so authproxy does not.
REJECTED = {
    "length-and-coding": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNKS,
    "coding-in-1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "space-after-length": OK + b"Content-Length : 5\r\n" + END,
    "space-after-coding": OK + b"Transfer-Encoding : chunked\r\n" + FIVE + END,
    "folded-length": OK + b"Content-Length:\r\n 5\r\n" + END,
    "folded-coding": OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "space-in-name": OK + b"X A: b\r\n" + FIVE + END,
    "http-2.0": b"HTTP/2.0 200 OK\r\n" + FIVE + END,
    "reason-with-cr": b"HTTP/1.1 200 a\rb\r\n" + FIVE + END,
}  # fmt: skip
RESPONSES = {**RELAYED, **FAILED, **REJECTED}
# Go guesses Content-Type; the others belong to the connection.
IGNORED = ("content-type", "date", "connection", "transfer-encoding")
Observation = tuple[int, list[tuple[str, str]], bytes]


class Upstream:
    """Sends the response that the path names, and closes."""

    def __init__(self) -> None:
        self._socket = socket.create_server((LOOPBACK, 0))
        self.address = f"{LOOPBACK}:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    @staticmethod
    def _serve(wire: socket.socket) -> None:
        with wire, contextlib.suppress(OSError):
            wire.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head and (data := wire.recv(65536)):
                head += data
            found = re.match(rb"GET /(\S+) ", head)
            wire.sendall(RESPONSES.get(found[1].decode() if found else "", OK + END))
            wire.shutdown(socket.SHUT_WR)
            while wire.recv(65536):
                pass


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[AuthServer]]:
    """Both programs in front of one `Upstream`."""
    if command(OAUTH2_PROXY) is None:
        pytest.skip("oauth2-proxy is not installed")
    folder, upstream = tmp_path_factory.mktemp("heads"), Upstream()
    with contextlib.ExitStack() as stack:
        stack.callback(upstream.close)
        started = []
        for name in (OAUTH2_PROXY, AUTHPROXY):
            server = start_auth_server(
                name,
                folder / name,
                "http://127.0.0.1:1",
                config=CONFIG.format(upstream=upstream.address),
                path="/ping",
            )
            stack.callback(server.stop)
            started.append(server)
        yield started


def ask(server: AuthServer, name: str) -> Observation | None:
    """Return the response, None if it is 502 or incomplete."""
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", f"/{name}")
        try:
            response = connection.getresponse()
            body = response.read()
        except (http.client.HTTPException, ConnectionError):
            return None
    if response.status == 502:
        return None
    fields = [(key.lower(), value) for key, value in response.getheaders()]
    kept = sorted(field for field in fields if field[0] not in IGNORED)
    return response.status, kept, body


@pytest.mark.parametrize("name", RELAYED)
def test_odd_upstream_response_relayed_as_by_oauth2_proxy(
    servers: list[AuthServer], name: str
) -> None:
    theirs, ours = (ask(server, name) for server in servers)
    assert theirs == ours
    assert ours is not None


@pytest.mark.parametrize("name", FAILED)
def test_malformed_upstream_response_fails_as_in_oauth2_proxy(
    servers: list[AuthServer], name: str
) -> None:
    assert [ask(server, name) for server in servers] == [None, None]


@pytest.mark.parametrize("name", REJECTED)
def test_ambiguous_upstream_response_rejected_by_authproxy_only(
    servers: list[AuthServer], name: str
) -> None:
    theirs, ours = (ask(server, name) for server in servers)
    assert theirs is not None
    assert ours is None
