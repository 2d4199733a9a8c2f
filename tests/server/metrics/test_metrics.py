"""Metrics: what is counted, how it is written, and sums over workers that come and go."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from authproxy.metrics import process
from authproxy.metrics.exposition import render_per_worker, render_totals
from authproxy.metrics.families import FAMILIES, REQUESTS
from authproxy.metrics.metrics import Metrics
from authproxy.metrics.process import process_lines
from authproxy.metrics.shared_memory import LAYOUT, SharedMetrics
from authproxy_core.messages import Event
from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.server import Wire

Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Each sample of an exposition by its name and labels, as Prometheus reads it."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


def scrape(port: int, target: str = "/metrics", method: str = "GET") -> Samples:
    """What the endpoint says."""
    connection = HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request(method, target)
    answer = connection.getresponse()
    assert answer.status == 200
    kind = answer.headers["Content-Type"]
    assert kind == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    text = answer.read().decode()
    connection.close()
    return samples(text)


def ask(port: int, target: str, cookie: str = "", method: str = "GET") -> int:
    """The status of a request over a connection of its own."""
    connection = HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request(method, target, headers={"Cookie": cookie} if cookie else {})
    status = connection.getresponse().status
    connection.close()
    return status


def metrics_port(program: Program) -> int:
    """The port of the metrics endpoint."""
    program.wait_until(lambda: "metrics on" in program.log())
    match = re.search(r"metrics on https?://\S+:(\d+)", program.log())
    assert match
    return int(match[1])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Two workers with metrics."""
    with Program(tmp_path, workers=2, metrics_address=f"{LOOPBACK}:0") as program:
        yield program.started()


def started(shared: SharedMetrics, number: int) -> Metrics:
    """A worker's numbers."""
    metrics = Metrics(shared, number)
    metrics.worker_started()
    return metrics


# -- the numbers


def test_requests_by_status_and_method() -> None:
    shared = SharedMetrics(2)
    one, two = started(shared, 0), started(shared, 1)
    one.record_response(b"/a", b"GET", 202, 0.004)
    one.record_response(b"/a", b"PROPFIND", 202, 0.005)
    two.record_response(b"/a", b"GET", 401, 0.0051)
    two.record_response(b"/a", b"GET", 0, 99.0)
    found = samples(render_totals(shared.used_slots()))
    assert found["oauth2_proxy_requests_total{code=202}"] == 2
    assert found["oauth2_proxy_requests_total{code=401}"] == 1
    assert found["oauth2_proxy_requests_total{code=0}"] == 1
    name = "oauth2_proxy_response_duration_seconds"
    assert found[f"{name}_bucket{{le=0.005,method=get}}"] == 1
    assert found[f"{name}_bucket{{le=0.01,method=get}}"] == 2
    assert found[f"{name}_bucket{{le=10,method=get}}"] == 2
    assert found[f"{name}_bucket{{le=+Inf,method=get}}"] == 3
    assert found[f"{name}_count{{method=get}}"] == 3
    assert found[f"{name}_sum{{method=get}}"] == pytest.approx(99.0091)
    assert found[f"{name}_bucket{{le=0.005,method=unknown}}"] == 1
    assert found["authproxy_worker_requests_total{worker=0}"] == 2
    assert found["authproxy_worker_requests_total{worker=1}"] == 2


def test_health_checks_are_not_counted() -> None:
    shared = SharedMetrics()
    metrics = Metrics(shared, uncounted=frozenset({b"/ping"}))
    metrics.worker_started()
    for target in (b"/ping", b"/ping?x", b"/pings"):
        metrics.record_response(target, b"GET", 200, 0.0)
    metrics.record_response(b"/ping", b"GET", 403, 0.0, "unauthenticated", "no_session")
    assert (
        samples(render_totals(shared.used_slots()))[
            "oauth2_proxy_requests_total{code=200}"
        ]
        == 1
    )


def test_what_is_unknown_is_other() -> None:
    """No client, provider or later version can make new series."""
    shared = SharedMetrics()
    metrics = started(shared, 0)
    metrics.record_response(b"/", b"GET", 403, 0.0, "denied", "a\n\u2028")
    metrics.record_response(b"/", b"GET", 403, 0.0, "denied", "groups")
    metrics.count_event(Event("login_failed", reason="so\nnew"))
    metrics.count_event(Event("login_denied", reason="so new"))
    metrics.count_event(Event("so new"))
    metrics.record_fetch("so new", 0.1, 200)
    metrics.record_store_operation("so new", 0.1, "ok")
    metrics.count_event(Event("upstream_failed", reason="so new"))
    found = samples(render_totals(shared.used_slots()))
    for name in (
        "authproxy_decisions_total{reason=other,verdict=denied}",
        "authproxy_decisions_total{reason=groups,verdict=denied}",
        "authproxy_logins_total{reason=other,result=failure}",
        "authproxy_logins_total{reason=other,result=denied}",
        "authproxy_events_total{kind=other}",
        "authproxy_provider_requests_total{outcome=ok,purpose=other}",
        "authproxy_store_operations_total{operation=other,outcome=ok}",
        "authproxy_upstream_failures_total{reason=other}",
    ):
        assert found[name] == 1, name


