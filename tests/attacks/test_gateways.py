"""Attacks through gateways and during failures (rows FA and HT)."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import pytest

from .harness import CLIENT, GATEWAY, NAVIGATION, Harness, running_harness, target_of

AMBIGUOUS = (
    "//admin",
    "/public/../admin",
    "/public/..%2fadmin",
    "/public/%2e%2e/admin",
    "/public;/../admin",
    "/public\\..\\admin",
    "/public%00",
)


def forwarded(
    uri: str, method: str = "GET", host: str = "other.example.com"
) -> dict[str, str]:
    """Return the forwarded headers that Traefik and Caddy send with an auth check."""
    return {
        "x_forwarded_method": method,
        "x_forwarded_proto": "https",
        "x_forwarded_host": host,
        "x_forwarded_uri": uri,
        "x_forwarded_for": "203.0.113.9",
    }


def test_fa02_provider_failure_denies_logins_and_keeps_sessions(tmp_path: Path) -> None:
    with running_harness(tmp_path) as harness:
        alice = harness.log_in("alice")
        started = harness.request("/oauth2/start")
        callback = harness.idp.log_in(started.headers["location"], "alice")
        harness.idp.config.failing["token"] = 503
        harness.assert_denied("/oauth2/auth", source=GATEWAY)
        response = harness.request(target_of(callback))
        assert response.status >= 400
        assert harness.request("/oauth2/auth", cookies=alice).status == 202


def test_fa08_forwarded_headers_of_untrusted_client_ignored(
    harness: Harness, bob: dict[str, str]
) -> None:
    harness.assert_denied("/oauth2/auth", source=CLIENT, **forwarded("/ping"))
    location = harness.request(
        "/oauth2/start", source=CLIENT, **forwarded("/", host="evil.example")
    ).headers["location"]
    assert "evil.example" not in urllib.parse.unquote(location)


@pytest.mark.parametrize("uri", AMBIGUOUS)
@pytest.mark.parametrize("source", [CLIENT, GATEWAY])
def test_fa11_ambiguous_paths_denied(harness: Harness, uri: str, source: str) -> None:
    harness.assert_denied("/oauth2/auth", source=source, **forwarded(uri))
    harness.assert_denied(uri, source=source)


def test_fa16_auth_endpoint_ignores_the_body(
    harness: Harness, bob: dict[str, str]
) -> None:
    body = b"x" * 200_000
    harness.assert_denied("/oauth2/auth", method="POST", body=body, source=GATEWAY)
    response = harness.request(
        "/oauth2/auth", method="POST", body=b"x" * 9000, cookies=bob
    )
    assert response.status == 202


def test_fa19_auth_endpoint_denial_is_small(harness: Harness) -> None:
    response = harness.assert_denied("/oauth2/auth", source=GATEWAY, **NAVIGATION)
    assert response.status == 401
    assert len(response.head) + len(response.body) < 1000


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_fa20_decision_does_not_depend_on_the_method(
    harness: Harness, bob: dict[str, str], method: str
) -> None:
    harness.assert_denied("/oauth2/auth", method=method, source=GATEWAY)
    harness.assert_denied("/oauth2/auth", source=GATEWAY, **forwarded("/x", method))
    query = "/oauth2/auth?allowed_groups=admins"
    harness.assert_denied(query, method=method, source=GATEWAY, cookies=bob)
    response = harness.request("/oauth2/auth", method=method, cookies=bob)
    assert response.status == 202


@pytest.mark.parametrize(
    "target", ["/", "/robots.txt", "/ping", "/oauth2/sign_in", "/favicon.ico"]
)
def test_fa23_no_path_reaches_the_application_without_session(
    harness: Harness, target: str
) -> None:
    before = harness.app.count
    harness.request(target, host="unknown.example")
    harness.request(
        target, host="unknown.example", source=GATEWAY, **forwarded("/admin")
    )
    assert harness.app.count == before


def test_ht16_request_without_host_denied(harness: Harness) -> None:
    response = harness.send(b"GET / HTTP/1.0\r\n\r\n")
    assert response.status in (302, 400, 401, 403)


def test_ht31_pages_not_compressed(harness: Harness) -> None:
    """Compression would reveal a secret next to reflected text by its size (BREACH)."""
    response = harness.request(
        "/oauth2/sign_in?rd=/x", accept_encoding="br, gzip, deflate"
    )
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    "accept",
    ["*/*;q=" + "0" * 9_000, ";;;,,,", "application/json", "text/html;q=nan", ""],
)
def test_ht32_decision_does_not_depend_on_accept(
    harness: Harness, bob: dict[str, str], accept: str
) -> None:
    harness.assert_denied("/app", accept=accept)
    harness.assert_denied(
        "/oauth2/auth?allowed_groups=admins", accept="a/b", cookies=bob
    )


@pytest.mark.parametrize(
    "target",
    ["http://evil.example/", "http://127.0.0.1:9/", "http://app.example.com/x"],
)
def test_ht35_absolute_form_does_not_choose_the_upstream(
    harness: Harness, bob: dict[str, str], target: str
) -> None:
    before = harness.app.count
    response = harness.request(target, cookies=bob)
    assert response.status in (200, 400)
    assert harness.app.count - before == (1 if response.status == 200 else 0)
