"""JSON log lines: stable fields, the original request, no log injection."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.request_head import RequestHead
from authproxy.logs.formatter import RequestRecord, TextFormatter
from authproxy.logs.json_formatter import JsonFormatter
from authproxy.logs.logger import Logs
from authproxy.logs.writer import LogWriter
from authproxy.loop.clock import Clock
from authproxy.server_settings import LogSettings
from authproxy_core.messages import Event, Request
from authproxy_core.settings.root import Settings
from support.echo import EchoApp
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program, session_cookie

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
REQUEST_FIELDS = {
    "request_id", "trace_id", "client", "method", "scheme", "host", "uri", "target",
    "protocol", "user_agent", "user", "reason", "time", "kind",
}  # fmt: skip


def record(
    target: bytes = b"/", *fields: tuple[bytes, bytes], **changes: Any
) -> RequestRecord:
    """Return the record of a request from the trusted gateway 10.0.0.1."""
    headers = [(b"host", b"own.example"), *fields]
    head = RequestHead(b"GET", target, headers, dict(headers), "own.example", 1, True)
    request = Request(b"GET", target, headers, "10.0.0.1", True, "id-1")
    values: dict[str, Any] = {
        "status": 202, "size": 3, "seconds": 0.0125, "user": "bob",
    } | changes  # fmt: skip
    return RequestRecord(head, request, "10.0.0.1:99", **values)


def formatter(core: Settings | None = None, *, local: bool = False) -> JsonFormatter:
    clock = Clock(local_time=local, wall=lambda: 1_790_000_000.75)
    return JsonFormatter(core or Settings(), clock)


def test_json_request_line_has_all_fields() -> None:
    one = record(
        b"/a?code=SECRET&b=1",
        (b"user-agent", b'a "b" \xff'),
        (b"traceparent", TRACE),
        verdict="allowed",
        reason="session",
        upstream="app",
        upstream_seconds=0.0100001,
    )
    line = formatter().request(one)
    assert json.loads(line) == {
        "time": "2026-09-21T14:13:20.737Z",
        "kind": "request",
        "request_id": "id-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "client": "10.0.0.1:99",
        "method": "GET",
        "scheme": "https",
        "host": "own.example",
        "uri": "/a?code=...&b=1",
        "target": "/a?code=...&b=1",
        "protocol": "HTTP/1.1",
        "user_agent": 'a "b" \\xff',
        "user": "bob",
        "decision": "allowed",
        "reason": "session",
        "status": 202,
        "size": 3,
        "duration": 0.0125,
        "upstream": "app",
        "upstream_time": 0.01,
    }
    bare = json.loads(formatter().request(record(user="")))
    assert bare.keys() == json.loads(line).keys()
    assert [key for key, value in bare.items() if value is None] == [
        "trace_id", "user_agent", "user", "decision", "reason", "upstream",
        "upstream_time",
    ]  # fmt: skip


def test_json_request_line_original_request_of_trusted_gateway() -> None:
    """An untrusted or ambiguous original request is not logged."""
    fields = (
        (b"x-real-ip", b"203.0.113.9"),
        (b"x-forwarded-host", b"app.example"),
        (b"x-forwarded-uri", b"/p?state=SECRET"),
        (b"x-forwarded-method", b"POST"),
        (b"x-forwarded-proto", b"http"),
    )
    core = Settings(reverse_proxy=True, trusted_proxies=("10.0.0.1",))
    found = json.loads(formatter(core).request(record(b"/oauth2/auth", *fields)))
    assert {key: found[key] for key in ("client", "method", "scheme", "host")} == {
        "client": "203.0.113.9",
        "method": "POST",
        "scheme": "http",
        "host": "app.example",
    }
    assert (found["uri"], found["target"]) == ("/p?state=...", "/oauth2/auth")
    other = Settings(reverse_proxy=True, trusted_proxies=("10.0.0.2",))
    found = json.loads(formatter(other).request(record(b"/oauth2/auth", *fields)))
    assert (found["host"], found["uri"]) == ("own.example", "/oauth2/auth")
    unclear = record(b"/oauth2/auth", *fields, (b"x-forwarded-uri", b"/q"))
    found = json.loads(formatter(core).request(unclear))
    assert (found["host"], found["uri"]) == ("own.example", "/oauth2/auth")


def test_json_auth_and_standard_lines() -> None:
    event = Event("login_failed", "eve", "nonce", "it does not match")
    found = json.loads(formatter().auth(record(), event, "AuthFailure"))
    assert found.keys() == REQUEST_FIELDS | {"result", "event", "message"}
    assert (found["result"], found["event"], found["user"], found["message"]) == (
        "AuthFailure", "login_failed", "eve", "login failed: nonce",
    )  # fmt: skip
    assert json.loads(formatter().standard("error", "server", "a\nb", "id-2")) == {
        "time": "2026-09-21T14:13:20.750Z",
        "kind": "standard",
        "level": "error",
        "module": "server",
        "message": "a\nb",
        "request_id": "id-2",
    }


def test_json_local_time_has_an_offset() -> None:
    found = json.loads(formatter(local=True).standard("info", "m", "x"))["time"]
    parsed = datetime.fromisoformat(found)
    assert parsed.timestamp() == pytest.approx(1_790_000_000.75, abs=0.001)
    assert re.fullmatch(r"\S{23}[+-]\d\d:\d\d", found)


@given(
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.binary(max_size=40),
    st.text('/?&=%;abc"\\<>', max_size=40),
)
def test_log_lines_any_input_stays_on_a_single_line(
    text: str, raw: bytes, target: str
) -> None:
    """Log injection is not possible in any field, as text and as JSON."""
    one = record(
        f"/{target}".encode(),
        (b"user-agent", raw),
        (b"x-forwarded-uri", raw),
        (b"x-forwarded-host", raw),
        (b"traceparent", raw),
        user=text,
        upstream="app",
    )
    event = Event("denied", text, text, text)
    core = Settings(reverse_proxy=True)
    as_text = TextFormatter(LogSettings(), core, Clock())
    for each in (formatter(core), as_text):
        for line in (
            each.request(one),
            each.auth(one, event, "AuthFailure"),
            each.auth(one, event, "AuthSuccess"),
            each.standard("info", "m", text, "id-1"),
        ):
            written = line.encode("utf-8", "backslashreplace").decode()
            assert written.endswith("\n")
            assert written[:-1].isprintable()
            assert len(written.splitlines()) == 1
            if each is not as_text:
                assert isinstance(json.loads(written), dict)


@pytest.mark.parametrize("char", ["a", '"', "\xff", "\0", "\udcff", "\U0010ffff"])
def test_log_lines_of_long_client_input_are_bounded(char: str) -> None:
    long, core = char * 70_000, Settings()
    raw = long.encode("utf-8", "surrogateescape")
    one = record(b"/" + b'"' * 60_000, (b"user-agent", raw), user=long)
    event = Event("denied", long, long, long)
    for each, limit in (
        (TextFormatter(LogSettings(), core, Clock()), 32_000),
        (formatter(core), 64_000),
    ):
        for line in (
            each.request(one),
            each.auth(one, event, "AuthFailure"),
            each.standard("error", "h2", long, "id-1"),
        ):
            assert len(line) < limit


def test_json_strings_round_trip() -> None:
    text = 'a\n"b"\u2028\x9b\x7f\U000e0041é'
    found = json.loads(formatter().standard("info", "m", text))
    assert found["message"] == text


def test_json_lone_surrogate_escaped() -> None:
    found = json.loads(formatter().standard("info", "m", "a\ud800b"))
    assert found["message"] == "a\\ud800b"


def test_program_json_forwarded_request_logged(tmp_path: Path) -> None:
    """The line contains trace ID, upstream and upstream time."""
    with (
        EchoApp() as app,
        Program(
            tmp_path,
            upstreams=[f"http://{LOOPBACK}:{app.port}/"],
            metrics_address=f"{LOOPBACK}:0",
            logging_format="json",
        ) as program,
    ):
        fields = {"Cookie": session_cookie(), "Traceparent": TRACE.decode()}
        got = received(program.port, fields)
        assert dict(got["headers"])["traceparent"] == TRACE.decode()
        got = received(program.port, fields | {"Traceparent": "00-bad"})
        assert "traceparent" not in dict(got["headers"])
        wait_for(lambda: program.log().count('"kind":"request"') == 2, "the lines")
        logged = [json.loads(line) for line in program.log().splitlines()]
    first, second = (line for line in logged if line["kind"] == "request")
    assert first["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert second["trace_id"] is None
    assert (
        first.items()
        >= {"decision": "allowed", "reason": "session", "status": 200}.items()
    )
    assert first["upstream"] == "/"
    assert 0 < first["upstream_time"] <= first["duration"]
    messages = [line["message"] for line in logged if line["kind"] == "standard"]
    assert [text.partition(" on ")[0] for text in messages[1:3]] == [
        "listening",
        "metrics",
    ]


def received(port: int, fields: dict[str, str]) -> dict[str, Any]:
    """Send a request with *fields* and return the request that the upstream got."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request("GET", "/a", headers=fields)
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def test_logs_exception_json_is_a_single_object(tmp_path: Path) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(fd)
    logs = Logs(LogSettings(format="json"), Settings(), Clock(), writer, writer)
    try:
        raise RuntimeError("a\nb")
    except RuntimeError as error:
        logs.exception("server", "it failed", error)
    writer.close()
    os.close(fd)
    [line] = path.read_text().splitlines()
    message = json.loads(line)["message"]
    assert message.startswith("it failed\nTraceback ")
    assert message.endswith("RuntimeError: a\nb")


def test_logs_dropped_line_uses_the_current_format(tmp_path: Path) -> None:
    """Logs that are only prepared for a reload change nothing."""
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    writer = LogWriter(fd)
    logs = Logs(LogSettings(format="json"), Settings(), Clock(), writer, writer)
    logs.attach_writers()
    prepared = Logs(LogSettings(), Settings(), Clock(), writer, writer)
    assert json.loads(writer.dropped_line(3))["message"] == "dropped 3 log lines"
    logs.replace_with(prepared)
    assert writer.dropped_line(3).endswith("[logs] dropped 3 log lines\n")
    writer.close()
    os.close(fd)
