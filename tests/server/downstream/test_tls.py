"""HTTPS end to end: keep-alive, pipelining, bodies, rejected handshakes."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.certificates import Certificate, make_certificate
from support.echo import EchoApp
from support.ports import LOOPBACK
from support.program import Program, session_cookie
from support.server import Wire, talk

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
# With TLS 1.3 the client may see a failed handshake only as a reset.
REFUSED = (ssl.SSLError, ConnectionError)
LARGE = 300_000  # bytes: many TLS records, more than any buffer


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, LOOPBACK)


@pytest.fixture
def program(tmp_path: Path, certificate: Certificate) -> Iterator[Program]:
    """authproxy with TLS in front of an echo application."""
    with (
        EchoApp() as app,
        Program(
            tmp_path,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
            upstreams=[f"http://{LOOPBACK}:{app.port}/"],
        ) as started,
    ):
        yield started.started()


def client_context(certificate: Certificate) -> ssl.SSLContext:
    """Return a TLS context that trusts the certificate and offers HTTP/1.1."""
    context = ssl.create_default_context(cafile=certificate.cert_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def start_tls(wire: Wire, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Do the TLS handshake on the connection of *wire*."""
    secure = context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
    wire.socket = secure
    return secure


def ping(program: Program, certificate: Certificate) -> int:
    """Return the status of a health check over a new connection."""
    with Wire(program.port) as wire:
        start_tls(wire, client_context(certificate))
        wire.send(PING)
        return wire.answer().status


def test_https_connection_serves_all_kinds_of_requests(
    program: Program, certificate: Certificate
) -> None:
    cookie = session_cookie().encode()
    with Wire(program.port) as wire:
        secure = start_tls(wire, client_context(certificate))
        assert secure.version() == "TLSv1.3"
        for _ in range(3):
            wire.send(PING)
            assert wire.answer().body == b"OK"
        check = b"GET /oauth2/auth HTTP/1.1\r\nHost: a\r\nCookie: %b\r\n\r\n" % cookie
        wire.send(PING + check + PING.replace(b"/ping", b"/oauth2/auth") + PING)
        assert [wire.answer().status for _ in range(4)] == [200, 202, 401, 200]

        body = b"x" * LARGE
        head = (
            b"POST /up?q=1 HTTP/1.1\r\nHost: a\r\nCookie: %b\r\nContent-Length: %d\r\n"
        )
        wire.send(head % (cookie, len(body)) + b"\r\n" + body[:1000])
        wire.send(body[1000:] + PING)
        received = json.loads(wire.answer().body)
        assert (received["method"], received["target"]) == ("POST", "/up?q=1")
        assert received["body"] == body.decode()
        assert ["x-forwarded-proto", "https"] in received["headers"]
        assert wire.answer().body == b"OK"

        wire.send(b"POST /oauth2/start HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
                  b"Content-Type: application/x-www-form-urlencoded\r\n\r\nrd=/x")  # fmt: skip
        assert wire.answer().status == 302
        wire.send(PING.replace(b"GET", b"HEAD"))
        assert wire.answer(head_only=True).status == 200
        wire.send(PING.replace(b"a\r\n", b"a\r\nConnection: close\r\n"))
        assert wire.answer().headers["connection"] == "close"
        assert wire.ended


def test_https_malformed_request_gets_400_and_close(
    program: Program, certificate: Certificate
) -> None:
    with Wire(program.port) as wire:
        start_tls(wire, client_context(certificate))
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert wire.answer().status == 400
        assert wire.ended


def test_https_failed_handshakes_do_not_affect_others(
    program: Program, certificate: Certificate
) -> None:
    """Untrusted CA, plain HTTP, malformed TLS record, immediate close."""
    with Wire(program.port) as wire, pytest.raises(ssl.SSLError):
        start_tls(wire, ssl.create_default_context())
    assert b"HTTP/1.1 200" not in talk(program.port, PING)
    assert b"HTTP/1.1" not in talk(program.port, b"\x16\x03\x01\xff\xff" + b"A" * 600)
    talk(program.port, b"")
    assert ping(program, certificate) == 200


@pytest.mark.parametrize("newest", ["TLSv1", "TLSv1_1"])
def test_https_tls_below_1_2_rejected(
    program: Program, certificate: Certificate, newest: str
) -> None:
    """RFC 8996: TLS 1.0 and 1.1 must not be negotiated."""
    context = client_context(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion[newest]
    with Wire(program.port) as wire, pytest.raises(REFUSED):
        start_tls(wire, context)
    assert ping(program, certificate) == 200


def test_https_tls_1_2_negotiates_configured_suites_only(
    tmp_path: Path, certificate: Certificate
) -> None:
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    with Program(
        tmp_path,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        tls_min_version="TLS1.2",
        tls_cipher_suites=[suite],
    ) as program:
        context = client_context(certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire(program.port) as wire:
            chosen = start_tls(wire, context).cipher()
            assert chosen is not None
            assert chosen[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with Wire(program.port) as wire, pytest.raises(REFUSED):
            start_tls(wire, context)


def test_https_minimum_version_1_3_rejects_1_2(
    tmp_path: Path, certificate: Certificate
) -> None:
    with Program(
        tmp_path,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        tls_min_version="TLS1.3",
    ) as program:
        context = client_context(certificate)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with Wire(program.port) as wire, pytest.raises(REFUSED):
            start_tls(wire, context)
        assert ping(program, certificate) == 200
