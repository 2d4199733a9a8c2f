#!/usr/bin/env python3
"""Measure requests over TLS: HTTP/2 and HTTP/1.1 of authproxy beside other programs.

    python bench/http2.py [--rounds N] [--seconds N] [--only PROGRAM] [--case NAME]
                          [--workers N] [--output FILE]

Requires h2load (Debian: nghttp2-client) and nginx, and oauth2-proxy for the comparison.
oauth2-proxy has only HTTP/1.1; with several streams, h2load pipelines there. nginx
answers with HTTP/2 and checks nothing. Each round runs all programs; the result is the
median. Every response must be 2xx.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

import proxied  # noqa: E402
import run  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.certificates import Certificate, make_certificate  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process, listens  # noqa: E402
from support.programs import find  # noqa: E402

CHECK, CARRIED = "/oauth2/auth", "/fixed"
# Connections, streams of each, and the request target.
CASES = {
    f"{kind} {connections}x{streams}": (connections, streams, target)
    for kind, target in (("check", CHECK), ("carried", CARRIED))
    for connections, streams in ((1, 1), (1, 32), (8, 8), (32, 1), (32, 8))
}
WARM_UP = "500ms"
NGINX = """\
{user} worker_processes auto; pid nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 4 32k;
keepalive_requests 100000000;
server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert};
ssl_certificate_key {key};
location / {{ return 202; }} location = /fixed {{ return 200 "{body}"; }} }} }}
"""


class Target(NamedTuple):
    """A program under test."""

    port: int
    process: Process
    cookie: str
    http1: bool


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/http2.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--case", default="")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if find("h2load") is None or find("nginx") is None:
        print("h2load and nginx are required")
        return 1
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        targets = {
            key: target
            for key, target in start_all(stack, Path(name), options.workers).items()
            if options.only in key
        }
        rows = measure(targets, Path(name), options)
    print(table(rows))
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def start_all(
    stack: contextlib.ExitStack, folder: Path, workers: int
) -> dict[str, Target]:
    """Start all programs with one certificate."""
    certificate = make_certificate(folder, LOOPBACK)
    issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
    session = sessions.realistic_session(issuer)
    upstream = f"http://{LOOPBACK}:{proxied.start_nginx(stack, folder, 100)}/"
    targets: dict[str, Target] = {}
    for name in ("authproxy", "oauth2-proxy"):
        if find(name) is None and name != "authproxy":
            continue
        file = folder / f"{name}.txt"
        is_oauth2_proxy = name == "oauth2-proxy"
        sessions.write_cookies(file, session, 1, oauth2_proxy=is_oauth2_proxy)
        cookie = file.read_text().strip()
        extra = (
            f'tls_cert_file = "{certificate.cert_file}"\n'
            f'tls_key_file = "{certificate.key_file}"\n'
        )
        port, process = run.start_proxy(
            stack, folder, name, issuer, upstream, extra, workers, tls=True
        )
        if not is_oauth2_proxy:
            targets["authproxy h2"] = Target(port, process, cookie, http1=False)
        targets[f"{name} h1"] = Target(port, process, cookie, http1=True)
    port, process = start_nginx(stack, folder, certificate)
    cookie = targets["authproxy h2"].cookie
    targets["nginx h2"] = Target(port, process, cookie, http1=False)
    return targets


def start_nginx(
    stack: contextlib.ExitStack, folder: Path, certificate: Certificate
) -> tuple[int, Process]:
    """Start nginx with HTTP/2 and fixed responses."""
    port, conf = free_port(), folder / "nginx.conf"
    conf.write_text(
        NGINX.format(
            port=port,
            user="user root;",
            cert=certificate.cert_file,
            key=certificate.key_file,
            body="x" * 100,
        )
    )
    command = [find("nginx"), "-p", folder, "-c", conf, "-g", "daemon off;"]
    process = Process("nginx-h2", command, folder=folder)
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    return port, process


def measure(
    targets: dict[str, Target], folder: Path, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row per case and program with the medians of its rounds."""
    rows = []
    for case, shape in CASES.items():
        if options.case not in case:
            continue
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name, target in targets.items():
                result = h2load(target, *shape, options.seconds, folder / "log.txt")
                results.setdefault(name, []).append(result)
        for name, rounds in results.items():
            medians = {
                key: statistics.median(one[key] for one in rounds) for key in rounds[0]
            }
            rows.append({"case": case, "program": name, **medians, "rounds": rounds})
            print(f"{case}: {name} {medians['rate']:,.0f}/s", file=sys.stderr)
    return rows


def h2load(
    target: Target, connections: int, streams: int, path: str, seconds: int, log: Path
) -> dict[str, float]:
    """Run h2load once; raises SystemExit unless all responses are 2xx."""
    log.unlink(missing_ok=True)
    command = [
        str(find("h2load")), "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}",
        f"--warm-up-time={WARM_UP}", f"--log-file={log}",
        *(["--h1"] if target.http1 else []),
        "-H", f"cookie: {target.cookie}", f"https://{LOOPBACK}:{target.port}{path}",
    ]  # fmt: skip
    before = run.cpu_seconds(target.process.pid)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 20
    )
    counts = re.search(
        r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout
    )
    failed = re.search(r"(\d+) failed, (\d+) errored", done.stdout)
    if (
        counts is None
        or failed is None
        or not int(counts[1])
        or any(int(one) for one in (*counts.groups()[1:], *failed.groups()))
    ):
        raise SystemExit(f"not all responses were 2xx:\n{done.stdout}{done.stderr}")
    used = run.cpu_seconds(target.process.pid) - before
    latencies = sorted(int(line.split()[2]) for line in log.read_text().splitlines())
    return {
        "rate": int(counts[1]) / seconds,
        "cpu_us": used * 1e6 / len(latencies),
        "p50_ms": latencies[len(latencies) // 2] / 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] / 1000,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; the ratio is to oauth2-proxy."""
    base = {
        row["case"]: row["rate"] for row in rows if row["program"] == "oauth2-proxy h1"
    }
    lines = [
        "| case | program | requests/s | of oauth2-proxy | p50 ms | p99 ms | CPU µs |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        reference = base.get(row["case"])
        ratio = f"{row['rate'] / reference:.2f}" if reference else ""
        lines.append(
            f"| {row['case']} | {row['program']} | {row['rate']:,.0f} | {ratio} "
            f"| {row['p50_ms']:.2f} | {row['p99_ms']:.2f} | {row['cpu_us']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
