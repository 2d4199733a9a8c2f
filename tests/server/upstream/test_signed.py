"""Request signatures, verified with the request that the application receives."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.certificates import make_certificate
from support.echo import EchoApp
from support.h2_client import H2Client
from support.ports import LOOPBACK
from support.program import Program, session_cookie
from support.server import Wire

FIELDS = (
    "content-length", "content-md5", "content-type", "date", "authorization",
    "x-forwarded-user", "x-forwarded-email", "x-forwarded-preferred-user",
    "x-forwarded-access-token", "cookie", "gap-auth",
)  # fmt: skip


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of authproxy that signs requests to an echo application."""
    with (
        EchoApp() as app,
        Program(
            tmp_path_factory.mktemp("signed"),
            upstreams=[f"http://127.0.0.1:{app.port}/"],
            signature_key="sha256:a key",
        ) as program,
    ):
        yield program.port


def is_signed(received: dict[str, Any]) -> bool:
    """Return whether the signature of the *received* request is valid."""
    values: dict[str, list[str]] = {}
    for name, value in received["headers"]:
        values.setdefault(name, []).append(value)
    path, mark, query = received["target"].partition("?")
    lines = [received["method"], *(",".join(values.get(name, [])) for name in FIELDS)]
    lines.append(urllib.parse.unquote(path) + mark + query)
    message = "".join(f"{line}\n" for line in lines) + received["body"]
    digest = hmac.new(b"a key", message.encode(), hashlib.sha256).digest()
    expected = f"sha256 {base64.b64encode(digest).decode()}"
    return values["gap-signature"] == [expected]


@pytest.mark.parametrize(
    "rest",
    [
        b"GET /a%20b?x=%20 HTTP/1.1\r\n\r\n",
        b"POST /form HTTP/1.1\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\na=1",
        b"PUT /chunks HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        b"4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n",
        b"POST /empty HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_signature_covers_forwarded_request(port: int, rest: bytes) -> None:
    """FA22: the application can verify that authproxy forwarded the request."""
    line, _, tail = rest.partition(b"\r\n")
    cookie = f"; other=1; {session_cookie()}".removeprefix("; ").encode()
    fields = b"host: localhost\r\ncookie: " + cookie + b"\r\ngap-signature: forged\r\n"
    with Wire(port) as wire:
        for _ in range(2):  # the bytes after a body are the next request
            wire.send(line + b"\r\n" + fields + tail)
            response = wire.answer()
            assert response.status == 200
            received = json.loads(response.body)
            assert is_signed(received)
            assert ["gap-auth", "alice@example.com"] in received["headers"]
            assert received["body"] == {b"POST /form": "a=1", b"PUT /chunks": "abcdefg"
                                        }.get(line.partition(b" HTTP")[0], "")  # fmt: skip


def test_signature_body_too_large_gets_413(port: int) -> None:
    size = (1 << 20) + 1
    head = (
        "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: "
        f"{size}\r\ncookie: {session_cookie()}\r\n\r\n"
    )
    with Wire(port) as wire:
        wire.send(head.encode())
        assert wire.answer().status == 413


def test_signature_of_http2_request_body(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, LOOPBACK)
    with (
        EchoApp() as app,
        Program(
            tmp_path,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
            upstreams=[f"http://{LOOPBACK}:{app.port}/"],
            signature_key="sha256:a key",
        ) as program,
        H2Client(program.port, certificate) as client,
    ):
        crumbs = [("cookie", one) for one in session_cookie().split("; ")]
        number = client.send("/up", *crumbs, method="POST", ends=False)
        client.send_body(number, b"x" * 100_000)
        received = json.loads(client.answer(number).body)
        assert is_signed(received)
        assert received["body"] == "x" * 100_000
        assert is_signed(json.loads(client.ask("/", *crumbs).body))
