"""Metrics: counting, exposition, and totals over workers that restart."""

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
from authproxy.metrics.families import FAMILIES, LOGIN_FAILURES, REQUESTS
from authproxy.metrics.metrics import Metrics
from authproxy.metrics.process import process_lines
from authproxy.metrics.shared_memory import LAYOUT, SharedMetrics
from authproxy_core.login.failures import (
    PAGES_BY_REASON,
    STATUSES,
    denied_loop_failure,
    login_loop_failure,
    provider_error_failure,
    target_too_long_failure,
)
from authproxy_core.messages import Event
from support import workers
from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie
from support.server import Wire

Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Return the value of each sample, by name and labels as Prometheus parses them."""
    values: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in values
            values[key] = sample.value
    return values


def scrape(port: int, target: str = "/metrics", method: str = "GET") -> Samples:
    """Return the samples of the metrics endpoint."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request(method, target)
    response = connection.getresponse()
    assert response.status == 200
    content_type = response.headers["Content-Type"]
    assert (
        content_type == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    )
    text = response.read().decode()
    connection.close()
    return samples(text)


def request(port: int, target: str, cookie: str = "", method: str = "GET") -> int:
    """Return the status of a request over a new connection."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request(method, target, headers={"Cookie": cookie} if cookie else {})
    status = connection.getresponse().status
    connection.close()
    return status


def metrics_port(program: Program) -> int:
    """Return the port of the metrics endpoint."""
    program.wait_until(lambda: "metrics on" in program.log())
    match = re.search(r"metrics on https?://\S+:(\d+)", program.log())
    assert match
    return int(match[1])


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A running server with two workers and a metrics listener."""
    with Program(tmp_path, workers=2, metrics_address=f"{LOOPBACK}:0") as program:
        yield program.started()


def started_worker(shared: SharedMetrics, number: int) -> Metrics:
    """Return the metrics of a worker that has started in slot *number*."""
    metrics = Metrics(shared, number)
    metrics.worker_started()
    return metrics


def test_requests_counted_by_status_and_method() -> None:
    shared = SharedMetrics(2)
    one, two = started_worker(shared, 0), started_worker(shared, 1)
    one.record_response(b"/a", b"GET", 202, 0.004)
    one.record_response(b"/a", b"PROPFIND", 202, 0.005)
    two.record_response(b"/a", b"GET", 401, 0.0051)
    two.record_response(b"/a", b"GET", 0, 99.0)
    values = samples(render_totals(shared.used_slots()))
    assert values["oauth2_proxy_requests_total{code=202}"] == 2
    assert values["oauth2_proxy_requests_total{code=401}"] == 1
    assert values["oauth2_proxy_requests_total{code=0}"] == 1
    name = "oauth2_proxy_response_duration_seconds"
    assert values[f"{name}_bucket{{le=0.005,method=get}}"] == 1
    assert values[f"{name}_bucket{{le=0.01,method=get}}"] == 2
    assert values[f"{name}_bucket{{le=10,method=get}}"] == 2
    assert values[f"{name}_bucket{{le=+Inf,method=get}}"] == 3
    assert values[f"{name}_count{{method=get}}"] == 3
    assert values[f"{name}_sum{{method=get}}"] == pytest.approx(99.0091)
    assert values[f"{name}_bucket{{le=0.005,method=unknown}}"] == 1
    assert values["authproxy_worker_requests_total{worker=0}"] == 2
    assert values["authproxy_worker_requests_total{worker=1}"] == 2


def test_health_check_without_verdict_not_counted() -> None:
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


def test_unknown_label_value_counted_as_other() -> None:
    """No client, provider or later version can add series."""
    shared = SharedMetrics()
    metrics = started_worker(shared, 0)
    metrics.record_response(b"/", b"GET", 403, 0.0, "denied", "a\n\u2028")
    metrics.record_response(b"/", b"GET", 403, 0.0, "denied", "groups")
    metrics.count_event(Event("login_failed", reason="so\nnew"))
    metrics.count_event(Event("login_denied", reason="so new"))
    metrics.count_event(Event("so new"))
    metrics.record_fetch("so new", 0.1, 200)
    metrics.record_store_operation("so new", 0.1, "ok")
    metrics.count_event(Event("upstream_failed", reason="so new"))
    values = samples(render_totals(shared.used_slots()))
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
        assert values[name] == 1, name


def test_each_event_counted_in_its_family() -> None:
    shared = SharedMetrics()
    metrics = started_worker(shared, 0)
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
    metrics.count_cache_misses(2)  # a reload replaced the core
    metrics.set_ready(True)
    metrics.request_started()
    metrics.connection_opened()
    metrics.connection_opened()
    metrics.connection_closed()
    values = samples(render_totals(shared.used_slots()))
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
    assert {name: values[name] for name in expected} == expected


def test_restarted_worker_continues_counters_and_clears_gauges() -> None:
    """Unused slots are not exposed."""
    shared = SharedMetrics(3)
    first = started_worker(shared, 1)
    first.connection_opened()
    first.record_response(b"/", b"GET", 200, 0.1)
    shared.clear_gauges(1)
    assert samples(render_totals(shared.used_slots()))["authproxy_connections"] == 0
    second = started_worker(shared, 1)
    second.record_response(b"/", b"GET", 200, 0.1)
    values = samples(render_totals(shared.used_slots()))
    assert values["oauth2_proxy_requests_total{code=200}"] == 2
    assert values["authproxy_worker_starts_total"] == 2
    assert list(shared.used_slots()) == [1]