def test_what_else_is_counted() -> None:
    shared = SharedMetrics()
    metrics = started(shared, 0)
    for kind in ("logged_in", "refreshed", "refresh_failed", "session_ended"):
        metrics.count_event(Event(kind, "alice", "keycloak"))
    metrics.count_event(Event("login_failed", reason="nonce"))
    for status in (200, 302, 400, 503, None):
        metrics.record_fetch("token", 0.02, status)
    metrics.record_store_operation("load", 0.0003, "ok")
    metrics.record_store_operation("load", 3.0, "error")
    metrics.record_upstream_response(0.3)
    metrics.count_reload("success")
    metrics.count_dropped_lines(7)
    metrics.count_cache_misses(5)
    metrics.count_cache_misses(6)
    metrics.count_cache_misses(2)  # a core that has just begun
    metrics.set_ready(True)
    metrics.request_started()
    metrics.connection_opened()
    metrics.connection_opened()
    metrics.connection_closed()
    found = samples(render_totals(shared.used_slots()))
    expected = {
        "authproxy_logins_total{reason=,result=success}": 1,
        "authproxy_logins_total{reason=nonce,result=failure}": 1,
        "authproxy_refreshes_total{result=refreshed}": 1,
        "authproxy_refreshes_total{result=failed}": 1,
        "authproxy_refreshes_total{result=ended}": 1,
        "authproxy_provider_requests_total{outcome=ok,purpose=token}": 2,
        "authproxy_provider_requests_total{outcome=refused,purpose=token}": 1,
        "authproxy_provider_requests_total{outcome=error,purpose=token}": 1,
        "authproxy_provider_requests_total{outcome=failed,purpose=token}": 1,
        "authproxy_provider_request_duration_seconds_count{purpose=token}": 5,
        "authproxy_store_operations_total{operation=load,outcome=ok}": 1,
        "authproxy_store_operations_total{operation=load,outcome=error}": 1,
        "authproxy_store_operation_duration_seconds_bucket{le=0.0005,operation=load}": 1,
        "authproxy_store_operation_duration_seconds_bucket{le=2.5,operation=load}": 1,
        "authproxy_store_operation_duration_seconds_count{operation=load}": 2,
        "authproxy_upstream_response_duration_seconds_bucket{le=0.5}": 1,
        "authproxy_upstream_response_duration_seconds_bucket{le=0.25}": 0,
        "authproxy_reloads_total{outcome=success}": 1,
        "authproxy_reloads_total{outcome=failure}": 0,
        "authproxy_log_lines_dropped_total": 7,
        "authproxy_session_cache_misses_total": 8,
        "authproxy_workers_ready": 1,
        "oauth2_proxy_requests_in_flight": 1,
        "authproxy_connections": 1,
        "authproxy_connections_total": 2,
    }
    assert {name: found[name] for name in expected} == expected


def test_a_slot_outlives_its_worker() -> None:
    """Counters go on, what was held is gone; a slot that nobody had is not shown."""
    shared = SharedMetrics(3)
    first = started(shared, 1)
    first.connection_opened()
    first.record_response(b"/", b"GET", 200, 0.1)
    shared.clear_gauges(1)
    assert samples(render_totals(shared.used_slots()))["authproxy_connections"] == 0
    second = started(shared, 1)
    second.record_response(b"/", b"GET", 200, 0.1)
    found = samples(render_totals(shared.used_slots()))
    assert found["oauth2_proxy_requests_total{code=200}"] == 2
    assert found["authproxy_worker_starts_total"] == 2
    assert list(shared.used_slots()) == [1]


def test_every_number_has_a_place_of_its_own() -> None:
    places = [at for family in FAMILIES for at in LAYOUT.offsets(family).values()]
    assert len(set(places)) == len(places) == sum(len(f.series) for f in FAMILIES)
    assert LAYOUT.offsets(REQUESTS)[("404",)] == 404
    assert max(places) < LAYOUT.size


