#!/usr/bin/env python3
"""Measure authproxy beside oauth2-proxy and nginx: the table of docs/benchmarks.md.

    python bench/run.py [--rounds N] [--seconds N] [--case TEXT] [--list] [--quick]
                        [--output FOLDER] [--workers N]

Requires wrk, and for the comparison oauth2-proxy, nginx, redis-server and h2load. Every
round measures each program; the result is the median of the rounds. All programs write
their default logs to a file. ``--case`` measures the cases whose names contain its text,
``--quick`` the checks of warm and new sessions for two seconds; it fails unless warm
checks are at least twice as fast as oauth2-proxy's.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import chart  # noqa: E402
import sessions  # noqa: E402
from authproxy_devprovider.config import ProviderConfig  # noqa: E402
from authproxy_devprovider.provider import DevProvider, serve  # noqa: E402
from support.certificates import make_certificate  # noqa: E402
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
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;
uwsgi_temp_path u; scgi_temp_path s; large_client_header_buffers 4 32k;
keepalive_requests 100000000; proxy_http_version 1.1; proxy_set_header Connection "";
server {{ listen 127.0.0.1:{port}; location / {{ return 202; }} }}
{gateways} }}
"""
# A gateway: a small static response after an auth check.
GATEWAY = """
upstream p{number} {{ server 127.0.0.1:{port}; keepalive 64; }}
server {{ listen 127.0.0.1:{gateway}; location / {{ auth_request /check; empty_gif; }}
location = /check {{ internal; proxy_pass http://p{number}/oauth2/auth;
proxy_pass_request_body off; proxy_set_header Content-Length ""; }} }}
"""
CHECK, CARRIED = "/oauth2/auth", "/fixed"
WARM, NEW = 200, 24_000  # sessions in rotation; each of the latter is new
STARTS = 5
TICKS = os.sysconf("SC_CLK_TCK")


class Case(NamedTuple):
    """Requests that wrk sends; *goal* is the rate relative to oauth2-proxy's."""

    title: str
    goal: float
    sessions: int = 60
    target: str = CHECK
    via: str = "http"  # or "https", "gateway"
    connections: int = 32
    close: bool = False  # one connection per request
    same_format: bool = False  # authproxy gets oauth2-proxy's cookies


CASES = (
    Case("check, 60 sessions", 8),
    Case("check, new session", 4, NEW),
    Case("check, one session", 8, 1),
    Case("check, new session in oauth2-proxy's cookies", 3, NEW, same_format=True),
    Case("check without a session (401)", 6, 0),
    Case("check with allowed_groups", 6, target=f"{CHECK}?allowed_groups=admins,b"),
    Case("check, one connection per request", 3, close=True),
    Case("check, 1 connection", 2, connections=1),
    Case("check, 256 connections", 4, connections=256),
    Case("request to nginx with auth_request", 4, via="gateway", target="/"),
    Case("proxied request, 100 bytes", 7, target=CARRIED),
    Case("check over TLS", 4, via="https"),
    Case("TLS handshake per check", 1, via="https", close=True),
)
STORED = "check, new session in Redis"
DOWNLOAD = "download of 100 MiB"
HTTP2 = "HTTP/2"
START = "start to first response"
OTHER_CASES = {STORED: 3, DOWNLOAD: 2, HTTP2: 2, START: 0.1}  # with their goals


class Program(NamedTuple):
    """A program under test: its ports and processes by ``Case.via``."""

    name: str
    ports: dict[str, int]
    processes: dict[str, Process]


