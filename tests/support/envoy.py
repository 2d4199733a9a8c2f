"""Envoy as the gateway, over TLS, with the example of ``deploy/``."""

from __future__ import annotations

from pathlib import Path

from support.certificates import Certificate
from support.ports import LOOPBACK
from support.processes import Process, listens


def start_envoy(
    program: Path,
    folder: Path,
    text: str,
    *,
    port: int,
    auth_port: int,
    app_port: int,
    certificate: Certificate,
) -> Process:
    """Start Envoy with ``envoy.yaml``; only addresses and file names are filled in."""

    def address(host: str, number: int) -> str:
        return f"{{ address: {host}, port_value: {number} }}"

    for old, new in (
        (address("0.0.0.0", 443), address(LOOPBACK, port)),
        (address("authproxy", 4180), address(LOOPBACK, auth_port)),
        (address("application", 8080), address(LOOPBACK, app_port)),
        ("/etc/envoy/app.pem", certificate.cert_file),
        ("/etc/envoy/app.key", certificate.key_file),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    configuration = folder / "envoy.yaml"
    configuration.write_text(text)
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
    process = Process("envoy", [program, "-c", configuration, *flags], folder=folder)
    return process.wait_until(lambda: listens(port))
