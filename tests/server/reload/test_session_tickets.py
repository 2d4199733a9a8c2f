"""TLS session tickets: shared by the workers, and kept over reloads."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
from pathlib import Path

import pytest

from support import workers as workers_of
from support.certificates import Certificate, make_certificate
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program
from support.programs import find
from support.server import Wire

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
LAST_PING = PING.replace(b"Host", b"Connection: close\r\nHost")
RELOADED = "configuration reloaded"


class TlsClient:
    """A client that resumes the first session which it got from the server."""

    def __init__(self, certificate: Certificate, version: ssl.TLSVersion) -> None:
        self._context = ssl.create_default_context(cafile=certificate.cert_file)
        self._context.minimum_version = self._context.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def log_in(self, port: int) -> None:
        """Get a session."""
        with Wire(port) as wire:
            self.handshake(wire)
            wire.send(PING)
            assert wire.answer().status == 200  # the ticket has arrived with it
            assert isinstance(wire.socket, ssl.SSLSocket)
            self._session = wire.socket.session

    def handshake(self, wire: Wire) -> None:
        """Wrap the socket of *wire*; a session that is not resumed is an error."""
        wrapped = self._context.wrap_socket(
            wire.socket, server_hostname=LOOPBACK, session=self._session
        )
        wire.socket = wrapped
        assert wrapped.session_reused == (self._session is not None)


def test_session_resumed_by_every_worker_also_after_reloads(tmp_path: Path) -> None:
    directories = [tmp_path / name for name in ("old", "new")]
    for directory in directories:
        directory.mkdir()
    old, new = (make_certificate(one, LOOPBACK) for one in directories)
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    with Program(
        tmp_path,
        workers=2,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=old.cert_file,
        tls_key_file=old.key_file,
        reload_on_change=False,
    ) as program:
        wait_for(lambda: len(program.workers) == 2, "the workers")
        clients = [TlsClient(old, version) for version in versions]
        for client in clients:
            client.log_in(program.port)

        def assert_resumed_by_all() -> None:
            for client in clients:
                with workers_of.connections(
                    program, program.port, prepare=client.handshake
                ) as wires:
                    assert len(wires) == 2

        def reload() -> None:
            program.mark()
            program.signal(signal.SIGHUP)
            program.wait_until(lambda: RELOADED in program.log_since_mark())

        assert_resumed_by_all()
        reload()
        assert_resumed_by_all()
        Path(old.key_file).write_text(Path(new.key_file).read_text())
        Path(old.cert_file).write_text(Path(new.cert_file).read_text())
        reload()
        assert_resumed_by_all()
        TlsClient(new, versions[1]).log_in(program.port)
        before = program.workers
        os.kill(before[0], signal.SIGKILL)
        wait_for(
            lambda: len(program.workers) == 2 and program.workers != before,
            "a new worker",
        )
        assert_resumed_by_all()
        TlsClient(new, versions[0]).log_in(program.port)


@pytest.mark.skipif(find("openssl") is None, reason="openssl is not installed")
def test_session_of_openssl_resumed_by_two_workers(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, LOOPBACK)
    session = tmp_path / "session"
    with Program(
        tmp_path,
        workers=2,
        https_address=f"{LOOPBACK}:0",
        tls_cert_file=certificate.cert_file,
        tls_key_file=certificate.key_file,
    ) as program:

        def connect(*options: str) -> str:
            command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{program.port}",
                       "-CAfile", certificate.cert_file, *options]  # fmt: skip
            done = subprocess.run(
                command, input=LAST_PING, capture_output=True, timeout=60, check=True
            )
            return done.stdout.decode("latin-1")

        for version in ("-tls1_2", "-tls1_3"):
            assert "\nNew, " in connect(version, "-ign_eof", "-sess_out", str(session))
            for _ in range(4):
                assert "\nReused, " in connect(version, "-sess_in", str(session))
        assert connect("-tls1_2", "-reconnect").count("\nReused, ") == 5
