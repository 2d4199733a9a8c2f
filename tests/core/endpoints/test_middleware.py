"""Strict-Transport-Security: on responses to browsers over https only."""

from __future__ import annotations

from typing import Any

from authproxy_core import Decision, Forward, Respond
from authproxy_core.settings.root import UpstreamSettings
from support.harness import Harness, settings

VALUE = "max-age=3600; includeSubDomains"
FIELD = (b"strict-transport-security", VALUE.encode())


def harness_with(**changes: Any) -> Harness:
    upstream = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1/")
    files = UpstreamSettings(id="files", path="/files/", uri="file:///srv/files")
    return Harness(settings(hsts=VALUE, upstreams=(upstream, files), **changes))


def has_hsts(decision: Decision) -> bool:
    fields = (
        decision.headers if isinstance(decision, Respond) else decision.response_headers
    )
    assert fields.count(FIELD) <= 1
    return FIELD in fields


def test_hsts_added_to_responses_over_https() -> None:
    """Pages, redirects, responses of flows and of upstreams."""
    harness = harness_with()
    for target in (
        "/",
        "/oauth2/sign_in",
        "/oauth2/start",
        "/oauth2/userinfo",
        "/ping",
    ):
        assert has_hsts(harness.send(target)), target
        assert not has_hsts(harness.send(target, secure=False)), target
    harness.log_in()
    forward = harness.send("/")
    assert isinstance(forward, Forward)
    assert has_hsts(forward)
    assert not forward.reusable  # built for this response
    assert has_hsts(harness.send("/files/x"))
    failed = harness.proxy.upstream_failed(harness.request("/"), forward, "timeout")
    assert has_hsts(failed)


def test_hsts_not_added_to_auth_check() -> None:
    harness = harness_with()
    assert not has_hsts(harness.get("/oauth2/auth"))
    harness.log_in()
    harness.get("/oauth2/auth")
    assert harness.get("/oauth2/auth") is harness.get("/oauth2/auth")


def test_hsts_added_for_forwarded_https_of_trusted_gateway() -> None:
    """X-Forwarded-Proto of a trusted peer counts."""
    harness = harness_with(reverse_proxy=True)
    https = (b"x-forwarded-proto", b"https")
    assert has_hsts(harness.get("/", https, secure=False, peer="10.0.0.1"))
    assert not has_hsts(harness.get("/", https, secure=False, peer="203.0.113.9"))
