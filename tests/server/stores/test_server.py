"""Whole servers on stores: outages, restarts, several workers and instances."""

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
    """The provider of up to two servers."""
    with Provider(2) as found:
        yield found


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that runs."""
    if find("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    with RedisServer(tmp_path) as server:
        yield server


def in_redis(server: RedisServer) -> dict[str, Any]:
    """Options for sessions in Redis."""
    return {"session_store_type": "redis", "redis_connection_url": server.url}


def started(
    folder: Path, provider: Provider, number: int = 0, **options: Any
) -> Program:
    """A server that is ready."""
    place = folder / f"server{number}"
    place.mkdir(exist_ok=True)
    program = Program(place, **provider.options(number), **options)
    browser = provider.browser(number)

    def ready() -> bool:
        with contextlib.suppress(OSError):
            return browser.get("/ready").status == 200
        return False

    program.wait_until(ready)
    return program


@pytest.mark.parametrize("how", ["frozen", "killed"])
def test_redis_is_away(
    tmp_path: Path, provider: Provider, redis: RedisServer, how: str
) -> None:
    """503 with Retry-After, no cookie cleared, not ready; back: as before."""
    options = {**in_redis(redis), "metrics_address": f"{LOOPBACK}:0"}
    with started(tmp_path, provider, workers=2, **options) as program:
        browser = provider.browser()
        browser.log_in()
        assert browser.check() == 202
        assert failures(program) == 0
        if how == "frozen":
            with redis.frozen():
                judge_outage(program, browser)
        else:
            dump = tmp_path / "dump.rdb"
            assert "OK" in redis.ask("SAVE")
            assert dump.exists()
            redis.kill()
            judge_outage(program, browser)
            redis.start()
        wait_for(lambda: browser.check() == 202, "the session")
        assert failures(program) > 0  # metrics have counted it
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200}, "all ready"
        )
        assert browser.check() == 202
        for text in ("unavailable: ", "available again"):
            wait_for(lambda t=text: f"session store {t}" in program.log(), text)  # type: ignore[misc]


def failures(program: Program) -> float:
    """How many operations of the store have failed, by the metrics."""
    found = re.search(r"metrics on (http://\S+)", program.log())
    assert found
    text = Client().get(f"{found[1]}/metrics").text
    lines = re.findall(r"authproxy_store_operations_total{(.*)} (\S+)", text)
    return sum(float(count) for labels, count in lines if 'outcome="ok"' not in labels)


def judge_outage(program: Program, browser: Browser) -> None:
    """What a browser sees of it."""
    wait_for(
        lambda: browser.check_each_worker(program, "/ready") == {503},
        "the failure of all workers",
    )
    assert b"session store" in browser.get("/ready").body
    before = browser.jar.named("_oauth2_proxy")
    for target in ("/oauth2/auth", "/", "/oauth2/userinfo"):
        answer = browser.get(target)
        assert (target, answer.status) == (target, 503)
        assert answer.headers["retry-after"]
        assert answer.cookies == []
    assert browser.jar.named("_oauth2_proxy") == before
    assert browser.get("/ping").status == 200
    stranger = browser.provider.browser()
    assert stranger.check() == 401  # who has no session needs no store


def test_start_without_redis(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    """It starts, is not ready, and is as soon as Redis is there."""
    redis.stop()
    browser = provider.browser()
    with Program(tmp_path, **provider.options(), **in_redis(redis)) as program:
        program.started().wait_until(
            lambda: b"session store" in browser.get("/ready").body
        )
        redis.start()
        wait_for(lambda: browser.get("/ready").status == 200, "being ready")
        browser.log_in()
        assert browser.check() == 202


@pytest.mark.parametrize("workers", [1, 2])
def test_stop_while_redis_is_away(
    tmp_path: Path, provider: Provider, redis: RedisServer, workers: int
) -> None:
    """Stopping does not wait for an answer that never comes."""
    with started(tmp_path, provider, workers=workers, **in_redis(redis)) as program:
        browser = provider.browser()
        browser.log_in()
        with redis.frozen():
            assert browser.check() in (202, 503)
            began = time.monotonic()
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
            assert time.monotonic() - began < 6.0


def test_sign_out_elsewhere(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    """ST11: two instances on one Redis; signed out at one is out at the other."""
    options = in_redis(redis)
    with (
        started(tmp_path, provider, 0, **options),
        started(tmp_path, provider, 1, **options),
    ):
        other = provider.ports[1]
        delays = []
        for _ in range(10):
            browser = provider.browser()
            browser.log_in()
            for _ in range(3):
                assert browser.check(port=other) == 202  # in its cache by now
            kept = provider.browser()
            kept.jar = browser.jar
            copy = dict(browser.jar._values)
            browser.get("/oauth2/sign_out")
            signed_out = time.monotonic()
            browser.jar._values = copy
            wait_for(lambda b=browser: b.check(port=other) == 401, "the end")  # type: ignore[misc]
            delays.append(time.monotonic() - signed_out)
        print(f"median {statistics.median(delays) * 1000:.1f} ms")
        assert statistics.median(delays) < 0.1


def test_redis_that_may_not_tell(
    tmp_path: Path, provider: Provider, redis: RedisServer
) -> None:
    """Without CLIENT TRACKING every session is looked up, and the log says why."""
    redis.ask("ACL", "SETUSER", "default", "-client")
    with started(tmp_path, provider, **in_redis(redis)) as program:
        browser = provider.browser()
        browser.log_in()
        assert browser.check() == 202
        key = redis.ask("KEYS", "_oauth2_proxy-*").strip()
        redis.ask("DEL", key)
        assert browser.check() == 401
        wait_for(lambda: "no change notifications" in program.log(), "the reason")
        assert "NOPERM" in program.log()
        redis.ask("ACL", "SETUSER", "default", "+client")
        wait_for(
            lambda: "notifications from the session store restored" in program.log(),
            "the news",
        )
        assert "unavailable" not in program.log()


def in_sentinels(setup: SentinelSetup) -> dict[str, Any]:
    """Options for sessions at the master that sentinels name."""
    return {
        "session_store_type": "redis",
        "redis_use_sentinel": True,
        "redis_sentinel_master_name": MASTER_NAME,
        "redis_sentinel_connection_urls": [setup.sentinel.url],
        "redis_sentinel_password": SENTINEL_PASSWORD,
        "redis_password": PASSWORD,
    }


def in_cluster(setup: ClusterSetup) -> dict[str, Any]:
    """Options for sessions in a cluster."""
    return {
        "session_store_type": "redis",
        "redis_use_cluster": True,
        "redis_cluster_connection_urls": [one.url for one in setup.servers[:3]],
    }


@pytest.mark.skipif(find("redis-server") is None, reason="no redis-server")
@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_failover_under_load(tmp_path: Path, provider: Provider, kind: str) -> None:
    """A master dies: 503 for a while, and nobody is logged out."""
    with contextlib.ExitStack() as stack:
        if kind == "sentinel":
            sentinels = stack.enter_context(SentinelSetup(tmp_path))
            first, replica = sentinels.first, sentinels.second
            options = in_sentinels(sentinels)
        else:
            cluster = stack.enter_context(ClusterSetup(tmp_path))
            first, replica = cluster.servers[0], cluster.servers[3]
            options = in_cluster(cluster)
        stack.enter_context(started(tmp_path, provider, workers=2, **options))
        browsers = [provider.browser() for _ in range(12)]
        for browser in browsers:
            browser.log_in()
        wait_for_copy(first, replica)
        first.kill()
        killed = time.monotonic()
        seen: list[int] = []
        good_since = killed
        while time.monotonic() - good_since < 1.0:
            for browser in browsers:
                seen.append(browser.check())
                if seen[-1] != 202:
                    good_since = time.monotonic()
            assert time.monotonic() - killed < 20.0
        print(f"{kind}: the last 503 after {good_since - killed:.2f} s")
        assert set(seen) <= {202, 503}
        assert [browser.check() for browser in browsers] == [202] * len(browsers)
        fresh = provider.browser()
        fresh.log_in()
        assert fresh.check() == 202


def sqlite_options(folder: Path) -> dict[str, Any]:
    """Options for sessions in a file."""
    return {
        "session_store_type": "sqlite",
        "sqlite_path": str(folder / "sessions.db"),
    }


def test_sessions_in_a_file(tmp_path: Path, provider: Provider) -> None:
    """All workers know them, they outlive a restart, and signing out ends them."""
    options = {**sqlite_options(tmp_path), "workers": 2}
    browser = provider.browser()
    with started(tmp_path, provider, **options) as program:
        browser.log_in()
        assert browser.check_each_worker(program) == {202}
    with started(tmp_path, provider, **options) as program:
        assert browser.check_each_worker(program) == {202}
        copy = dict(browser.jar._values)
        browser.get("/oauth2/sign_out")
        browser.jar._values = copy
        wait_for(lambda: browser.check_each_worker(program) == {401}, "the end")


def test_file_is_locked(tmp_path: Path, provider: Provider) -> None:
    """Somebody keeps it locked: sessions go on, logins are 503; back: as before."""
    options = sqlite_options(tmp_path)
    with started(tmp_path, provider, workers=2, **options) as program:
        browser, late = provider.browser(), provider.browser()
        browser.log_in()
        begun = late.get("/oauth2/start?rd=/")
        intruder = sqlite3.connect(options["sqlite_path"], isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        back = provider.idp.log_in(begun.headers["location"], "bob")
        answer = late.get(back.removeprefix(f"http://127.0.0.1:{late.port}"))
        assert answer.status == 503
        assert browser.check_each_worker(program) == {202}
        refused = browser.get("/oauth2/sign_out")
        for one in (answer, refused):
            assert (one.status, bool(one.headers["retry-after"])) == (503, True)
        intruder.execute("COMMIT")
        intruder.close()
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200},
            "being ready",
        )
        assert browser.check() == 202
        late.log_in("bob")
        assert late.check() == 202


def test_disk_is_full(tmp_path: Path, provider: Provider) -> None:
    """No file may grow: sessions go on, logins are 503; with room again: as before."""
    options = sqlite_options(tmp_path)
    with started(tmp_path, provider, workers=2, **options) as program:
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
        seen = set()
        for _ in range(60):  # until the room of what is there already is used up
            begun = late.get("/oauth2/start?rd=/")
            back = provider.idp.log_in(begun.headers["location"], "bob")
            answer = late.get(back.removeprefix(f"http://{LOOPBACK}:{late.port}"))
            seen.add(answer.status)
            if answer.status == 503:
                break
            late.jar = type(late.jar)()
        assert seen <= {302, 503}
        assert answer.status == 503
        assert answer.headers["retry-after"]
        assert not late.jar.named("_oauth2_proxy")
        assert browser.check_each_worker(program) == {202}
        assert browser.jar.named("_oauth2_proxy")
        for pid, before in limits.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        wait_for(
            lambda: browser.check_each_worker(program, "/ready") == {200},
            "being ready",
        )
        assert browser.check_each_worker(program) == {202}
        late.log_in("bob")
        assert late.check() == 202


@pytest.mark.parametrize("store", ["cookie", "sqlite", "redis"])
def test_refresh_over_all_workers(
    tmp_path: Path, provider: Provider, store: str, request: pytest.FixtureRequest
) -> None:
    """20 requests at once with one stale session: one token request, 20 successes."""
    options: dict[str, Any] = {"workers": 2, "cookie_refresh": "2s"}
    if store == "sqlite":
        options |= sqlite_options(tmp_path)
    elif store == "redis":
        options |= in_redis(request.getfixturevalue("redis"))
    with started(tmp_path, provider, **options):
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
