"""The options about the metrics endpoint."""

from __future__ import annotations

from ...server_settings import Listener, TlsSettings
from ..read.resolved import ResolvedOptions
from .listeners import OFF, host_port, unix_socket

EXPECTED = "HOST:PORT, unix://PATH[,mode=0660] or '-'"


def metrics_listeners(collected: ResolvedOptions) -> tuple[Listener, ...]:
    """The plain one and the TLS one; neither is on without an address."""
    return (*_plain(collected), *_secure(collected))


def _plain(collected: ResolvedOptions) -> tuple[Listener, ...]:
    key = "metrics_address"
    address = collected.string(key)
    if address in OFF:
        return ()
    if address.startswith("unix://"):
        path, mode = unix_socket(collected, key, address.removeprefix("unix://"))
        return (Listener(path=path, mode=mode, metrics=True),)
    found = host_port(address.removeprefix("http://"))
    if found is None:
        collected.add_mismatch(key, address, EXPECTED)
        return ()
    return (Listener(host=found[0], port=found[1], metrics=True),)


def _secure(collected: ResolvedOptions) -> tuple[Listener, ...]:
    key = "metrics_secure_address"
    address = collected.string(key)
    names = ("metrics_tls_cert_file", "metrics_tls_key_file")
    missing = [name for name in names if not collected.string(name)]
    if address in OFF:
        for name in names:
            if name not in missing:
                collected.add_warning(name, f"has no effect without {key}")
        return ()
    for name in missing:
        collected.add_problem(name, f"missing; {key} needs a certificate and its key")
    found = host_port(address.removeprefix("https://"))
    if found is None:
        collected.add_mismatch(key, address, "HOST:PORT")
    if found is None or missing:
        return ()
    cert, key_file = map(collected.string, names)
    tls = TlsSettings(cert_file=cert, key_file=key_file)
    return (Listener(host=found[0], port=found[1], tls=tls, metrics=True),)