def main() -> int:
    """Measure and print a table; write table, JSON and chart."""
    parser = argparse.ArgumentParser(prog="bench/run.py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--case", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.list:
        print("\n".join([*(case.title for case in CASES), *OTHER_CASES]))
        return 0
    if find("wrk") is None:
        print("wrk is not installed")
        return 1
    cases = [case for case in CASES if options.case in case.title]
    others = [title for title in OTHER_CASES if options.case in title]
    if options.quick:
        cases, others, options.rounds, options.seconds = list(CASES[:2]), [], 1, 2
    rows: list[dict[str, Any]] = []
    for row in measure(cases, others, options):
        rows.append(row)
        print(f"{row['case']}: {row['program']} {row['rate']:,.1f}/s", file=sys.stderr)
    add_ratios(rows)
    print(chart.table(rows))
    if options.quick:
        return check_rate(rows)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (options.output / "results.md").write_text(chart.table(rows) + "\n")
    if cases == list(CASES):
        plotted = [
            row for row in rows if row["case"] in (CASES[0].title, CASES[1].title)
        ]
        (options.output / "auth-checks.svg").write_text(chart.svg(plotted))
    return 0


def check_rate(rows: list[dict[str, Any]]) -> int:
    """Return 1 unless warm checks are at least twice as fast as oauth2-proxy's."""
    [row] = [
        row
        for row in rows
        if row["case"] == CASES[0].title and row["program"] == "authproxy"
    ]
    if row["ratio"] is not None and row["ratio"] < 2:
        print("authproxy is not twice as fast as oauth2-proxy")
        return 1
    return 0


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """Add the rate relative to oauth2-proxy's to each row; None without it."""
    base = {
        row["case"]: row["rate"]
        for row in rows
        if row["program"].startswith("oauth2-proxy")
    }
    for row in rows:
        rate = base.get(row["case"])
        row["ratio"] = row["rate"] / rate if rate else None


def measure(
    cases: list[Case], others: list[str], options: Namespace
) -> Iterator[dict[str, Any]]:
    """Yield one row per case and program with the medians of all rounds."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        issuer = stack.enter_context(serve(DevProvider(ProviderConfig()))).url
        if cases:
            session = sessions.realistic_session(issuer)
            programs = start_all(stack, folder, issuer, options.workers)
            for case in cases:
                files = write_cookies(folder, session, case)
                yield from measure_case(case, programs, files, options)
    for title in others:
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            for row in measure_other(title, stack, Path(name), options):
                yield {"case": title, "goal": OTHER_CASES[title], **row}


def measure_other(
    title: str, stack: contextlib.ExitStack, folder: Path, options: Namespace
) -> list[dict[str, Any]]:
    """Return the rows of a case of another benchmark."""
    import http2
    import proxied
    import stores

    if title == START:
        return measure_starts(folder)
    if title == STORED and find("redis-server"):
        warm = Namespace(
            **vars(options), connections=32, sqlite=False, warm=1, cold=NEW
        )
        rows = stores.measure(stack, folder, warm)
        return [
            {**row, "case": title, "cpu_us": row["proxy_us"]}
            for row in rows
            if row["case"] == "cold"
        ]
    if title == DOWNLOAD and find("nginx"):
        large = Namespace(**vars(options), connections=4, size=100 << 20, only="")
        return proxied.measure(stack, folder, large)
    if title == HTTP2 and find("nginx") and find("h2load"):
        targets = http2.start_all(stack, folder, options.workers)
        every = Namespace(**{**vars(options), "case": ""})
        rows = http2.measure(targets, folder, every)
        return [{**row, "case": f"{HTTP2}, {row['case']}"} for row in rows]
    return []


def measure_case(
    case: Case,
    programs: list[Program],
    files: dict[str, Path | None],
    options: Namespace,
) -> list[dict[str, Any]]:
    """Return one row per program."""
    results: dict[str, list[dict[str, Any]]] = {}
    for _ in range(options.rounds):
        for program in programs:
            port = program.ports.get(case.via)
            if port is None:
                continue
            process = program.processes[case.via]
            before = cpu_seconds(process.pid)
            result = wrk(
                port,
                files[program.name],
                case.connections,
                options.seconds,
                case.target,
                close=case.close,
                tls=case.via == "https",
                status=202 if case.sessions or program.name == "nginx" else 401,
            )
            used = cpu_seconds(process.pid) - before
            result["cpu_us"] = used * 1e6 / max(result["requests"], 1)
            results.setdefault(program.name, []).append(result)
    return [
        {
            "case": case.title,
            "goal": case.goal,
            "program": name,
            **{
                key: statistics.median(result[key] for result in measured)
                for key in ("rate", "p50_ms", "p99_ms", "cpu_us")
            },
            "rounds": measured,
        }
        for name, measured in results.items()
    ]


def measure_starts(folder: Path) -> list[dict[str, Any]]:
    """Return the median time from a start to the first response, as a rate."""
    rows = []
    for name in ("authproxy", "oauth2-proxy"):
        if name != "authproxy" and find(name) is None:
            continue
        seconds = []
        for number in range(STARTS):
            directory = folder / f"{name}-{number}"
            directory.mkdir()
            with contextlib.ExitStack() as stack:
                # Nothing listens there, so the start does not wait for the provider.
                issuer = f"http://{LOOPBACK}:{free_port()}"
                began = time.perf_counter()
                skip = "skip_oidc_discovery = true\n" + "".join(
                    f'{key} = "{issuer}/{key}"\n'
                    for key in ("login_url", "redeem_url", "oidc_jwks_url")
                )
                start_proxy(stack, directory, name, issuer, extra=skip, path="/ping")
                seconds.append(time.perf_counter() - began)
        middle = statistics.median(seconds)
        rows.append(
            {
                "program": name,
                "rate": 1 / middle,
                "p50_ms": middle * 1e3,
                "p99_ms": max(seconds) * 1e3,
                "cpu_us": 0.0,
            }
        )
    return rows


def write_cookies(folder: Path, session: Any, case: Case) -> dict[str, Path | None]:
    """Write the cookies of *case*; return the file of each program."""
    files: dict[str, Path | None] = {}
    for name in ("authproxy", "oauth2-proxy", "nginx"):
        foreign = name == "oauth2-proxy" or (case.same_format and name == "authproxy")
        file = folder / f"cookies-{case.sessions}-{foreign}"
        if case.sessions and not file.exists():
            sessions.write_cookies(file, session, case.sessions, oauth2_proxy=foreign)
        files[name] = file if case.sessions else None
    return files


def start_all(
    stack: contextlib.ExitStack, folder: Path, issuer: str, workers: int
) -> list[Program]:
    """Start all programs, with and without TLS, and nginx in front of each."""
    import proxied

    certificate = make_certificate(folder, LOOPBACK)
    tls = (
        f'tls_cert_file = "{certificate.cert_file}"\n'
        f'tls_key_file = "{certificate.key_file}"\n'
    )
    nginx = find("nginx")
    upstream = "file:///dev/null"
    if nginx is not None:
        upstream = f"http://{LOOPBACK}:{proxied.start_nginx(stack, folder, 100)}/"
    programs = []
    for name in ("authproxy", "oauth2-proxy"):
        if name == "oauth2-proxy" and find(name) is None:
            continue
        program = Program(name, {}, {})
        for via, extra in (("http", ""), ("https", tls)):
            directory = folder / f"{name}-{via}"
            directory.mkdir()
            program.ports[via], program.processes[via] = start_proxy(
                stack,
                directory,
                name,
                issuer,
                upstream,
                extra,
                workers,
                tls=bool(extra),
            )
        programs.append(program)
    if nginx is not None:
        programs.append(start_gateways(stack, folder, nginx, programs))
    return programs


def start_gateways(
    stack: contextlib.ExitStack, folder: Path, nginx: str, programs: list[Program]
) -> Program:
    """Start nginx: the lower bound of checks, and a gateway in front of each program."""
    port = free_port()
    floor = Program("nginx", {"http": port}, {})
    gateways = ""
    for number, program in enumerate((*programs, floor)):
        program.ports["gateway"] = free_port()
        gateways += GATEWAY.format(
            number=number,
            port=program.ports["http"],
            gateway=program.ports["gateway"],
        )
    user = "user root;" if os.geteuid() == 0 else ""
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(port=port, user=user, gateways=gateways))
    command = [nginx, "-p", folder, "-c", conf, "-g", "daemon off;"]
    process = Process("nginx", command, folder=folder)
    stack.callback(process.stop)
    process.wait_until(lambda: listens(port))
    floor.processes.update(http=process, gateway=process)
    for program in programs:  # the CPU time of the program, without nginx's
        program.processes["gateway"] = program.processes["http"]
    return floor


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
    path: str = "/ready",
) -> tuple[int, Process]:
    """Start authproxy or oauth2-proxy with the same configuration and *extra* TOML.

    It returns once *path* is answered with 200. *workers* applies to authproxy; 0 is its default. With *tls* the port is that of
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
            return Client().get(f"{scheme}://{LOOPBACK}:{port}{path}").status == 200
        return False

    process.wait_until(ready, 30.0)
    return port, process


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children in seconds."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0.0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def wrk(
    port: int,
    cookies: Path | None,
    connections: int,
    seconds: int,
    target: str = CHECK,
    *,
    close: bool = False,
    tls: bool = False,
    status: int = 200,
) -> dict[str, Any]:
    """Run wrk once; raises SystemExit unless all responses are 2xx, or *status*.

    With *close* each request has its own connection.
    """
    command = [
        str(find("wrk")), "-t1", f"-c{connections}", f"-d{seconds}s", "-s",
        str(ROOT / "bench" / "wrk.lua"), f"http{'s' * tls}://{LOOPBACK}:{port}", "--",
        str(cookies or ""), target, "close" if close else "",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    expected = result["requests"] if status >= 400 else 0
    if result["errors"] or result["error_statuses"] != expected:
        raise SystemExit(f"not all responses were as expected:\n{done.stdout}")
    result["rate"] = result["requests"] / result["seconds"]
    return result


if __name__ == "__main__":
    sys.exit(main())
