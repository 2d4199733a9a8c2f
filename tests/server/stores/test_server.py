"""Servers with a store: outages, restarts, several workers and instances."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import sqlite3
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.http import Client
from support.login import Browser, Provider
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program
from support.programs import find
from support.redis import (
    MASTER_NAME,
    PASSWORD,
    SENTINEL_PASSWORD,
    ClusterSetup,
    RedisServer,
    SentinelSetup,
    wait_for_copy,
)


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The identity provider of up to two servers."""
    with Provider(2) as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis server."""
    if find("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    with RedisServer(tmp_path) as server:
        yield server


def in_redis(server: RedisServer) -> dict[str, Any]:
    """Return options for sessions in Redis."""
    return {"session_store_type": "redis", "redis_connection_url": server.url}


def start_server(
    directory: Path, provider: Provider, number: int = 0, **options: Any
) -> Program:
    """Start a server and wait until it is ready."""
    subdirectory = directory / f"server{number}"
    subdirectory.mkdir(exist_ok=True)
    program = Program(subdirectory, **provider.options(number), **options)
    browser = provider.browser(number)

    def is_ready() -> bool:
        with contextlib.suppress(OSError):
            return browser.get("/ready").status == 200
        return False

    program.wait_until(is_ready)
    return program


@pytest.mark.parametrize("how", ["suspended", "killed"])
def test_redis_outage_returns_503_until_recovery(
    tmp_path: Path, provider: Provider, redis: RedisServer, how: str
) -> None:
    """503 with Retry-After, no cookie is cleared, and /ready fails."""
    options = {**in_redis(redis), "metrics_address": f"{LOOPBACK}:0"}
    with start_server(tmp_path, provider, workers=2, **options) as program:
        browser = provider.browser()
        browser.log_in()
        assert browser.check() == 202
        assert failed_operations(program) == 0
        if how == "suspended":
            with redis.frozen():
                check_outage(program, browser)
        else:
            dump = tmp_path / "dump.rdb"
            assert "OK" in redis.ask("SAVE")
            assert dump.exists()
            redis.kill()
            check_outage(program, browser)
            redis.start()
        wait_for(lambda: browser.check() == 202, "the session")
        assert failed_operations(program) > 0
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200}, "all ready"
        )
        assert browser.check() == 202
        for text in ("unavailable: ", "available again"):
            wait_for(lambda t=text: f"session store {t}" in program.log(), text)  # type: ignore[misc]


def failed_operations(program: Program) -> float:
    """Return the number of failed store operations in the metrics."""
    match = re.search(r"metrics on (http://\S+)", program.log())
    assert match
    text = Client().get(f"{match[1]}/metrics").text
    lines = re.findall(r"authproxy_store_operations_total{(.*)} (\S+)", text)
    return sum(float(count) for labels, count in lines if 'outcome="ok"' not in labels)


def check_outage(program: Program, browser: Browser) -> None:
    """Check the responses during an outage of the store."""
    wait_for(
        lambda: browser.check_each_worker(program, "/ready") == {503},
        "the failure of all workers",
    )
    # A worker that has not tried the store says that another one is not ready.
    wait_for(lambda: b"session store" in browser.get("/ready").body, "the reason")
    before = browser.jar.named("_oauth2_proxy")
    for target in ("/oauth2/auth", "/", "/oauth2/userinfo"):
        response = browser.get(target)
        assert (target, response.status) == (target, 503)
        assert response.headers["retry-after"]
        assert response.cookies == []
    assert browser.jar.named("_oauth2_proxy") == before
    assert browser.get("/ping").status == 200
    other = browser.provider.browser()
    assert other.check() == 401  # no session, so the store is not needed


def test_start_without_redis_ready_later(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    redis.stop()
    browser = provider.browser()
    with Program(tmp_path, **provider.options(), **in_redis(redis)) as program:
        program.started().wait_until(
            lambda: b"session store" in browser.get("/ready").body
        )
        redis.start()
        wait_for(lambda: browser.get("/ready").status == 200, "readiness")
        browser.log_in()
        assert browser.check() == 202


@pytest.mark.parametrize("workers", [1, 2])
def test_shutdown_during_redis_outage(
    tmp_path: Path, provider: Provider, redis: RedisServer, workers: int
) -> None:
    """The shutdown does not wait for a reply of Redis."""
    with start_server(
        tmp_path, provider, workers=workers, **in_redis(redis)
    ) as program:
        browser = provider.browser()
        browser.log_in()
        with redis.frozen():
            assert browser.check() in (202, 503)
            began = time.monotonic()
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            assert time.monotonic() - began < 6.0


def test_st11_sign_out_ends_session_at_other_instance(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    """Two instances share a Redis."""
    options = in_redis(redis)
    with (
        start_server(tmp_path, provider, 0, **options),
        start_server(tmp_path, provider, 1, **options),
    ):
        other = provider.ports[1]
        delays = []
        for _ in range(10):
            browser = provider.browser()
            browser.log_in()
            for _ in range(3):
                assert browser.check(port=other) == 202  # now in its cache
            copy = dict(browser.jar._values)
            browser.get("/oauth2/sign_out")
            signed_out = time.monotonic()
            browser.jar._values = copy
            wait_for(
                lambda b=browser: b.check(port=other) == 401, "the end of the session"
            )  # type: ignore[misc]
            delays.append(time.monotonic() - signed_out)
        print(f"median {statistics.median(delays) * 1000:.1f} ms")
        assert statistics.median(delays) < 1.0  # bench/revocation.py measures it


def test_redis_without_tracking_permission_read_for_every_check(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    """The log has the reason."""
    redis.ask("ACL", "SETUSER", "default", "-client")
    with start_server(tmp_path, provider, **in_redis(redis)) as program:
        browser = provider.browser()
        browser.log_in()
        assert browser.check() == 202
        key = redis.ask("KEYS", f"_oauth2_proxy-{'[0-9a-f]' * 32}").strip()
        redis.ask("DEL", key)
        assert browser.check() == 401
        wait_for(lambda: "no change notifications" in program.log(), "the reason")
        assert "NOPERM" in program.log()
        redis.ask("ACL", "SETUSER", "default", "+client")
        wait_for(
            lambda: "notifications from the session store restored" in program.log(),
            "notifications",
        )
        assert "unavailable" not in program.log()


# Commands of oauth2-proxy 7.15.6; the last ones release and extend its locks.
VALUE_COMMANDS = ("+get", "+set", "+del", "+ping", "+auth", "+hello", "+select")
SCRIPT_COMMANDS = ("+eval", "+evalsha", "+pexpire", "+pttl", "+exists")


@pytest.mark.parametrize(
    "commands",
    [("+@all",), (*VALUE_COMMANDS, *SCRIPT_COMMANDS), VALUE_COMMANDS],
    ids=["all-commands", "commands-of-oauth2-proxy", "values-only"],
)
def test_redis_user_restricted_as_for_oauth2_proxy(
    tmp_path: Path, provider: Provider, redis: RedisServer, commands: tuple[str, ...]
) -> None:
    """Logins work with fewer features; the log names them at start."""
    rules = ("on", ">pw", "~_oauth2_proxy-*", "-@all", *commands)
    assert "OK" in redis.ask("ACL", "SETUSER", "app", *rules)
    options = {
        **in_redis(redis),
        "redis_connection_url": f"{redis.url}?client_name=proxy",
        "redis_username": "app",
        "redis_password": "pw",
        "cookie_refresh": "1s",
        "workers": 2,
    }
    with start_server(tmp_path, provider, **options) as program:
        browser = provider.browser()
        browser.log_in()
        assert browser.check_each_worker(program) == {202}
        time.sleep(1.1)
        before = provider.idp.count("token")
        assert browser.check() == 202
        assert provider.idp.count("token") == before + 1
        assert browser.check_each_worker(program) == {202}
        assert browser.check_each_worker(program, "/ready") == {200}
        copy = provider.browser()
        copy.jar._values = dict(browser.jar._values)
        assert browser.get("/oauth2/sign_out").status == 302
        assert copy.check_each_worker(program) == {401}
        if commands == ("+@all",):
            assert "limited permissions" not in program.log()
        else:
            wait_for(lambda: "limited permissions" in program.log(), "the limitation")
            assert "sessions are not indexed" in program.log()
            scripts = "+eval" in commands
            assert ("lost its lock" in program.log()) == (not scripts)
            assert "OK" in redis.ask("ACL", "SETUSER", "app", "+@all")
            browser.log_in()
            browser.log_in()
            wait_for(lambda: "full permissions" in program.log(), "permissions")
        assert "unavailable" not in program.log()


def in_sentinels(setup: SentinelSetup) -> dict[str, Any]:
    """Return options for sessions at the master that sentinels name."""
    return {
        "session_store_type": "redis",
        "redis_use_sentinel": True,
        "redis_sentinel_master_name": MASTER_NAME,
        "redis_sentinel_connection_urls": [setup.sentinel.url],
        "redis_sentinel_password": SENTINEL_PASSWORD,
        "redis_password": PASSWORD,
    }


def in_cluster(setup: ClusterSetup) -> dict[str, Any]:
    """Return options for sessions in a cluster."""
    return {
        "session_store_type": "redis",
        "redis_use_cluster": True,
        "redis_cluster_connection_urls": [one.url for one in setup.servers[:3]],
    }


@pytest.mark.skipif(find("redis-server") is None, reason="no redis-server")
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_failover_under_load_keeps_sessions(
    tmp_path: Path, provider: Provider, kind: str
) -> None:
    """The master is killed: requests get 503 for a while, no session ends."""
    with contextlib.ExitStack() as stack:
        if kind == "sentinel":
            sentinels = stack.enter_context(SentinelSetup(tmp_path))
            first, replica = sentinels.first, sentinels.second
            options = in_sentinels(sentinels)
        else:
            cluster = stack.enter_context(ClusterSetup(tmp_path))
            first, replica = cluster.servers[0], cluster.servers[3]
            options = in_cluster(cluster)
        stack.enter_context(start_server(tmp_path, provider, workers=2, **options))
        browsers = [provider.browser() for _ in range(12)]
        for browser in browsers:
            browser.log_in()
        wait_for_copy(first, replica)
        first.kill()
        killed = time.monotonic()
        statuses: list[int] = []
        last_failure = killed
        while time.monotonic() - last_failure < 1.0:
            for browser in browsers:
                statuses.append(browser.check())
                if statuses[-1] != 202:
                    last_failure = time.monotonic()
            assert time.monotonic() - killed < 20.0
        print(f"{kind}: the last 503 after {last_failure - killed:.2f} s")
        assert set(statuses) <= {202, 503}
        assert [browser.check() for browser in browsers] == [202] * len(browsers)
        fresh = provider.browser()
        fresh.log_in()
        assert fresh.check() == 202


def sqlite_options(directory: Path) -> dict[str, Any]:
    """Return options for sessions in a SQLite file."""
    return {
        "session_store_type": "sqlite",
        "sqlite_path": str(directory / "sessions.db"),
    }


def test_sqlite_sessions_shared_by_workers_and_kept_after_restart(
    tmp_path: Path, provider: Provider
) -> None:
    """Signing out ends them for all workers."""
    options = {**sqlite_options(tmp_path), "workers": 2}
    browser = provider.browser()
    with start_server(tmp_path, provider, **options) as program:
        browser.log_in()
        assert browser.check_each_worker(program) == {202}
    with start_server(tmp_path, provider, **options) as program:
        assert browser.check_each_worker(program) == {202}
        copy = dict(browser.jar._values)
        browser.get("/oauth2/sign_out")
        browser.jar._values = copy
        wait_for(lambda: browser.check_each_worker(program) == {401}, "the end")


def test_locked_sqlite_file_fails_logins_but_not_checks(
    tmp_path: Path, provider: Provider
) -> None:
    options = sqlite_options(tmp_path)
    with start_server(tmp_path, provider, workers=2, **options) as program:
        browser, late = provider.browser(), provider.browser()
        browser.log_in()
        started = late.get("/oauth2/start?rd=/")
        intruder = sqlite3.connect(options["sqlite_path"], isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        callback = provider.idp.log_in(started.headers["location"], "bob")
        response = late.get(callback.removeprefix(f"http://127.0.0.1:{late.port}"))
        assert response.status == 503
        assert browser.check_each_worker(program) == {202}
        sign_out = browser.get("/oauth2/sign_out")
        for one in (response, sign_out):
            assert (one.status, bool(one.headers["retry-after"])) == (503, True)
        intruder.execute("COMMIT")
        intruder.close()
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200},
            "readiness",
        )
        assert browser.check() == 202
        late.log_in("bob")
        assert late.check() == 202


def test_full_disk_fails_logins_but_not_checks(
    tmp_path: Path, provider: Provider
) -> None:
    options = sqlite_options(tmp_path)
    with start_server(tmp_path, provider, workers=2, **options) as program:
        browser, late = provider.browser(), provider.browser()
        browser.log_in()
        assert browser.check_each_worker(program) == {202}
        files = [Path(options["sqlite_path"] + end) for end in ("", "-wal")]
        size = max(file.stat().st_size for file in files)
        limits = {
            pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in program.workers
        }
        for pid, (_, hard) in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
        statuses = set()
        for _ in range(60):  # until the free pages of the file are used
            started = late.get("/oauth2/start?rd=/")
            callback = provider.idp.log_in(started.headers["location"], "bob")
            response = late.get(callback.removeprefix(f"http://{LOOPBACK}:{late.port}"))
            statuses.add(response.status)
            if response.status == 503:
                break
            late.jar = type(late.jar)()
        assert statuses <= {302, 503}
        assert response.status == 503
        assert response.headers["retry-after"]
        assert not late.jar.named("_oauth2_proxy")
        assert browser.check_each_worker(program) == {202}
        assert browser.jar.named("_oauth2_proxy")
        for pid, before in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200},
            "readiness",
        )
        assert browser.check_each_worker(program) == {202}
        late.log_in("bob")
        assert late.check() == 202


@pytest.mark.parametrize("store", ["cookie", "sqlite", "redis"])
def test_concurrent_refresh_over_workers_makes_one_token_request(
    tmp_path: Path, provider: Provider, store: str, request: pytest.FixtureRequest
) -> None:
    """20 concurrent requests with a stale session all succeed."""
    options: dict[str, Any] = {"workers": 2, "cookie_refresh": "2s"}
    if store == "sqlite":
        options |= sqlite_options(tmp_path)
    elif store == "redis":
        options |= in_redis(request.getfixturevalue("redis"))
    with start_server(tmp_path, provider, **options):
        browser = provider.browser()
        browser.log_in()
        assert browser.check() == 202
        time.sleep(2.1)
        before = provider.idp.count("token")
        with ThreadPoolExecutor(20) as pool:
            jar = dict(browser.jar._values)

            def one(_: int) -> int:
                copy = provider.browser()
                copy.jar._values = dict(jar)
                return copy.check()

            assert list(pool.map(one, range(20))) == [202] * 20
        assert provider.idp.count("token") - before == 1
