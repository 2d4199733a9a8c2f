"""Traces of a running server, received by a collector over OTLP."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

pytest.importorskip("opentelemetry.proto", reason="opentelemetry-proto is missing")

from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError
from authproxy.server_settings import ServerSettings, TracingSettings
from authproxy.tracing.tracing import Tracing
from authproxy_core import AuthProxy
from authproxy_core.messages import Request
from support.echo import EchoApp
from support.harness import settings as basic_settings
from support.login import Browser, Provider
from support.otlp import Collector, Received
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import BASE, Program, session_cookie, toml
from support.server import Wire

ROOT = Path(__file__).parents[3]
PARENT = "0af7651916cd43dd8448eb211c80319c"
UNTRUSTED = "127.0.0.2"


class Scene:
    """A server with two workers, provider, upstream and collector."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.collector = stack.enter_context(Collector())
        self.provider = stack.enter_context(Provider())
        self.app = stack.enter_context(EchoApp())
        options = self.provider.options() | {
            "workers": 2,
            "session_store_type": "sqlite",
            "sqlite_path": str(folder / "sessions.db"),
            "cookie_refresh": "1s",
            "reverse_proxy": True,
            "trusted_proxy_ips": [LOOPBACK],
            "upstreams": [f"http://{LOOPBACK}:{self.app.port}/"],
            "otlp_endpoint": self.collector.url,
            "otlp_headers": "x-tenant=team%20a,authorization=Bearer%20collector-key",
            "logging_format": "json",
        }
        self.program = stack.enter_context(Program(folder, **options)).started()

    def browser(self) -> Browser:
        """Return a new browser."""
        return self.provider.browser()

    def forward(self, *fields: str, source: str = LOOPBACK) -> dict[str, str]:
        """Return the fields that the upstream gets for a request with *fields*."""
        with Wire(self.program.port, source) as wire:
            lines = [
                "GET /page?secret=query HTTP/1.1",
                f"Host: {LOOPBACK}:{self.program.port}",
                "X-Real-IP: 203.0.113.9",
                "User-Agent: agent/1",
                f"Cookie: {self.cookies}",
                *fields,
            ]
            wire.send("\r\n".join([*lines, "", ""]).encode())
            answer = wire.answer()
        assert answer.status == 200, answer
        return dict(json.loads(answer.body)["headers"])

    def log_in(self) -> None:
        """Log in; keep the session for `forward`."""
        browser = self.browser()
        browser.log_in()
        self.cookies = browser.jar.sent_to(f"http://{LOOPBACK}:{self.program.port}/")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A running scene, with a session."""
    with ExitStack() as stack:
        found = Scene(tmp_path_factory.mktemp("traces"), stack)
        found.log_in()
        yield found


def trace_and_span(traceparent: str) -> tuple[str, str]:
    """Return both IDs of a sampled traceparent."""
    match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", traceparent)
    assert match, traceparent
    return match[1], match[2]


def test_login_is_span_with_calls_of_provider_and_store(scene: Scene) -> None:
    collector = scene.collector
    scene.log_in()
    request = collector.wait_for("GET /oauth2/callback")
    login = collector.wait_for("login", request.trace)
    assert (request.kind, request.parent) == ("SERVER", "")
    assert (login.kind, login.parent) == ("INTERNAL", request.id)
    assert login.attributes["authproxy.login.result"] == "success"
    calls = collector.children(login)
    assert {call.kind for call in calls} == {"CLIENT"}
    names = [call.name for call in calls]
    assert {"POST token", "save sqlite"} <= set(names), names
    token = calls[names.index("POST token")]
    assert token.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": LOOPBACK,
        "server.port": int(scene.provider.url.rpartition(":")[2]),
        "url.scheme": "http",
        "authproxy.purpose": "token",
    }
    saved = calls[names.index("save sqlite")]
    assert saved.attributes == {
        "db.system.name": "sqlite",
        "db.operation.name": "save",
    }
    sent = [dict(one.headers) for one in scene.provider.idp.requests]
    parents = [trace_and_span(one[b"traceparent"].decode()) for one in sent[-3:]
               if b"traceparent" in one]  # fmt: skip
    assert (token.trace, token.id) in parents


def test_failed_login_marks_spans(scene: Scene) -> None:
    scene.provider.idp.config.failing["token"] = 503
    try:
        browser = scene.browser()
        started = browser.get("/oauth2/start?rd=/")
        back = scene.provider.idp.log_in(started.headers["location"], "alice")
        assert browser.get(back[back.index("/oauth2") :]).status == 500
    finally:
        del scene.provider.idp.config.failing["token"]
    wait_for(lambda: bool(failed_spans(scene, "SERVER")), "the failed request", 30)
    [request] = failed_spans(scene, "SERVER")
    assert (request.name, request.attributes["error.type"]) == (
        "GET /oauth2/callback",
        "500",
    )
    [token] = failed_spans(scene, "CLIENT")
    assert (token.name, token.attributes["error.type"]) == ("POST token", "503")
    [login] = scene.collector.children(request)
    assert login.attributes["authproxy.login.result"] == "failure"
    assert login.attributes["authproxy.login.reason"] == "server_error"


def failed_spans(scene: Scene, kind: str) -> list[Received]:
    """Return the received spans of a kind that have the status error."""
    return [span for span in scene.collector.spans if span.failed and span.kind == kind]


def test_refresh_is_span_with_token_request(scene: Scene) -> None:
    browser = scene.browser()
    browser.log_in()
    before = scene.provider.idp.count("token")

    def is_refreshed() -> bool:
        assert browser.check() == 202
        return scene.provider.idp.count("token") > before

    wait_for(is_refreshed, "a refresh", 30)
    refresh = scene.collector.wait_for("refresh")
    wait_for(lambda: bool(parents_of(scene.collector, refresh)), "its request", 30)
    assert refresh.attributes["authproxy.refresh.result"] == "refreshed"
    [request] = parents_of(scene.collector, refresh)
    assert (request.name, request.kind) == ("GET /oauth2/auth", "SERVER")
    names = {child.name for child in scene.collector.children(refresh)}
    assert {"lock sqlite", "POST token", "save sqlite", "unlock sqlite"} <= names


def parents_of(collector: Collector, span: Received) -> list[Received]:
    """Return the span that is the parent of *span*, if it was received."""
    return [one for one in collector.spans if one.id == span.parent]


def test_trace_of_trusted_proxy_continues_to_upstream_and_log(scene: Scene) -> None:
    fields = scene.forward(
        f"traceparent: 00-{PARENT}-b7ad6b7169203331-01",
        "tracestate: a=1",
        "tracestate: b=2",
    )
    span = scene.collector.wait_for("GET", PARENT)
    assert (span.kind, span.parent) == ("SERVER", "b7ad6b7169203331")
    assert trace_and_span(fields["traceparent"]) == (PARENT, span.id)
    assert fields["tracestate"] == "a=1,b=2"
    request_id = span.attributes["authproxy.request_id"]
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "network.peer.address": LOOPBACK,
        "network.protocol.version": "1.1",
        "client.address": "203.0.113.9",
        "server.address": LOOPBACK,
        "server.port": scene.program.port,
        "url.path": "/page",
        "url.scheme": "http",
        "user_agent.original": "agent/1",
        "authproxy.request_id": request_id,
        "authproxy.reason": "session",
        "authproxy.upstream": "/",
        "authproxy.verdict": "allowed",
    }
    assert span.resource["service.name"] == "authproxy"
    assert span.resource["process.pid"] in scene.program.workers
    assert scene.collector.fields[-1]["x-tenant"] == "team a"
    [line] = [
        json.loads(line)
        for line in scene.program.log().splitlines()
        if f'"request_id":"{request_id}"' in line
    ]
    assert (line["trace_id"], line["kind"]) == (PARENT, "request")


def test_trace_of_untrusted_peer_replaced(scene: Scene) -> None:
    """Neither its IDs nor its sampling decision count."""
    fields = scene.forward(
        "traceparent: 00-11111111111111111111111111111111-b7ad6b7169203331-00",
        "tracestate: a=1",
        source=UNTRUSTED,
    )
    trace, span_id = trace_and_span(fields["traceparent"])
    span = scene.collector.wait_for("GET", trace)
    assert (span.id, span.parent) == (span_id, "")
    assert "tracestate" not in fields
    assert span.attributes["client.address"] == UNTRUSTED


def test_unsampled_trace_forwarded_but_not_exported(scene: Scene) -> None:
    trace = "2" * 32
    fields = scene.forward(f"traceparent: 00-{trace}-b7ad6b7169203331-00")
    match = re.fullmatch(rf"00-{trace}-([0-9a-f]{{16}})-00", fields["traceparent"])
    assert match
    assert match[1] != "b7ad6b7169203331"
    end = scene.forward()
    scene.collector.wait_for("GET", trace_and_span(end["traceparent"])[0])
    assert trace not in {span.trace for span in scene.collector.spans}


def test_malformed_trace_of_trusted_proxy_replaced(scene: Scene) -> None:
    for value in ("00-bad", f"00-{PARENT}-b7ad6b7169203331-01\r\ntraceparent: 00-x"):
        fields = scene.forward(f"traceparent: {value}", "tracestate: a=1")
        assert trace_and_span(fields["traceparent"])[0] != PARENT
        assert "tracestate" not in fields


def test_spans_contain_no_secret(scene: Scene) -> None:
    """Everything that was exported so far, after logins, refreshes and requests."""
    scene.log_in()
    trace = trace_and_span(scene.forward("Authorization: Bearer a.b.c")["traceparent"])
    scene.collector.wait_for("GET", trace[0])
    exported = scene.collector.raw
    secrets = {"secret=query", "demo-client-secret", "collector-key", "Bearer", "code="}
    secrets |= set(scene.cookies.replace("; ", "=").split("=")[1::2])
    for request in scene.provider.idp.requests:
        for name in ("code", "refresh_token", "code_verifier", "state"):
            secrets.add(request.form.get(name, ""))
    secrets = {secret for secret in secrets if len(secret) > 4}
    assert len(secrets) > 8
    assert not [secret for secret in secrets if secret.encode() in exported]
    assert len(exported) > 1000


def test_failing_collector_affects_no_request_and_shutdown_exports_the_rest(
    tmp_path: Path,
) -> None:
    """Lost spans are counted, and one line is logged until it works again."""
    with Collector() as collector:
        collector.status = 400  # not retried by the exporter
        with program_with(tmp_path, collector) as program:
            cookie = session_cookie()
            failed = "traces cannot be exported: "

            def wait_for_log(text: str) -> None:
                def is_logged() -> bool:
                    assert check(program, cookie) == 202
                    return text in program.log()

                wait_for(is_logged, text, 30)

            wait_for_log(failed)
            assert metric(program, 'authproxy_trace_spans_total{outcome="dropped"}') > 0
            collector.status = 200
            wait_for_log("traces are exported again")
            assert program.log().count(failed) == 1
            span = collector.wait_for("GET /oauth2/auth")
            assert span.attributes["http.route"] == "/oauth2/auth"
            name = 'authproxy_trace_spans_total{outcome="exported"}'
            wait_for(lambda: metric(program, name) > 0, "the count")
            assert check(program, "") == 401
            program.signal(signal.SIGTERM)
            assert program.wait() == 0
        last = collector.spans[-1].attributes
        assert last["http.response.status_code"] == 401, "exported at shutdown"


def test_shutdown_does_not_wait_for_hanging_collector(tmp_path: Path) -> None:
    with Collector() as collector, program_with(tmp_path, collector) as program:
        collector.open.clear()
        assert check(program, session_cookie()) == 202
        program.signal(signal.SIGTERM)
        assert program.wait(60) == 0
        collector.open.set()
        assert "Traceback" not in program.log()


@pytest.mark.parametrize(
    ("ratio", "reverse_proxy", "flags", "continued"),
    [(0.0, True, "01", True), (0.0, False, "00", False), (1.0, False, "01", False)],
)
def test_ratio_decides_unless_trusted_proxy_did(
    ratio: float, reverse_proxy: bool, flags: str, continued: bool
) -> None:
    """Without `reverse_proxy` no peer is trusted."""
    settings = replace(basic_settings(), reverse_proxy=reverse_proxy)
    tracing = Tracing(
        ServerSettings(
            core=settings,
            listeners=(),
            tracing=TracingSettings(endpoint="http://127.0.0.1:9", sample_ratio=ratio),
        )
    )
    sent = f"00-{PARENT}-b7ad6b7169203331-01".encode()
    request = Request(b"GET", b"/", [(b"traceparent", sent)], LOOPBACK)
    application = tracing.application(AuthProxy(settings))
    [(name, value)] = tracing.begin(application, request).headers
    assert name == b"traceparent"
    assert value.decode().endswith(f"-{flags}")
    assert (PARENT in value.decode()) == continued


def program_with(folder: Path, collector: Collector, **options: Any) -> Program:
    """Start a server without provider that sends its traces to *collector*."""
    options = {
        "otlp_endpoint": collector.url,
        "metrics_address": f"{LOOPBACK}:0",
        **options,
    }
    return Program(folder, **options).started()


def check(program: Program, cookie: str) -> int:
    """Return the status of an auth check."""
    with Wire(program.port) as wire:
        head = (
            f"GET /oauth2/auth HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"
        )
        wire.send(head.encode())
        return wire.answer().status


def metric(program: Program, name: str) -> float:
    """Return the value of a metric."""
    found = re.search(r"metrics on http://\S+:(\d+)", program.log())
    assert found
    with Wire(int(found[1])) as wire:
        wire.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        text = wire.answer().body.decode()
    [value] = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def load(folder: Path, **options: Any) -> Any:
    """Return the settings of a configuration with *options*."""
    file = folder / "authproxy.toml"
    file.write_text(toml({**BASE, **options}))
    return load_settings(["--config", str(file)], {})


def test_tracing_options_build_settings(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("authorization=Bearer%20x")
    options = {
        "otlp_endpoint": "https://collector.example.com",
        "otlp_headers_file": str(headers),
        "otlp_service_name": "gate",
        "trace_sample_ratio": "0.25",
    }
    settings = load(tmp_path, **options)
    tracing = settings.tracing
    assert tracing.headers.value == b"authorization=Bearer%20x"
    assert (tracing.service_name, tracing.sample_ratio) == ("gate", 0.25)
    assert str(headers) in settings.files


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("trace_sample_ratio", "2", "a number from 0 to 1"),
        ("trace_sample_ratio", "nan", "a number from 0 to 1"),
        ("otlp_endpoint", "collector:4317", "a URL such as http://HOST:4318"),
    ],
)
def test_tracing_option_with_wrong_value_rejected(
    tmp_path: Path, option: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, **{option: value})
    assert expected in str(raised.value)


def test_missing_packages_reported_and_not_imported_without_option() -> None:
    """A server without traces imports nothing of OpenTelemetry."""
    code = """
import sys
import authproxy.commands.cli, authproxy.worker.worker
from authproxy.config.load import load_settings
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
sys.modules["opentelemetry"] = None
load_settings(["--otlp-endpoint", "http://a:4318"], {})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert "ConfigError" in done.stderr, done.stderr
    assert "install authproxy[otlp]" in done.stderr