def test_the_numbers_of_each_worker() -> None:
    shared = SharedMetrics(2)
    for number in range(2):
        started(shared, number).record_response(b"/", b"GET", 200 + number, 0.1)
    found = samples(render_per_worker(shared.used_slots()))
    assert found["oauth2_proxy_requests_total{code=200,worker=0}"] == 1
    assert found["oauth2_proxy_requests_total{code=201,worker=1}"] == 1
    assert "oauth2_proxy_requests_total{code=201,worker=0}" not in found


def test_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over those that live; nothing where there is no /proc."""
    mine, gone = os.getpid(), 2**22 + 1
    one = samples("\n".join(process_lines([mine, gone, 0])) + "\n")
    two = samples("\n".join(process_lines([mine, mine])) + "\n")
    assert one["process_open_fds"] > 2
    assert two["process_virtual_memory_bytes"] >= 2e6
    assert two["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert abs(one["process_start_time_seconds"] - time.time()) < 7200
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert process_lines([mine]) == []


# -- the endpoint


def test_sums_over_workers_that_die(program: Program) -> None:
    """Each worker tells the same, and a death loses no count."""
    port, numbers = program.port, metrics_port(program)
    cookie = session_cookie()
    for _ in range(10):
        assert ask(port, "/oauth2/auth", cookie) == 202
        assert ask(port, "/oauth2/auth") == 401
        assert ask(port, "/ping") == 200
    assert ask(port, "/", method="PROPFIND") == 403
    for _ in range(6):
        found = scrape(numbers)
        assert found["oauth2_proxy_requests_total{code=202}"] == 10
        assert found["oauth2_proxy_requests_total{code=401}"] == 10
        assert "oauth2_proxy_requests_total{code=200}" not in found
    name = "oauth2_proxy_response_duration_seconds_count"
    assert found[f"{name}{{method=get}}"] == 20
    assert found[f"{name}{{method=unknown}}"] == 1
    allowed = "authproxy_decisions_total{reason=session,verdict=allowed}"
    nobody = "authproxy_decisions_total{reason=no_session,verdict=unauthenticated}"
    assert (found[allowed], found[nobody]) == (10, 11)
    each = [found[f"authproxy_worker_requests_total{{worker={n}}}"] for n in (0, 1)]
    assert sum(each) == 21
    wait_for(
        lambda: 1 <= scrape(numbers)["authproxy_session_cache_misses_total"] <= 4,
        "the sweep",
    )
    assert found["promhttp_metric_handler_requests_total{code=200}"] == 5
    assert found["process_resident_memory_bytes"] > 10e6
    assert found["process_open_fds"] > 5
    victim = program.workers[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in program.workers, "the end of the worker")
    wait_for(lambda: len(program.workers) == 2, "a new worker")
    wait_for(lambda: scrape(numbers)["authproxy_worker_starts_total"] == 3, "its start")
    found = scrape(numbers)
    assert found["oauth2_proxy_requests_total{code=202}"] == 10
    assert scrape(numbers, "/any/path?by=worker", "POST").keys() >= {
        "authproxy_worker_starts_total{worker=0}",
        "authproxy_worker_starts_total{worker=1}",
    }


def test_scrapes_are_not_logged_and_hold_no_connection_of_clients(
    program: Program,
) -> None:
    numbers = metrics_port(program)
    with Wire(numbers) as wire:
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"authproxy_connections 0\n" in wire.answer().body
        wire.send(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer(head_only=True).status == 200
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "/metrics" not in program.log()


def test_over_tls(tmp_path: Path) -> None:
    cert = make_certificate(tmp_path, LOOPBACK)
    with Program(
        tmp_path,
        metrics_secure_address=f"{LOOPBACK}:0",
        metrics_tls_cert_file=str(cert.cert_file),
        metrics_tls_key_file=str(cert.key_file),
    ) as program:
        with Wire(metrics_port(program)) as wire:
            context = ssl.create_default_context(cafile=cert.cert_file)
            wire.socket = context.wrap_socket(wire.socket, server_hostname=LOOPBACK)
            wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = wire.answer()
        assert "authproxy_build_info" in answer.body.decode()
        assert "metrics on https://" in program.log()


def test_too_many_scrapers_keep_nobody_out(tmp_path: Path) -> None:
    """The oldest connections make room."""
    with Program(tmp_path, metrics_address=f"{LOOPBACK}:0") as program:
        numbers = metrics_port(program)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(numbers)) for _ in range(100)]
            assert scrape(numbers)["authproxy_connections"] == 0
            assert wires[0].ended
