#!/usr/bin/env python3
"""Measure proxied requests: authproxy and oauth2-proxy before one nginx worker.

    python bench/proxied.py [--rounds N] [--seconds N] [--connections N] [--size BYTES]
                            [--workers N] [--only NAME] [--output FILE]

Requires wrk and nginx, and oauth2-proxy for the comparison. The CPU time per request is
measured besides the rate, because it depends less on other load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import run  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from run import cpu_seconds  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process, listens  # noqa: E402
from support.programs import find  # noqa: E402

SESSIONS = 200  # in rotation
NGINX = """\
{user} worker_processes 1; pid nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 4 32k;
keepalive_requests 100000000; keepalive_timeout 600s;
server {{ listen 127.0.0.1:{port}; root {root}; location = /fixed {{
default_type text/plain; return 200 "{body}"; }} }} }}
"""


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/proxied.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if find("wrk") is None or find("nginx") is None:
        print("wrk and nginx are required")
        return 1
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        rows = measure(stack, Path(name), options)
    for row in rows:
        print(
            f"{row['program']:14} {row['rate']:9,.0f}/s  p50 {row['p50_ms']:.2f} ms  "
            f"p99 {row['p99_ms']:.2f} ms  {row['cpu_us']:.0f} µs CPU per request"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def measure(
    stack: contextlib.ExitStack, folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row per program with the medians of its rounds."""
    issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
    session = sessions.realistic_session(issuer)
    app = start_nginx(stack, folder, options.size)
    target = "/fixed" if options.size <= 2048 else "/file"
    programs = {}
    for name in ("authproxy", "oauth2-proxy"):
        if find(name) is None and name != "authproxy":
            continue
        if options.only in ("", name):
            file = folder / f"{name}.txt"
            is_oauth2_proxy = name == "oauth2-proxy"
            sessions.write_cookies(
                file, session, SESSIONS, oauth2_proxy=is_oauth2_proxy
            )
            upstream = f"http://{LOOPBACK}:{app}/"
            port, process = run.start_proxy(
                stack, folder, name, issuer, upstream, workers=options.workers
            )
            programs[name] = (port, process, file)
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for name, (port, process, file) in programs.items():
            before = cpu_seconds(process.pid)
            result = run.wrk(port, file, options.connections, options.seconds, target)
            used = cpu_seconds(process.pid) - before
            result["cpu_us"] = used * 1e6 / max(result["requests"], 1)
            results.setdefault(name, []).append(result)
    keys = ("rate", "p50_ms", "p99_ms", "cpu_us")
    return [
        {
            "program": name,
            **{key: statistics.median(one[key] for one in rounds) for key in keys},
            "rounds": rounds,
        }
        for name, rounds in results.items()
    ]


def start_nginx(stack: contextlib.ExitStack, folder: Path, size: int) -> int:
    """Start the upstream: one worker, a fixed response, a file of *size* bytes."""
    port, conf, root = free_port(), folder / "app.conf", folder / "www"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(size))
    root.chmod(0o755)
    folder.chmod(0o755)
    user = "user root;" if os.geteuid() == 0 else ""
    body = "x" * min(size, 2048)
    conf.write_text(NGINX.format(port=port, user=user, body=body, root=root))
    command = [find("nginx"), "-p", folder, "-c", conf, "-g", "daemon off;"]
    process = Process("nginx", command, folder=folder)
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    return port


if __name__ == "__main__":
    sys.exit(main())
