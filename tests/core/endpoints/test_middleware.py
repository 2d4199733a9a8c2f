"""Strict-Transport-Security: on what goes to browsers over https, and on nothing else."""

from __future__ import annotations

from typing import Any

from authproxy_core import Decision, Forward, Respond
from authproxy_core.settings.root import UpstreamSettings
from support.world import World, settings

VALUE = "max-age=3600; includeSubDomains"
FIELD = (b"strict-transport-security", VALUE.encode())


def world_of(**changes: Any) -> World:
    upstream = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1/")
    files = UpstreamSettings(id="files", path="/files/", uri="file:///srv/files")
    return World(settings(hsts=VALUE, upstreams=(upstream, files), **changes))


def has_it(decision: Decision) -> bool:
    fields = (
        decision.headers if isinstance(decision, Respond) else decision.response_headers
    )
    assert fields.count(FIELD) <= 1
    return FIELD in fields


def test_answers_over_https() -> None:
    """Pages, redirects, answers of flows, and those of upstreams."""
    world = world_of()
    for target in (
        "/",
        "/oauth2/sign_in",
        "/oauth2/start",
        "/oauth2/userinfo",
        "/ping",
    ):
        assert has_it(world.send(target)), target
        assert not has_it(world.send(target, secure=False)), target
    world.log_in()
    forward = world.send("/")
    assert isinstance(forward, Forward)
    assert has_it(forward)
    assert not forward.reusable  # made for this answer
    assert has_it(world.send("/files/x"))
    failed = world.proxy.upstream_failed(world.request("/"), forward, "timeout")
    assert has_it(failed)


def test_answers_to_gateways_are_left_alone() -> None:
    world = world_of()
    assert not has_it(world.get("/oauth2/auth"))
    world.log_in()
    world.get("/oauth2/auth")
    assert world.get("/oauth2/auth") is world.get("/oauth2/auth")


def test_https_of_a_gateway() -> None:
    """Whose word is believed."""
    world = world_of(reverse_proxy=True)
    https = (b"x-forwarded-proto", b"https")
    assert has_it(world.get("/", https, secure=False, peer="10.0.0.1"))
    assert not has_it(world.get("/", https, secure=False, peer="203.0.113.9"))
