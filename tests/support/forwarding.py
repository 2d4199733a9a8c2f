"""Requests forwarded to an upstream for a signed-in user."""

from __future__ import annotations

from typing import Any

from authproxy_core import (
    Forward,
    UpstreamSettings,
)
from authproxy_core.messages import Header, Headers
from support.harness import Harness, settings

APP = UpstreamSettings(id="app", uri="http://app.internal:8080")
WEBSOCKET: Headers = (
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"websocket"),
    (b"sec-websocket-version", b"13"),
)


def signed_in(*upstreams: UpstreamSettings, **changes: Any) -> Harness:
    """Return a harness with a signed-in user."""
    harness = Harness(settings(upstreams=upstreams or (APP,), **changes))
    harness.log_in()
    return harness


def forward(harness: Harness, target: str, *headers: Header, **changes: Any) -> Forward:
    """Return the decision for a request, which must be to forward it."""
    decision = harness.send(target, *headers, **changes)
    assert isinstance(decision, Forward), decision
    return decision


def field_names(decision: Forward) -> list[bytes]:
    """Return the field names of the forwarded request."""
    return [name for name, _ in decision.headers]
