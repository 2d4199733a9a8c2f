#!/usr/bin/env python3
"""Measure auth checks per second of authproxy, oauth2-proxy and nginx.

    python bench/run.py [--rounds N] [--seconds N] [--output FOLDER] [--quick]

Requires wrk, and oauth2-proxy and nginx for the comparison. Every round measures each
program; the result is the median of the rounds. All programs write their default logs to
a file. ``--quick`` is a short run that fails unless authproxy is at least twice as fast as
oauth2-proxy.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import chart  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.http import Client  # noqa: E402
from support.ports import LOOPBACK, free_port  # noqa: E402
from support.processes import Process, listens  # noqa: E402
from support.programs import find  # noqa: E402

CONFIG = """\
reverse_proxy = true
provider = "keycloak-oidc"
email_domains = "*"
set_xauthrequest = true
set_authorization_header = true
insecure_oidc_allow_unverified_email = true
code_challenge_method = "S256"
"""
NGINX = """\
{user} worker_processes 1; pid nginx.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 4 32k;
keepalive_requests 100000000;
server {{ listen 127.0.0.1:{port}; location / {{ return 202; }} }} }}
"""
ONE_WORKER = "authproxy, 1 worker"
WARM, COLD = 200, 24_000  # sessions in rotation
CASES = (
    ("warm, 32 connections", 32, "warm"),
    ("cold, 32 connections", 32, "cold"),
    ("warm, 1 connection", 1, "warm"),
    ("warm, 256 connections", 256, "warm"),
)


def main() -> int:
    """Measure and print a table; write table, JSON and chart."""
    parser = argparse.ArgumentParser(prog="bench/run.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    cases = CASES[:2] if options.quick else CASES
    rounds, seconds = (1, 2) if options.quick else (options.rounds, options.seconds)
    if find("wrk") is None:
        print("wrk is not installed")
        return 1
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        programs, sizes, memory = start_all(stack, Path(folder))
        rows = measure(programs, cases, rounds, seconds)
    print(chart.table(rows))
    print(f"cookie sizes: {sizes}; idle memory of a worker: {memory:.1f} MB")
    if options.quick:
        return check_rate(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    document = {"rows": rows, "cookie_bytes": sizes, "idle_worker_mb": memory}
    (options.output / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "results.md").write_text(chart.table(rows) + "\n")
    plotted = [
        row for row in rows if "32" in row["case"] and row["program"] in chart.COLORS
    ]
    (options.output / "auth-checks.svg").write_text(chart.svg(plotted))
    return 0


def check_rate(rows: list[dict[str, Any]]) -> int:
    """Return 1 unless warm checks are at least twice as fast as oauth2-proxy's."""
    rates = {
        row["program"]: row["rate"] for row in rows if row["case"].startswith("warm")
    }
    if "oauth2-proxy" in rates and rates["authproxy"] < 2 * rates["oauth2-proxy"]:
        print("authproxy is not twice as fast as oauth2-proxy")
        return 1
    return 0


def start_all(
    stack: contextlib.ExitStack, folder: Path
) -> tuple[dict[str, tuple[int, dict[str, Path | None]]], dict[str, int], float]:
    """Start all programs; return ports and cookie files, cookie sizes, worker memory."""
    provider = DevProvider(ProviderConfig())
    running = stack.enter_context(serve(provider))
    session = sessions.realistic_session(running.url)
    programs: dict[str, tuple[int, dict[str, Path | None]]] = {}
    sizes: dict[str, int] = {}
    memory = 0.0
    for name in ("authproxy", "oauth2-proxy"):
        if name == "oauth2-proxy" and find(name) is None:
            continue
        files: dict[str, Path | None] = {}
        for case, count in (("warm", WARM), ("cold", COLD)):
            file = folder / f"{name}-{case}.txt"
            is_oauth2_proxy = name == "oauth2-proxy"
            sizes[name] = sessions.write_cookies(
                file, session, count, oauth2_proxy=is_oauth2_proxy
            )
            files[case] = file
        port, process = start_proxy(stack, folder, name, running.url)
        programs[name] = (port, files)
        if name == "authproxy":
            memory = worker_memory(process.pid)
            single = folder / "one"
            single.mkdir()
            port, _ = start_proxy(
                stack, single, name, running.url, extra="workers = 1\n"
            )
            programs[ONE_WORKER] = (port, files)
    nginx = find("nginx")
    if nginx is not None:
        port = free_port()
        text = NGINX.format(port=port, user="user root;")
        (folder / "nginx.conf").write_text(text)
        command = [
            nginx,
            "-p",
            folder,
            "-c",
            folder / "nginx.conf",
            "-g",
            "daemon off;",
        ]
        process = Process("nginx", command, folder=folder)
        stack.callback(process.stop)
        process.wait_until(lambda: listens(port))
        programs["nginx"] = (port, {"warm": programs["authproxy"][1]["warm"]})
    return programs, sizes, memory


