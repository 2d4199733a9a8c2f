"""Listening sockets: TCP, unix sockets, TLS, and what goes wrong."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from authproxy.net.listeners import ListenError, open_listener, open_listeners
from authproxy.server_settings import Listener, TlsSettings
from support.certificates import make_certificate
from support.ports import LOOPBACK


def test_unix_socket(tmp_path: Path) -> None:
    """It has its mode, and is gone at the end; a stale one is replaced."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    listener = Listener(path=str(path), mode=0o660)
    with open_listeners([listener]) as (listening,):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert listening.name == f"unix://{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        with pytest.raises(ListenError, match="in use"):
            open_listener(listener)
        assert path.exists()
    assert not path.exists()


def test_file_is_not_replaced(tmp_path: Path) -> None:
    """Something that is no socket stays."""
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="not a socket"):
        open_listener(Listener(path=str(path)))
    assert path.read_text() == "precious"


def test_port_in_use() -> None:
    """The error names the address."""
    with open_listeners([Listener(host=LOOPBACK)]) as (listening,):
        port = listening.socket.getsockname()[1]
        assert listening.name == f"http://{LOOPBACK}:{port}"
        with pytest.raises(ListenError, match=f"{LOOPBACK}:{port}"):
            open_listener(Listener(host=LOOPBACK, port=port))


def test_tls(tmp_path: Path) -> None:
    """A context for https; unreadable files and odd versions are errors."""
    cert = make_certificate(tmp_path, LOOPBACK)
    tls = TlsSettings(cert_file=cert.cert_file, key_file=cert.key_file)
    with open_listeners([Listener(host=LOOPBACK, tls=tls)]) as (listening,):
        assert listening.context is not None
        assert listening.name.startswith("https://")
    for bad in (
        TlsSettings(cert_file="/nowhere", key_file=cert.key_file),
        TlsSettings(
            cert_file=cert.cert_file, key_file=cert.key_file, min_version="SSL3"
        ),
        TlsSettings(cert_file=cert.key_file, key_file=cert.key_file),
    ):
        with pytest.raises(ListenError):
            open_listener(Listener(host=LOOPBACK, tls=bad))
