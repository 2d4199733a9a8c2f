#!/usr/bin/env python3
"""Measure the time until a revoked session ends at another instance.

    python bench/revocation.py [--count N] [--workers N] [--only NAME] [--output FILE]

Two instances of authproxy share Redis (if redis-server is installed) or a SQLite file,
for stored sessions or for the revocations of cookie sessions. A session is created at the
first instance and checked at the second until it is cached. The first instance revokes it
at a sign-out or by a logout token, while the second receives one check after another.

The time starts when the revoking request is sent and ends with the first 401, so it
includes the duration of that request. Any status other than 202 and 401 aborts the run. A
median above `MAX_MEDIAN` fails it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("tests", "server", "core")]

from support.login import Browser, Provider  # noqa: E402
from support.ports import LOOPBACK  # noqa: E402
from support.program import Program  # noqa: E402
from support.programs import find  # noqa: E402
from support.redis import RedisServer  # noqa: E402

MAX_MEDIAN = 100.0  # milliseconds
TIMEOUT = 5.0  # seconds; a session that lives longer fails the run
CACHING_REQUESTS = 3  # after which a session is cached
Options = dict[str, Any]
End = Callable[[Browser, http.client.HTTPConnection], None]


def main() -> int:
    """Measure and print a table; write JSON to the file of ``--output``."""
    parser = argparse.ArgumentParser(prog="bench/revocation.py")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        for backend, settings in backends(stack, Path(name)).items():
            if options.only in backend:
                folder = Path(name) / backend.replace(" ", "-")
                rows += measure(folder, backend, settings, options)
    for row in rows:
        print(
            f"{row['backend']:16} {row['how']:13} {row['count']:4} times  "
            f"median {row['median_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms  "
            f"longest {row['longest_ms']:6.1f} ms"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    slow = [row["backend"] for row in rows if row["median_ms"] > MAX_MEDIAN]
    if slow:
        print(f"slower than {MAX_MEDIAN:g} ms: {', '.join(slow)}")
    return 1 if slow else 0


def backends(stack: contextlib.ExitStack, folder: Path) -> dict[str, Options]:
    """Return the options of each session backend; Redis only if it is installed."""
    revocable = {"session_revocation": True}
    sessions = {"sqlite_path": str(folder / "sessions.db")}
    revocations = {"sqlite_path": str(folder / "revoked.db")}
    found: dict[str, Options] = {
        "SQLite": {"session_store_type": "sqlite", **sessions},
        "cookies, SQLite": {**revocable, **revocations},
    }
    if find("redis-server") is None:
        print("redis-server is not installed", file=sys.stderr)
        return found
    url = {"redis_connection_url": stack.enter_context(RedisServer(folder)).url}
    return {
        "Redis": {"session_store_type": "redis", **url},
        "cookies, Redis": {**revocable, "shared_state": "redis", **url},
        **found,
    }


def measure(
    folder: Path, backend: str, settings: Options, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return one row for each way to revoke a session."""
    with Provider(2) as provider, contextlib.ExitStack() as stack:
        for number in range(2):
            start(stack, folder, provider, number, settings, options.workers)
        rows = []
        for how, end in (("sign-out", sign_out), ("logout token", log_out)):
            times = sorted(delay(provider, end) * 1000 for _ in range(options.count))
            rows.append(
                {
                    "backend": backend,
                    "how": how,
                    "count": options.count,
                    "median_ms": statistics.median(times),
                    "p99_ms": times[max(0, -(-99 * len(times) // 100) - 1)],
                    "longest_ms": times[-1],
                }
            )
        return rows


def start(
    stack: contextlib.ExitStack,
    folder: Path,
    provider: Provider,
    number: int,
    settings: Options,
    workers: int,
) -> None:
    """Start one instance and wait until it is ready."""
    directory = folder / str(number)
    directory.mkdir(parents=True)
    program = stack.enter_context(
        Program(
            directory,
            **provider.options(number),
            **settings,
            backchannel_logout=True,
            workers=workers,
        )
    )
    program.wait_until(lambda: "[provider_ready]" in program.log(), 30.0)
    browser = provider.browser(number)
    program.wait_until(lambda: browser.get("/ready").status == 200, 30.0)


def delay(provider: Provider, end: End) -> float:
    """Return the seconds until the second instance rejects a revoked session."""
    browser = provider.browser(0)
    browser.log_in()
    cookie = {"Cookie": browser.jar.sent_to(f"http://{LOOPBACK}:{browser.port}/")}
    first, second = (
        http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT)
        for port in provider.ports
    )
    with contextlib.closing(first), contextlib.closing(second):
        first.connect()
        for _ in range(CACHING_REQUESTS):
            expect(202, status(second, cookie))
        start_time = time.perf_counter()
        end(browser, first)
        while (code := status(second, cookie)) != 401:
            expect(202, code)
            if time.perf_counter() - start_time > TIMEOUT:
                raise SystemExit(f"the session is valid after {TIMEOUT:g} s")
        took = time.perf_counter() - start_time
        response = first.getresponse()
        response.read()
        if response.status not in (200, 302):
            raise SystemExit(f"revoking the session returned {response.status}")
    return took


def status(connection: http.client.HTTPConnection, cookie: dict[str, str]) -> int:
    """Return the status of one auth check."""
    connection.request("GET", "/oauth2/auth", headers=cookie)
    response = connection.getresponse()
    response.read()
    return response.status


def expect(expected: int, got: int) -> None:
    """Abort the run unless *got* is the expected status."""
    if got != expected:
        raise SystemExit(f"expected {expected}, got {got}")


def sign_out(browser: Browser, connection: http.client.HTTPConnection) -> None:
    """Send the sign-out; its response is read later."""
    cookie = browser.jar.sent_to(f"http://{LOOPBACK}:{browser.port}/")
    connection.request("GET", "/oauth2/sign_out", headers={"Cookie": cookie})


def log_out(browser: Browser, connection: http.client.HTTPConnection) -> None:
    """Send a logout token of the provider; its response is read later."""
    token = browser.provider.idp.logout_token("alice")
    connection.request(
        "POST",
        "/oauth2/backchannel-logout",
        body=urlencode({"logout_token": token}),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )


if __name__ == "__main__":
    sys.exit(main())
