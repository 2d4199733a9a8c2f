"""Listening sockets: TCP, unix sockets, TLS, and errors."""

from __future__ import annotations

import socket
import stat
import tempfile
from pathlib import Path

import pytest

from authproxy.net.listeners import ListenError, open_listener, open_listeners
from authproxy.server_settings import Listener, TlsSettings
from authproxy_core import Secret
from support.certificates import make_certificate
from support.ports import LOOPBACK


def test_open_listeners_unix_socket_replaces_a_stale_socket_and_is_removed(
    tmp_path: Path,
) -> None:
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


def test_open_listener_path_of_regular_file_rejected(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("content")
    with pytest.raises(ListenError, match="not a socket"):
        open_listener(Listener(path=str(path)))
    assert path.read_text() == "content"


def test_open_listener_port_in_use_names_the_address() -> None:
    with open_listeners([Listener(host=LOOPBACK)]) as (listening,):
        port = listening.socket.getsockname()[1]
        assert listening.name == f"http://{LOOPBACK}:{port}"
        with pytest.raises(ListenError, match=f"{LOOPBACK}:{port}"):
            open_listener(Listener(host=LOOPBACK, port=port))


def test_open_listeners_tls_has_context_and_rejects_invalid_settings(
    tmp_path: Path,
) -> None:
    cert = make_certificate(tmp_path, LOOPBACK)
    tls = TlsSettings(cert_file=cert.cert_file, key_file=cert.key_file)
    with open_listeners([Listener(host=LOOPBACK, tls=tls)]) as (listening,):
        assert listening.context is not None
        assert listening.name.startswith("https://")
    for bad in (
        TlsSettings(cert_file="/nowhere", key_file=cert.key_file),
        TlsSettings(cert_file=cert.key_file, key_file=cert.key_file),
    ):
        with pytest.raises(ListenError):
            open_listener(Listener(host=LOOPBACK, tls=bad))


def test_inline_certificate_without_temporary_directory_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose file systems are all read-only."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    cert = make_certificate(tmp_path, LOOPBACK)
    chain, key = Path(cert.cert_file).read_bytes(), Path(cert.key_file).read_bytes()
    tls = TlsSettings(cert_file="", key_file="", pem=Secret(chain + key))
    with open_listeners([Listener(host=LOOPBACK, port=0, tls=tls)]) as (listening,):
        assert listening.context is not None
