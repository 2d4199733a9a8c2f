"""Running instances of authproxy and oauth2-proxy that share sessions."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from support import workers
from support.http import Client, Cookies, Reply
from support.ports import LOOPBACK
from support.processes import Process

REFRESH = 5.0  # seconds; longer than the checks before a refresh take
PARALLEL = 20  # checks
# Options of each session backend.
BACKENDS: dict[str, dict[str, Any]] = {
    "cookie": {},
    "cookie-redis": {"shared_state": "redis"},
    "cookie-revocable": {"shared_state": "redis", "session_revocation": True},
    "cookie-file": {"session_revocation": True},
    "redis": {"session_store_type": "redis"},
    "redis-oauth2-proxy": {
        "session_store_type": "redis",
        "cookie_format": "oauth2-proxy",
    },
    "sqlite": {"session_store_type": "sqlite"},
}


class Instance:
    """A running authproxy or oauth2-proxy, reached at its port."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.url = self.origin = f"http://{LOOPBACK}:{port}"
        self.host = f"{LOOPBACK}:{port}"
        self.process = process

    def get(self, path: str, cookies: Cookies) -> Reply:
        """GET *path* with *cookies*, which take those of the response."""
        return Client(cookies=cookies).get(self.url + path)

    def check(self, cookies: Cookies) -> int:
        """The status of an auth check."""
        return self.get("/oauth2/auth", cookies).status

    def check_each(self, *jars: Cookies) -> set[int]:
        """Return the statuses of auth checks at all workers; the jars do not change."""
        fields = [jar.sent_to(f"{self.origin}/oauth2/auth") for jar in jars]
        return workers.statuses(self.process, self.port, *fields, host=self.host)


def copy_of(cookies: Cookies) -> Cookies:
    """Return another jar with the same cookies."""
    copy = Cookies()
    copy._values = dict(cookies._values)
    return copy


def check_together(
    instances: list[Instance], cookies: Cookies
) -> list[tuple[Reply, Cookies]]:
    """Send `PARALLEL` checks at once with the same cookies; return each with its jar."""

    def check(number: int) -> tuple[Reply, Cookies]:
        jar = copy_of(cookies)
        return instances[number % len(instances)].get("/oauth2/auth", jar), jar

    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(check, range(PARALLEL)))
