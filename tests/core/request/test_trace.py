"""Trace context: forwarded if valid, else dropped."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import Forward, UpstreamSettings
from authproxy_core.request.trace import trace_id, without_bad_trace
from support.harness import Harness, settings

ID = b"4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = b"00-" + ID + b"-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "value", [GOOD, GOOD[:-2] + b"00", b"cc" + GOOD[2:], b"cc" + GOOD[2:] + b"-more"]
)
def test_trace_id_valid_traceparent(value: bytes) -> None:
    assert trace_id(value) == ID.decode()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        GOOD.upper(),
        b"ff" + GOOD[2:],
        GOOD + b"-more",
        GOOD + b"0",
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(ID, b"0" * 32),
        GOOD.replace(b"00f067aa0ba902b7", b"0" * 16),
        b"00-" + ID + b"-00f067aa0ba902b7",
        b"cc" + GOOD[2:] + b"-a b",
    ],
)
def test_trace_id_malformed_traceparent_empty(value: bytes) -> None:
    assert trace_id(value) == ""


@given(st.binary(max_size=80))
def test_trace_id_any_bytes(value: bytes) -> None:
    assert trace_id(value) == "" or trace_id(value).encode() in value


@pytest.mark.parametrize(
    ("values", "passed"),
    [([], []), ([GOOD], [GOOD]), ([b"x"], []), ([GOOD, GOOD], [])],
)
def test_trace_context_forwarded_or_dropped(
    values: list[bytes], passed: list[bytes]
) -> None:
    """The tracestate is dropped with its traceparent."""
    app = UpstreamSettings(id="app", uri="http://10.0.0.9:8080/")
    harness = Harness(settings(upstreams=(app,)))
    harness.log_in()
    fields = [(b"traceparent", value) for value in values]
    forward = harness.send("/", *fields, (b"tracestate", b"a=1"))
    assert isinstance(forward, Forward)
    found = {name: value for name, value in forward.headers if b"trace" in name}
    if values and not passed:
        assert found == {}
    else:
        assert [v for k, v in forward.headers if k == b"traceparent"] == passed
        assert found[b"tracestate"] == b"a=1"


def test_without_bad_trace_keeps_other_headers() -> None:
    headers = [(b"a", b"1"), (b"traceparent", b"x"), (b"b", b"2")]
    assert without_bad_trace(headers) == [(b"a", b"1"), (b"b", b"2")]
