"""HAProxy as the gateway, over TLS, with the example of ``deploy/``."""

from __future__ import annotations

from pathlib import Path

from support.certificates import Certificate
from support.ports import LOOPBACK
from support.processes import Process, listens


def start_haproxy(
    program: Path,
    folder: Path,
    deploy: Path,
    *,
    port: int,
    auth_port: int,
    app_port: int,
    certificate: Certificate,
) -> Process:
    """Start HAProxy with ``haproxy.cfg`` and the Lua script of the directory *deploy*.

    Only ports and file names are filled in.
    """
    pem = folder / "app.pem"
    pem.write_bytes(
        Path(certificate.cert_file).read_bytes()
        + Path(certificate.key_file).read_bytes()
    )
    text = (
        (deploy / "haproxy.cfg")
        .read_text()
        .replace("/etc/haproxy/forward_auth.lua", str(deploy / "forward_auth.lua"))
        .replace("/etc/haproxy/app.pem", str(pem))
        .replace("bind :443", f"bind {LOOPBACK}:{port}")
        .replace("127.0.0.1:4180", f"{LOOPBACK}:{auth_port}")
        .replace("127.0.0.1:8080", f"{LOOPBACK}:{app_port}")
    )
    configuration = folder / "haproxy.cfg"
    configuration.write_text(text)
    process = Process("haproxy", [program, "-db", "-f", configuration], folder=folder)
    return process.wait_until(lambda: listens(port))
