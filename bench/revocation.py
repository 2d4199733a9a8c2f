#!/usr/bin/env python3
"""How soon a session that ends at one instance has ended at another one.

    python bench/revocation.py [--count N] [--workers N] [--only NAME] [--output FILE]

Two instances of authproxy share Redis (when redis-server is installed) or a SQLite file,
for whole sessions or for the list of ended ones beside sessions in cookies. A session is
made at the first one and shown to the other until it stands in its cache. Then it ends at
the first, by a sign-out or by a logout token of the provider, while the other is asked
again and again. The time runs from the moment the request that ends the session is sent,
so its own duration is in it, until the answer 401 has come; each look is a request of its
own over a real connection. Every other answer than 202 and 401 ends the run. A median
above `SOON` fails it.
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

SOON = 100.0  # milliseconds
LIMIT = 5.0  # seconds for one session to end; more is a failure
LOOKS = 3  # requests after which a session stands in a cache
Options = dict[str, Any]
End = Callable[[Browser, http.client.HTTPConnection], None]


def main() -> int:
    """Measure and print a table; JSON on request."""
    parser = argparse.ArgumentParser(prog="bench/revocation.py")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        for place, given in places(stack, Path(name)).items():
            if options.only in place:
                folder = Path(name) / place.replace(" ", "-")
                rows += measured(folder, place, given, options)
    for row in rows:
        print(
            f"{row['place']:16} {row['how']:13} {row['count']:4} times  "
            f"median {row['median_ms']:6.1f} ms  p99 {row['p99_ms']:6.1f} ms  "
            f"longest {row['longest_ms']:6.1f} ms"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    late = [row["place"] for row in rows if row["median_ms"] > SOON]
    if late:
        print(f"later than {SOON:g} ms: {', '.join(late)}")
    return 1 if late else 0


def places(stack: contextlib.ExitStack, folder: Path) -> dict[str, Options]:
    """Options of each way to share; those in Redis when it is installed."""
    listed = {"session_revocation": True}
    in_file = {"sqlite_path": str(folder / "sessions.db")}
    list_in_file = {"sqlite_path": str(folder / "ended.db")}
    found: dict[str, Options] = {
        "SQLite": {"session_store_type": "sqlite", **in_file},
        "cookies, SQLite": {**listed, **list_in_file},
    }
    if find("redis-server") is None:
        print("redis-server is not installed", file=sys.stderr)
        return found
    url = {"redis_connection_url": stack.enter_context(RedisServer(folder)).url}
    return {
        "Redis": {"session_store_type": "redis", **url},
        "cookies, Redis": {**listed, "shared_state": "redis", **url},
        **found,
    }


def measured(
    folder: Path, place: str, given: Options, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row for each way in which a session ends."""
    with Provider(2) as provider, contextlib.ExitStack() as stack:
        for number in range(2):
            start(stack, folder, provider, number, given, options.workers)
        rows = []
        for how, end in (("sign-out", sign_out), ("logout token", log_out)):
            times = sorted(delay(provider, end) * 1000 for _ in range(options.count))
            rows.append(
                {
                    "place": place,
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
    given: Options,
    workers: int,
) -> None:
    """One instance, ready."""
    own = folder / str(number)
    own.mkdir(parents=True)
    program = stack.enter_context(
        Program(
            own,
            **provider.options(number),
            **given,
            backchannel_logout=True,
            workers=workers,
        )
    )
    program.wait_until(lambda: program.log().count("[provider_ready]") >= workers, 30.0)
    browser = provider.browser(number)
    program.wait_until(lambda: browser.get("/ready").status == 200, 30.0)


def delay(provider: Provider, end: End) -> float:
    """Seconds until the second instance knows of one session's end."""
    browser = provider.browser(0)
    browser.log_in()
    cookie = {"Cookie": browser.jar.sent_to(f"http://{LOOPBACK}:{browser.port}/")}
    here, there = (
        http.client.HTTPConnection(LOOPBACK, port, timeout=LIMIT)
        for port in provider.ports
    )
    with contextlib.closing(here), contextlib.closing(there):
        here.connect()
        for _ in range(LOOKS):
            expect(202, status(there, cookie))
        began = time.perf_counter()
        end(browser, here)
        while (seen := status(there, cookie)) != 401:
            expect(202, seen)
            if time.perf_counter() - began > LIMIT:
                raise SystemExit(f"the session goes on after {LIMIT:g} s")
        took = time.perf_counter() - began
        answer = here.getresponse()
        answer.read()
        if answer.status not in (200, 302):
            raise SystemExit(f"ending the session got {answer.status}")
    return took


def status(connection: http.client.HTTPConnection, cookie: dict[str, str]) -> int:
    """The status of one auth check."""
    connection.request("GET", "/oauth2/auth", headers=cookie)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def expect(wanted: int, got: int) -> None:
    """End the run when an answer is another one."""
    if got != wanted:
        raise SystemExit(f"expected {wanted}, got {got}")


def sign_out(browser: Browser, connection: http.client.HTTPConnection) -> None:
    """Send the browser's sign-out; its answer is read later."""
    cookie = browser.jar.sent_to(f"http://{LOOPBACK}:{browser.port}/")
    connection.request("GET", "/oauth2/sign_out", headers={"Cookie": cookie})


def log_out(browser: Browser, connection: http.client.HTTPConnection) -> None:
    """Send the provider's logout token; its answer is read later."""
    token = browser.provider.idp.logout_token("alice")
    connection.request(
        "POST",
        "/oauth2/backchannel-logout",
        body=urlencode({"logout_token": token}),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )


if __name__ == "__main__":
    sys.exit(main())
