#!/usr/bin/env python3
"""Measure TLS handshakes: a connection for each request, new and resumed sessions.

    python bench/tls.py [--rounds N] [--seconds N] [--output FILE]

Requires wrk and nginx, and oauth2-proxy for the comparison. The CPU time is that of the
program for one connection with one request, without what it uses when idle. "http" is
the same without TLS, so the difference is the handshake. Resumed sessions come from a
client that opens one connection after another; the share that the program resumed is
measured, too. Each round runs all programs; the result is the median.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import proxied  # noqa: E402
import run  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.certificates import Certificate, make_certificate  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process, listens  # noqa: E402
from support.programs import find  # noqa: E402

CONNECTIONS = 32
RESUMED = 500  # connections of a round with resumed sessions
REQUEST = b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NGINX = """\
{user} worker_processes auto; pid nginx.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s;
server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {cert};
ssl_certificate_key {key}; location / {{ return 200; }} }} }}
"""


class Target(NamedTuple):
    """A program under test, and the CPU seconds that it uses in an idle second."""

    name: str
    key: str
    port: int
    process: Process
    idle: float


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/tls.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if find("wrk") is None or find("nginx") is None:
        print("wrk and nginx are required")
        return 1
    results: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        targets = start_all(stack, Path(name))
        for _ in range(options.rounds):
            for target in targets:
                for kind, result in measure(target, options.seconds):
                    results.setdefault((target.key, kind, target.name), []).append(
                        result
                    )
                print(f"{target.key}: {target.name} done", file=sys.stderr)
    rows = [
        {"key": key, "sessions": kind, "program": program}
        | {
            name: round(statistics.median(one[name] for one in rounds), 2)
            for name in rounds[0]
        }
        for (key, kind, program), rounds in sorted(results.items())
    ]
    print(table(rows))
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def start_all(stack: contextlib.ExitStack, folder: Path) -> list[Target]:
    """Start each program with each kind of key, and authproxy without TLS."""
    issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
    started: list[tuple[str, str, int, Process]] = []
    for key in ("P-256", "RSA-2048", "http"):
        place = folder / key
        place.mkdir()
        certificate = make_certificate(place, LOOPBACK, rsa=key.startswith("RSA"))
        extra = (
            f'tls_cert_file = "{certificate.cert_file}"\n'
            f'tls_key_file = "{certificate.key_file}"\n'
        )
        for name in ("authproxy", "oauth2-proxy"):
            if name == "authproxy" or find(name):
                port, process = run.start_proxy(
                    stack,
                    place,
                    name,
                    issuer,
                    extra="" if key == "http" else extra,
                    tls=key != "http",
                )
                started.append((name, key, port, process))
        if key != "http":
            started.append(("nginx", key, *start_nginx(stack, place, certificate)))
    return [
        Target(name, key, port, process, idle_cpu(process))
        for name, key, port, process in started
    ]


def idle_cpu(process: Process) -> float:
    """Return the CPU seconds that *process* uses in a second without requests."""
    before = proxied.cpu_seconds(process.pid)
    time.sleep(2.0)
    return (proxied.cpu_seconds(process.pid) - before) / 2.0


def start_nginx(
    stack: contextlib.ExitStack, folder: Path, certificate: Certificate
) -> tuple[int, Process]:
    """Start nginx with an empty response."""
    port, conf = free_port(), folder / "nginx.conf"
    conf.write_text(
        NGINX.format(
            port=port,
            user="user root;",
            cert=certificate.cert_file,
            key=certificate.key_file,
        )
    )
    command = [find("nginx"), "-p", folder, "-c", conf, "-g", "daemon off;"]
    process = Process("nginx", command, folder=folder)
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    return port, process


def measure(target: Target, seconds: int) -> list[tuple[str, dict[str, float]]]:
    """Return the results by kind of session."""
    results = [("new", with_cpu(target, lambda: new_sessions(target, seconds)))]
    if target.key != "http":
        results.append(("resumed", with_cpu(target, lambda: resumed_sessions(target))))
    return results


def with_cpu(target: Target, load: Any) -> dict[str, float]:
    """Return the result of *load*, with the CPU microseconds of a connection."""
    before, started = proxied.cpu_seconds(target.process.pid), time.monotonic()
    result: dict[str, float] = load()
    elapsed = time.monotonic() - started
    used = proxied.cpu_seconds(target.process.pid) - before - elapsed * target.idle
    return result | {"cpu_us": used * 1e6 / result["connections"]}


def new_sessions(target: Target, seconds: int) -> dict[str, float]:
    """Open connections with wrk."""
    scheme = "http" if target.key == "http" else "https"
    command = [
        str(find("wrk")), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H",
        "Connection: close", f"{scheme}://{LOOPBACK}:{target.port}/ping",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"(\d+) requests in", done.stdout)
    if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise SystemExit(f"not all responses were 2xx:\n{done.stdout}")
    connections = int(found[1])
    return {"connections": connections, "rate": connections / seconds, "resumed": 0.0}


def resumed_sessions(target: Target) -> dict[str, float]:
    """Open connections one after another, each with the session of the last one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    session: ssl.SSLSession | None = None
    resumed = 0
    started = time.monotonic()
    for _ in range(RESUMED):
        plain = socket.create_connection((LOOPBACK, target.port), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(plain, session=session) as wrapped:
            wrapped.sendall(REQUEST)
            while wrapped.recv(4096):
                pass
            resumed += bool(wrapped.session_reused)
            session = wrapped.session
    rate = RESUMED / (time.monotonic() - started)
    return {"connections": RESUMED, "rate": rate, "resumed": resumed / RESUMED}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| key | sessions | program | connections/s | CPU µs | resumed |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['key']} | {row['sessions']} | {row['program']} | {row['rate']:,.0f} | "
        f"{row['cpu_us']:.0f} | {row['resumed']:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
