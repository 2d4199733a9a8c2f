"""PROXY protocol: parsing, and clients behind a load balancer."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.net.proxy_protocol import (
    MAX_HEADER_BYTES,
    SIGNATURE,
    V2_HEAD_BYTES,
    HeaderError,
    ProxyHeader,
    parse_header,
)
from support.certificates import make_certificate
from support.configuration import problem, settings
from support.h2_client import H2Client
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.program import Program, session_cookie
from support.programs import find
from support.server import Wire, until

ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
PORT = st.integers(0, 0xFFFF)
PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"


def line(client: str, port: int, family: int) -> bytes:
    """Return a header of version 1."""
    other = "::1" if family == 6 else "127.0.0.1"
    return f"PROXY TCP{family} {client} {other} {port} 443\r\n".encode()


def binary(
    client: str, port: int, extras: bytes = b"", command: int = 0x21, family: int = 0
) -> bytes:
    """Return a header of version 2."""
    address = ipaddress.ip_address(client)
    family = family or (0x11 if address.version == 4 else 0x21)
    block = address.packed * 2 + struct.pack("!HH", port, 443) + extras
    return SIGNATURE + struct.pack("!BBH", command, family, len(block)) + block


@given(ADDRESS, PORT, st.binary(max_size=60))
def test_parse_header_valid_header_gives_the_client(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, rest: bytes
) -> None:
    """Later bytes are ignored, and every proper prefix is incomplete."""
    mapped = getattr(address, "ipv4_mapped", None)
    expected = (str(mapped or address), port)
    for header in (
        line(str(address), port, address.version),
        binary(str(address), port),
        binary(str(address), port, b"\x03\x00\x04abcd"),
    ):
        assert parse_header(header + rest) == ProxyHeader(len(header), expected)
        for size in range(len(header)):
            assert parse_header(header[:size]) is None


@given(st.binary(max_size=300))
def test_parse_header_any_bytes_parse_or_raise_header_error(data: bytes) -> None:
    for start in (b"", SIGNATURE, b"PROXY ", b"PROXY TCP4 "):
        with contextlib.suppress(HeaderError):
            found = parse_header(start + data)
            assert found is None or found.size <= len(start + data)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n",
        binary("192.0.2.1", 1, command=0x20),
        SIGNATURE + b"\x20\x00\x00\x00",
        SIGNATURE + b"\x21\x00\x00\x00",
    ],
)
def test_parse_header_local_or_unknown_has_no_client(header: bytes) -> None:
    assert parse_header(header) == ProxyHeader(len(header), None)


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"\r\nPROXY",
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n" + b"x" * 200,
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.02.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UNKNOWN\x00\r\n",
        b"PROXY UNKNOWN " + b"x" * 100,
        b"PROXY TCP4 192.0.2.1\r\n 192.0.2.2 1 2\r\n",
        binary("192.0.2.1", 1, command=0x11),
        binary("192.0.2.1", 1, command=0x22),
        binary("192.0.2.1", 1, family=0x12),
        binary("192.0.2.1", 1, family=0x31),
        binary("192.0.2.1", 1, family=0x21),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + b"x" * 11,
        SIGNATURE
        + struct.pack("!BBH", 0x21, 0x11, MAX_HEADER_BYTES - V2_HEAD_BYTES + 1),
        SIGNATURE[:-1] + b"x",
    ],
)
def test_parse_header_malformed_header_rejected(header: bytes) -> None:
    with pytest.raises(HeaderError):
        parse_header(header)


def test_proxy_protocol_from_parsed_and_validated() -> None:
    found = settings("--proxy-protocol-from=10.0.0.0/8,192.0.2.1,unix")
    assert found.proxy_protocol_from == ("10.0.0.0/8", "192.0.2.1", "unix")
    assert "proxy_protocol_from" in problem("--proxy-protocol-from=10.0.0.1/8")
    assert "proxy_protocol_from" in problem("--proxy-protocol-from=balancer")


def test_proxy_protocol_client_used_for_logs_and_trust(tmp_path: Path) -> None:
    """A connection without a valid header is refused."""
    with Program(
        tmp_path,
        proxy_protocol_from=["127.0.0.0/8"],
        reverse_proxy=True,
        trusted_proxy_ips=["192.0.2.7"],
    ) as program:
        port = program.port
        header = binary("192.0.2.7", 4711, b"\x04\x00\x01x")
        with Wire(port) as wire:
            for byte in header + PING:
                wire.send(bytes([byte]))
            assert wire.answer().status == 200
            wire.send(PING)
            assert wire.answer().status == 200
        program.wait_until(lambda: program.log().count('"/ping"') == 2)
        assert "192.0.2.7 - " in program.log()
        start = b"GET /oauth2/start HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: app.example\r\n\r\n"
        for client, is_trusted in (("192.0.2.7", True), ("192.0.2.8", False)):
            with Wire(port) as wire:
                wire.send(line(client, 4711, 4) + start)
                location = wire.answer().headers["location"]
                assert ("app.example" in location) is is_trusted
        for opening in (PING, line("x", 1, 4), b""):
            with Wire(port) as wire:
                wire.send(opening)
                if not opening:
                    wire.socket.shutdown(socket.SHUT_WR)
                assert wire.rest() == b""
        program.wait_until(lambda: "connection refused: expected" in program.log())


def test_proxy_protocol_header_before_tls_accepted(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, LOOPBACK)
    with (
        Program(
            tmp_path,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
            proxy_protocol_from=[LOOPBACK],
        ) as program,
        Wire(program.port) as wire,
    ):
        wire.send(line("2001:db8::7", 4711, 6))
        context = ssl.create_default_context(cafile=certificate.cert_file)
        wire.socket = context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
        wire.send(PING)
        assert wire.answer().status == 200
        program.wait_until(lambda: "[2001:db8::7]:4711 - " in program.log())


def test_proxy_protocol_header_before_http2_accepted(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, LOOPBACK)
    with Program(
        tmp_path,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
        proxy_protocol_from=[LOOPBACK],
    ) as program:
        opening = binary("2001:db8::8", 4712)
        with H2Client(program.port, certificate, opening=opening) as client:
            assert client.ask("/ping").status == 200
        program.wait_until(lambda: "[2001:db8::8]:4712 - " in program.log())


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen balancer
    bind {bind}
    server authproxy {server} {how}
"""


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_proxy_protocol_from_haproxy_accepted(tmp_path: Path, how: str) -> None:
    """HAProxy's health checks have no client; they are not refused."""
    haproxy = find("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    port = free_port()
    configuration = tmp_path / "haproxy.cfg"
    with Program(tmp_path, proxy_protocol_from=[LOOPBACK]) as program:
        text = HAPROXY.format(
            bind=f"{LOOPBACK}:{port}",
            server=f"{LOOPBACK}:{program.port}",
            how=f"{how} check inter 200ms",
        )
        configuration.write_text(text)
        with Process(
            "haproxy", [haproxy, "-db", "-f", configuration], folder=tmp_path
        ) as balancer:
            balancer.wait_until(lambda: listens(port))
            with Wire(port) as wire:
                client = wire.socket.getsockname()
                wire.send(PING + PING)
                assert [wire.answer().status, wire.answer().status] == [200, 200]
        expected = f"{client[0]}:{client[1]} - "
        program.wait_until(lambda: program.log().count(expected) == 2)
        assert "connection refused:" not in program.log()


def test_fh29_proxy_protocol_header_from_untrusted_peer_rejected(
    tmp_path: Path,
) -> None:
    """To HTTP, the header is a malformed request line."""
    with Program(tmp_path, proxy_protocol_from=["192.0.2.1"]) as program:
        with Wire(program.port) as wire:
            wire.send(PING)
            assert wire.answer().status == 200
        with Wire(program.port) as wire:
            wire.send(line("192.0.2.7", 1, 4) + PING)
            assert wire.answer().status == 400
            assert wire.ended


def test_proxy_protocol_from_unix_peer_accepted(tmp_path: Path) -> None:
    """A load balancer on the same machine; without a client the log has "@"."""
    path = tmp_path / "socket"
    with Program(
        tmp_path, http_address=f"unix://{path},mode=0600", proxy_protocol_from=["unix"]
    ) as program:
        program.started()
        check = (
            b"GET /oauth2/auth HTTP/1.1\r\nHost: a\r\nCookie: "
            + session_cookie().encode()
            + b"\r\n\r\n"
        )
        for header, start in (
            (line("192.0.2.7", 4711, 4), "192.0.2.7:4711 - "),
            (b"PROXY UNKNOWN\r\n", "@ - "),
        ):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(path))
                client.sendall(header + check)
                assert client.recv(1000).startswith(b"HTTP/1.1 202 ")
            until(lambda: start in program.log(), "the log line")  # noqa: B023
