"""Strict-Transport-Security: on what goes to browsers over https, and on nothing else."""

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


def has_it(decision: Decision) -> bool:
    fields = (
        decision.headers if isinstance(decision, Respond) else decision.response_headers
    )
    assert fields.count(FIELD) <= 1
    return FIELD in fields


def test_hsts_added_to_responses_over_https() -> None:
    """Pages, redirects, answers of flows, and those of upstreams."""
    harness = harness_with()
    for target in (
        "/",
        "/oauth2/sign_in",
        "/oauth2/start",
        "/oauth2/userinfo",
        "/ping",
    ):
        assert has_it(harness.send(target)), target
        assert not has_it(harness.send(target, secure=False)), target
    harness.log_in()
    forward = harness.send("/")
    assert isinstance(forward, Forward)
    assert has_it(forward)
    assert not forward.reusable  # made for this answer
    assert has_it(harness.send("/files/x"))
    failed = harness.proxy.upstream_failed(harness.request("/"), forward, "timeout")
    assert has_it(failed)


def test_hsts_not_added_to_auth_check() -> None:
    harness = harness_with()
    assert not has_it(harness.get("/oauth2/auth"))
    harness.log_in()
    harness.get("/oauth2/auth")
    assert harness.get("/oauth2/auth") is harness.get("/oauth2/auth")


def test_hsts_added_for_forwarded_https_of_trusted_gateway() -> None:
    """Whose word is believed."""
    harness = harness_with(reverse_proxy=True)
    https = (b"x-forwarded-proto", b"https")
    assert has_it(harness.get("/", https, secure=False, peer="10.0.0.1"))
    assert not has_it(harness.get("/", https, secure=False, peer="203.0.113.9"))
