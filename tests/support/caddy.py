"""Caddy as the gateway, over TLS."""

from __future__ import annotations

from pathlib import Path

from support.certificates import Certificate
from support.ports import LOOPBACK
from support.processes import Process, listens

GLOBAL = """\
{
	admin off
	auto_https disable_redirects
	persist_config off
}
"""


def deployed_site(
    text: str, port: int, auth_port: int, app_port: int, certificate: Certificate
) -> str:
    """Return ``deploy/Caddyfile`` with ports and certificate filled in."""
    tls = f"\tbind {LOOPBACK}\n\ttls {certificate.cert_file} {certificate.key_file}\n"
    site = (
        text.replace("\napp.example.com {\n", f"\napp.example.com:{port} {{\n{tls}", 1)
        .replace("127.0.0.1:4180", f"{LOOPBACK}:{auth_port}")
        .replace("127.0.0.1:8080", f"{LOOPBACK}:{app_port}")
    )
    return GLOBAL + site


def start_caddy(program: Path, folder: Path, site: str, port: int) -> Process:
    """Start Caddy with the Caddyfile *site*; it listens on *port*."""
    caddyfile = folder / "Caddyfile"
    caddyfile.write_text(site)
    process = Process(
        "caddy",
        [program, "run", "--config", caddyfile, "--adapter", "caddyfile"],
        folder=folder,
        environment={"HOME": str(folder), "XDG_DATA_HOME": str(folder)},
    )
    return process.wait_until(lambda: listens(port))