def start_proxy(
    stack: contextlib.ExitStack,
    folder: Path,
    name: str,
    issuer: str,
    upstream: str = "file:///dev/null",
    extra: str = "",
    workers: int = 0,
    *,
    tls: bool = False,
) -> tuple[int, Process]:
    """Start authproxy or oauth2-proxy with the same configuration and *extra* TOML.

    *workers* applies to authproxy; 0 is its default. With *tls* the port is that of
    ``https_address``; *extra* has the certificate.
    """
    if workers and name == "authproxy":
        extra += f"workers = {workers}\n"
    file = folder / f"{name}.cfg"
    file.write_text(CONFIG + f'upstreams = "{upstream}"\n{extra}')
    port = free_port()
    start = [sys.executable, "-m", "authproxy"] if name == "authproxy" else [find(name)]
    process = Process(
        name,
        [*(str(part) for part in start), "--config", file],
        folder=folder,
        environment={
            "OAUTH2_PROXY_CLIENT_ID": "authproxy",
            "OAUTH2_PROXY_CLIENT_SECRET": "demo-client-secret",
            "OAUTH2_PROXY_COOKIE_SECRET": sessions.SECRET.value.decode(),
            "OAUTH2_PROXY_OIDC_ISSUER_URL": issuer,
            f"OAUTH2_PROXY_HTTP{'S' * tls}_ADDRESS": f"{LOOPBACK}:{port}",
            "PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'server'}",
        },
    )
    stack.callback(process.stop)

    scheme = "https" if tls else "http"

    def ready() -> bool:
        with contextlib.suppress(OSError):
            return Client().get(f"{scheme}://{LOOPBACK}:{port}/ready").status == 200
        return False

    process.wait_until(ready, 30.0)
    return port, process


def worker_memory(supervisor: int) -> float:
    """Return the largest resident memory of a worker in MB."""
    children = (
        Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    )
    sizes = [
        int(line.split()[1])
        for child in children or [str(supervisor)]
        for line in Path(f"/proc/{child}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    ]
    return max(sizes) / 1024


def measure(
    programs: dict[str, tuple[int, dict[str, Path | None]]],
    cases: tuple[tuple[str, int, str], ...],
    rounds: int,
    seconds: int,
) -> list[dict[str, Any]]:
    """Return one row per case and program with the medians of all rounds."""
    rows = []
    for title, connections, kind in cases:
        results: dict[str, list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for name, (port, files) in programs.items():
                if kind in files:
                    result = wrk(port, files[kind], connections, seconds)
                    results.setdefault(name, []).append(result)
        for name, measured in results.items():
            rows.append(
                {
                    "case": title,
                    "program": name,
                    **{
                        key: statistics.median(result[key] for result in measured)
                        for key in ("rate", "p50_ms", "p99_ms")
                    },
                    "rounds": measured,
                }
            )
            print(f"{title}: {name} {rows[-1]['rate']:,.0f}/s", file=sys.stderr)
    return rows


def wrk(
    port: int,
    cookies: Path | None,
    connections: int,
    seconds: int,
    target: str = "/oauth2/auth",
) -> dict[str, Any]:
    """Run wrk once; raises SystemExit unless all responses are 2xx."""
    command = [
        str(find("wrk")), "-t1", f"-c{connections}", f"-d{seconds}s", "-s",
        str(ROOT / "bench" / "wrk.lua"), f"http://{LOOPBACK}:{port}", "--",
        str(cookies), target,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    if result["errors"]:
        raise SystemExit(f"{result['errors']} responses were errors:\n{done.stdout}")
    result["rate"] = result["requests"] / result["seconds"]
    return result


if __name__ == "__main__":
    sys.exit(main())
