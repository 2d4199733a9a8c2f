"""Behind gateways, and when things fail (rows FA)."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

import pytest

from .scene import GATEWAY, NAVIGATION, STRANGER, Scene, opened, target_of

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
    """What Traefik and Caddy say about the request that they ask for."""
    return {
        "x_forwarded_method": method,
        "x_forwarded_proto": "https",
        "x_forwarded_host": host,
        "x_forwarded_uri": uri,
        "x_forwarded_for": "203.0.113.9",
    }


def test_fa02_without_a_provider_nobody_gets_in(tmp_path: Path) -> None:
    """It fails before anybody has logged in; sessions of before live on."""
    with opened(tmp_path) as scene:
        alice = scene.log_in("alice")
        begun = scene.ask("/oauth2/start")
        callback = scene.idp.log_in(begun.headers["location"], "alice")
        scene.idp.config.failing["token"] = 503
        scene.denied("/oauth2/auth", source=GATEWAY)
        answer = scene.ask(target_of(callback))
        assert answer.status >= 400
        assert scene.ask("/oauth2/auth", cookies=alice).status == 202


def test_fa08_a_stranger_at_the_auth_endpoint_is_not_believed(
    scene: Scene, bob: dict[str, str]
) -> None:
    scene.denied("/oauth2/auth", source=STRANGER, **forwarded("/ping"))
    location = scene.ask(
        "/oauth2/start", source=STRANGER, **forwarded("/", host="evil.example")
    ).headers["location"]
    assert "evil.example" not in urllib.parse.unquote(location)


@pytest.mark.parametrize("uri", AMBIGUOUS)
@pytest.mark.parametrize("source", [STRANGER, GATEWAY])
def test_fa11_ambiguous_paths_open_nothing(scene: Scene, uri: str, source: str) -> None:
    scene.denied("/oauth2/auth", source=source, **forwarded(uri))
    scene.denied(uri, source=source)


def test_fa16_a_body_is_no_matter_of_the_auth_endpoint(
    scene: Scene, bob: dict[str, str]
) -> None:
    body = b"x" * 200_000
    scene.denied("/oauth2/auth", method="POST", body=body, source=GATEWAY)
    answer = scene.ask("/oauth2/auth", method="POST", body=b"x" * 9000, cookies=bob)
    assert answer.status == 202


def test_fa19_refusals_are_small(scene: Scene) -> None:
    answer = scene.denied("/oauth2/auth", source=GATEWAY, **NAVIGATION)
    assert answer.status == 401
    assert len(answer.head) + len(answer.body) < 1000


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
def test_fa20_every_method_meets_the_same_decision(
    scene: Scene, bob: dict[str, str], method: str
) -> None:
    scene.denied("/oauth2/auth", method=method, source=GATEWAY)
    scene.denied("/oauth2/auth", source=GATEWAY, **forwarded("/x", method))
    query = "/oauth2/auth?allowed_groups=admins"
    scene.denied(query, method=method, source=GATEWAY, cookies=bob)
    answer = scene.ask("/oauth2/auth", method=method, cookies=bob)
    assert answer.status == 202


@pytest.mark.parametrize(
    "target", ["/", "/robots.txt", "/ping", "/oauth2/sign_in", "/favicon.ico"]
)
def test_fa23_no_path_serves_the_app_to_a_stranger(scene: Scene, target: str) -> None:
    before = scene.app.count
    scene.ask(target, host="unknown.example")
    scene.ask(target, host="unknown.example", source=GATEWAY, **forwarded("/admin"))
    assert scene.app.count == before


def test_ht16_a_request_without_host_is_no_way_in(scene: Scene) -> None:
    answer = scene.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.status in (302, 400, 401, 403)


def test_ht31_pages_are_not_compressed(scene: Scene) -> None:
    """A secret beside reflected text could be guessed by the size of both."""
    answer = scene.ask("/oauth2/sign_in?rd=/x", accept_encoding="br, gzip, deflate")
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    "accept",
    ["*/*;q=" + "0" * 9_000, ";;;,,,", "application/json", "text/html;q=nan", ""],
)
def test_ht32_the_decision_does_not_hang_on_accept(
    scene: Scene, bob: dict[str, str], accept: str
) -> None:
    scene.denied("/app", accept=accept)
    scene.denied("/oauth2/auth?allowed_groups=admins", accept="a/b", cookies=bob)


@pytest.mark.parametrize(
    "target",
    ["http://evil.example/", "http://127.0.0.1:9/", "http://app.example.com/x"],
)
def test_ht35_the_upstream_is_not_chosen_by_the_request(
    scene: Scene, bob: dict[str, str], target: str
) -> None:
    before = scene.app.count
    answer = scene.ask(target, cookies=bob)
    assert answer.status in (200, 400)
    assert scene.app.count - before == (1 if answer.status == 200 else 0)
