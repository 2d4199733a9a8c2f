"""nginx as the gateway, over TLS, with server blocks from documentation."""

from __future__ import annotations

import os
from pathlib import Path

from support.certificates import Certificate
from support.ports import LOOPBACK
from support.processes import Process, listens

# Added to the reference server block: buffers for headers with tokens.
BUFFERS = """\
proxy_buffer_size           32k;
proxy_buffers               8 32k;
proxy_busy_buffers_size     64k;
large_client_header_buffers 4 32k;
"""

MAIN = """\
{user}
worker_processes 1;
pid nginx.pid;
error_log stderr info;
events {{ worker_connections 256; }}
http {{
    access_log /dev/stdout;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    {block}
}}
"""


def reference_block(text: str, port: int, auth_port: int, app_port: int) -> str:
    """Return the reference server block with ports and cookie name filled in."""
    listen = f"server {{\n  listen {LOOPBACK}:{port} ssl;\n"
    block = (
        text.replace("server {\n", listen, 1)
        .replace("oauth2-proxy.svc:4180", f"{LOOPBACK}:{auth_port}")
        .replace("http://backend/", f"http://{LOOPBACK}:{app_port}/")
        .replace("auth_cookie_name", "_oauth2_proxy")
    )
    return BUFFERS + block


def deployed_block(text: str, port: int, auth_port: int, app_port: int) -> str:
    """Return ``deploy/nginx.conf`` with the ports filled in."""
    return (
        text.replace("443 ssl", f"{LOOPBACK}:{port} ssl")
        .replace("127.0.0.1:4180", f"{LOOPBACK}:{auth_port}")
        .replace("127.0.0.1:8080", f"{LOOPBACK}:{app_port}")
    )


def start_nginx(
    program: Path, folder: Path, block: str, port: int, certificate: Certificate
) -> Process:
    """Start nginx with *block* in its http block; it listens on *port*."""
    for name, file in (("pem", certificate.cert_file), ("key", certificate.key_file)):
        block = block.replace(f"/etc/nginx/app.{name}", file)
    configuration = folder / "nginx.conf"
    configuration.write_text(
        MAIN.format(
            # Started by root, the workers would run as "nobody" without access to *folder*.
            user="user root;" if os.geteuid() == 0 else "",
            certificate=certificate.cert_file,
            key=certificate.key_file,
            block=block,
        )
    )
    process = Process(
        "nginx",
        [program, "-p", folder, "-c", configuration, "-g", "daemon off;"],
        folder=folder,
    )
    return process.wait_until(lambda: listens(port))
