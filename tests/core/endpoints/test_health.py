"""Health checks by path and User-Agent, and queries with semicolons."""

from __future__ import annotations

import pytest

from authproxy_core.messages import Header
from support.harness import Harness, header, settings

GOOGLE: Header = (b"user-agent", b"GoogleHC/1.0")
OTHER: Header = (b"user-agent", b"probe/1")
PATHS = ("/ping", "/liveness_check", "/readiness_check")


@pytest.mark.parametrize("path", PATHS)
def test_gcp_health_paths_require_option(path: str) -> None:
    harness = Harness(settings(gcp_healthchecks=True))
    assert harness.get(path, GOOGLE).body == b"OK"
    assert harness.get(path, OTHER).status == 403
    assert harness.get(path).status == 403


@pytest.mark.parametrize("path", PATHS)
def test_ping_user_agent_and_gcp_user_agent_answered(path: str) -> None:
    harness = Harness(settings(gcp_healthchecks=True, ping_user_agent="probe/1"))
    assert harness.get(path, GOOGLE).status == 200
    assert harness.get(path, OTHER).status == 200
    assert harness.get(path, (b"user-agent", b"probe/10")).status == 403


def test_ping_default_answers_any_user_agent_at_default_path() -> None:
    harness = Harness()
    assert harness.get("/ping").body == b"OK"
    assert harness.get("/liveness_check", GOOGLE).status == 403
    harness = Harness(settings(ping_path="", gcp_healthchecks=True))
    assert harness.get("/ping", GOOGLE).status == 403


def state(harness: Harness, target: str) -> bytes:
    """Return the path that a login started with *target* returns to."""
    response = harness.get(target)
    callback = harness.idp.log_in(header(response, b"location").decode(), "alice")
    return header(harness.get(callback.removeprefix("https://app.example.com")),
                  b"location")  # fmt: skip


def test_options_of_the_server_itself_answered() -> None:
    """RFC 9110 §9.3.7: OPTIONS * applies to no resource."""
    harness = Harness()
    response = harness.get("*", method=b"OPTIONS")
    assert (response.status, response.body, response.verdict) == (200, b"", "")
    assert harness.get("*").status == 400


def test_allow_query_semicolons_separates_parameters() -> None:
    assert state(Harness(), "/oauth2/start?a=1;rd=/deep") == b"/"
    harness = Harness(settings(allow_query_semicolons=True))
    assert state(harness, "/oauth2/start?a=1;rd=/deep") == b"/deep"
    assert state(harness, "/oauth2/start?rd=/other") == b"/other"