def test_layout_offsets_are_distinct() -> None:
    offsets = [at for family in FAMILIES for at in LAYOUT.offsets(family).values()]
    assert len(set(offsets)) == len(offsets) == sum(len(f.series) for f in FAMILIES)
    assert LAYOUT.offsets(REQUESTS)[("404",)] == 404
    assert max(offsets) < LAYOUT.size


def test_render_per_worker_labels_each_worker() -> None:
    shared = SharedMetrics(2)
    for number in range(2):
        started_worker(shared, number).record_response(b"/", b"GET", 200 + number, 0.1)
    values = samples(render_per_worker(shared.used_slots()))
    assert values["oauth2_proxy_requests_total{code=200,worker=0}"] == 1
    assert values["oauth2_proxy_requests_total{code=201,worker=1}"] == 1
    assert "oauth2_proxy_requests_total{code=201,worker=0}" not in values


def test_process_lines_sum_running_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without /proc there are no process metrics."""
    running, exited = os.getpid(), 2**22 + 1
    one = samples("\n".join(process_lines([running, exited, 0])) + "\n")
    two = samples("\n".join(process_lines([running, running])) + "\n")
    assert one["process_open_fds"] > 2
    assert two["process_virtual_memory_bytes"] >= 2e6
    assert two["process_start_time_seconds"] == one["process_start_time_seconds"]
    assert abs(one["process_start_time_seconds"] - time.time()) < 7200
    monkeypatch.setattr(process, "PROC", tmp_path)
    assert process_lines([running]) == []


def test_endpoint_keeps_totals_after_worker_is_killed(program: Program) -> None:
    """Every worker exposes the same totals."""
    port, exposed = program.port, metrics_port(program)
    cookie = session_cookie()
    for _ in range(10):
        assert request(port, "/oauth2/auth", cookie) == 202
        assert request(port, "/oauth2/auth") == 401
        assert request(port, "/ping") == 200
    assert request(port, "/", method="PROPFIND") == 403
    get = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    scraped = [
        samples(response.body.decode())
        for response in workers.send_to_each(program, exposed, get)
    ]
    assert len(scraped) == 2
    for values in (*scraped, scrape(exposed)):
        assert values["oauth2_proxy_requests_total{code=202}"] == 10
        assert values["oauth2_proxy_requests_total{code=401}"] == 10
        assert "oauth2_proxy_requests_total{code=200}" not in values
    name = "oauth2_proxy_response_duration_seconds_count"
    assert values[f"{name}{{method=get}}"] == 20
    assert values[f"{name}{{method=unknown}}"] == 1
    allowed = "authproxy_decisions_total{reason=session,verdict=allowed}"
    denied = "authproxy_decisions_total{reason=no_session,verdict=unauthenticated}"
    assert (values[allowed], values[denied]) == (10, 11)
    each = [values[f"authproxy_worker_requests_total{{worker={n}}}"] for n in (0, 1)]
    assert sum(each) == 21
    wait_for(
        lambda: 1 <= scrape(exposed)["authproxy_session_cache_misses_total"] <= 4,
        "the timeout check",
    )
    scrapes = "promhttp_metric_handler_requests_total{code=200}"
    before = scrape(exposed)[scrapes]
    assert scrape(exposed)[scrapes] == before + 1
    assert values["process_resident_memory_bytes"] > 10e6
    assert values["process_open_fds"] > 5
    victim = program.workers[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in program.workers, "the exit of the worker")
    wait_for(lambda: len(program.workers) == 2, "a new worker")
    wait_for(lambda: scrape(exposed)["authproxy_worker_starts_total"] == 3, "its start")
    values = scrape(exposed)
    assert values["oauth2_proxy_requests_total{code=202}"] == 10
    assert scrape(exposed, "/any/path?by=worker", "POST").keys() >= {
        "authproxy_worker_starts_total{worker=0}",
        "authproxy_worker_starts_total{worker=1}",
    }


def test_scrape_not_logged_and_not_counted_as_client(program: Program) -> None:
    with Wire(metrics_port(program)) as wire:
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"authproxy_connections 0\n" in wire.answer().body
        wire.send(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wire.answer(head_only=True).status == 200
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "/metrics" not in program.log()


def test_metrics_listener_serves_tls(tmp_path: Path) -> None:
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
            response = wire.answer()
        assert "authproxy_build_info" in response.body.decode()
        assert "metrics on https://" in program.log()


def test_metrics_listener_at_limit_closes_oldest_connections(tmp_path: Path) -> None:
    with Program(tmp_path, metrics_address=f"{LOOPBACK}:0") as program:
        exposed = metrics_port(program)
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(exposed)) for _ in range(100)]
            assert scrape(exposed)["authproxy_connections"] == 0
            assert wires[0].ended


def test_login_failures_have_labels_of_their_own() -> None:
    failures = (
        login_loop_failure(3),
        login_loop_failure(3, sent_cookie=True),
        denied_loop_failure(5),
        target_too_long_failure(1),
        provider_error_failure({"error": "invalid_scope"}, redirect_uri="", scope=""),
    )
    reasons = {failure.event.reason for failure in failures}
    assert reasons == {"login_loop", "target_too_long", "invalid_scope"}
    assert reasons | set(PAGES_BY_REASON) | set(STATUSES) <= set(LOGIN_FAILURES)
