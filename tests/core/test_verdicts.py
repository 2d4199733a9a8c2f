"""Verdict and reason of access decisions; empty for other responses."""

from __future__ import annotations

import pytest

from authproxy_core import StoreError, UpstreamSettings
from authproxy_core.effects import Flow, Load
from authproxy_core.messages import Decision
from authproxy_core.pages.outcomes import with_error_handling
from support.harness import Harness, settings

STRICT = settings(provider={"allowed_groups": ("admins",)})
UPSTREAMS = (
    UpstreamSettings(id="app", uri="http://10.0.0.9:8080/"),
    UpstreamSettings(id="fixed", path="/fixed", uri="", static_code=200),
)


def verdict(decision: Decision) -> tuple[str, str]:
    return decision.verdict, decision.reason


@pytest.mark.parametrize("target", ["/oauth2/auth", "/oauth2/userinfo", "/page"])
def test_verdict_without_session_unauthenticated(harness: Harness, target: str) -> None:
    assert verdict(harness.get(target)) == ("unauthenticated", "no_session")


@pytest.mark.parametrize("skips", [False, True])
def test_verdict_login_challenge_unauthenticated(skips: bool) -> None:
    harness = Harness(settings(skip_provider_button=skips))
    response = harness.get("/page")
    assert response.status == (302 if skips else 403)
    assert verdict(response) == ("unauthenticated", "no_session")


def test_verdict_api_request_without_session_unauthenticated(harness: Harness) -> None:
    response = harness.get("/page", (b"accept", b"application/json"))
    assert verdict(response) == ("unauthenticated", "no_session")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/page", "/fixed", "/fixed/not"])
def test_verdict_session_allowed(target: str) -> None:
    harness = Harness(settings(upstreams=UPSTREAMS))
    harness.log_in()
    assert verdict(harness.send(target)) == ("allowed", "session")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/oauth2/userinfo", "/page"])
def test_verdict_forbidden_session_denied(harness: Harness, target: str) -> None:
    harness.log_in("bob")
    harness.proxy = harness.new_proxy(STRICT)
    assert verdict(harness.get(target)) == ("denied", "groups")


@pytest.mark.parametrize("target", ["/oauth2/auth", "/page"])
def test_verdict_query_constraint_denied(harness: Harness, target: str) -> None:
    harness.log_in()
    response = harness.get(f"{target}?allowed_groups=none")
    assert verdict(response) == ("denied", "query")


@pytest.mark.parametrize("target", ["/ping", "/robots.txt", "/oauth2/sign_in"])
def test_verdict_empty_for_pages_and_health_checks(
    harness: Harness, target: str
) -> None:
    assert verdict(harness.get(target)) == ("", "")


def test_verdict_kept_in_response_with_cookies() -> None:
    harness = Harness(settings(cookie={"refresh": 60.0}))
    harness.log_in()
    harness.clock.now += 61
    response = harness.get("/oauth2/auth")
    assert any(name == b"set-cookie" for name, _ in response.headers)
    assert verdict(response) == ("allowed", "session")


def test_verdict_store_unavailable_failed(harness: Harness) -> None:
    def flow() -> Flow[Decision]:
        yield from Load("key")
        raise AssertionError

    outer = with_error_handling(flow())
    next(outer)
    with pytest.raises(StopIteration) as end:
        outer.throw(StoreError("unavailable"))
    assert verdict(end.value.value) == ("failed", "store_unavailable")
