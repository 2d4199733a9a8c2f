"""Own pages and answers: scripts, frames, caches, leaks (rows OU)."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from .scene import GATEWAY, NAVIGATION, Scene, set_cookies

SCRIPTS = (
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "';alert(1)//",
    "/{{191*193}}",
    "/</script><script>alert(1)</script>",
    "/<img src=x onerror=alert(1)>",
    "/%22%3E%3Cscript%3E",
)
PAGES = ("/oauth2/sign_in", "/oauth2/callback?error=access_denied&state=x", "/app")


@pytest.mark.parametrize("rd", SCRIPTS)
@pytest.mark.parametrize("page", ["/oauth2/sign_in", "/oauth2/callback"])
def test_ou01_nothing_of_a_request_runs_in_a_page(
    scene: Scene, rd: str, page: str
) -> None:
    quoted = urllib.parse.quote(rd, safe="")
    answer = scene.ask(f"{page}?rd={quoted}&error={quoted}&state={quoted}")
    text = answer.body.decode()
    for bad in ("<script>alert", "<img src=x", 'href="javascript', "36863"):
        assert bad not in text, bad
    assert "'unsafe-inline'" not in answer.headers["content-security-policy"]


def test_ou02_names_with_markup_are_json(scene: Scene) -> None:
    answer = scene.ask("/oauth2/userinfo", cookies=scene.log_in("mallory"))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "<b>x</b>" in json.loads(answer.body)["groups"]


@pytest.mark.parametrize(
    "target", ["/oauth2/<script>", "/oauth2/nothing", "/%3Cscript%3Ealert(1)"]
)
def test_ou04_paths_are_not_shown(scene: Scene, target: str) -> None:
    answer = scene.ask(target)
    assert b"<script>alert" not in answer.body
    assert b"<script></" not in answer.body


@pytest.mark.parametrize(
    "target", ["/oauth2/userinfo", "/oauth2/auth", "/oauth2/sign_in", "/ping"]
)
def test_ou05_ou22_no_other_origin_may_read(
    scene: Scene, bob: dict[str, str], target: str
) -> None:
    for cookies in (None, bob):
        answer = scene.ask(target, cookies=cookies, origin="https://evil.example")
        assert not any(name.startswith("access-control") for name in answer.headers)


def test_ou05_userinfo_has_no_tokens(scene: Scene, bob: dict[str, str]) -> None:
    body = scene.ask("/oauth2/userinfo", cookies=bob).body
    assert b"token" not in body.lower()
    assert b"ey" not in body.split(b'"')[0::2]


@pytest.mark.parametrize("page", PAGES)
def test_ou07_ou08_pages_can_not_be_framed_or_scripted(scene: Scene, page: str) -> None:
    answer = scene.ask(page, **NAVIGATION)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "target",
    [
        *PAGES,
        "/oauth2/start",
        "/oauth2/sign_out",
        "/oauth2/userinfo",
        "/oauth2/auth",
        "/oauth2/auth?allowed_groups=x",
    ],
)
def test_ou10_ou11_nothing_of_it_is_stored(
    scene: Scene, bob: dict[str, str], target: str
) -> None:
    for cookies in (None, bob):
        answer = scene.ask(target, cookies=cookies)
        if answer.status == 202 or (answer.status == 200 and target == "/app"):
            continue  # a grant, which the gateway takes; the app's own answer
        assert "no-store" in answer.headers["cache-control"], answer.head


@pytest.mark.parametrize(
    "target",
    [
        "/debug/pprof/",
        "/oauth2/debug",
        "/metrics",
        "/oauth2/metrics",
        "/oauth2/static/../../etc/passwd",
        "/.git/config",
    ],
)
def test_ou16_nothing_for_developers_is_served(scene: Scene, target: str) -> None:
    scene.denied(target, source=GATEWAY)


@pytest.mark.parametrize(
    "rd",
    [
        "/%0d%0aset-cookie:%20a=b",
        "/%0aLocation:%20//evil",
        "/a%20b",
        "/%e4%b8%ad",
        "/" + "a" * 9_000,
    ],
)
def test_ou19_locations_are_one_field(
    scene: Scene, bob: dict[str, str], rd: str
) -> None:
    answer = scene.ask(f"/oauth2/sign_out?rd={rd}", cookies=bob)
    assert answer.status in (302, 400)
    location = answer.headers.get("location", "/")
    assert location.isascii()
    assert " " not in location
    assert all("a=b" not in line for line in set_cookies(answer))


def test_ou20_cookies_are_not_made_of_request_data(
    scene: Scene, bob: dict[str, str]
) -> None:
    for answer in (
        scene.ask("/oauth2/start?rd=/x;Domain=evil", host="evil.example"),
        scene.ask("/oauth2/sign_out?rd=/;path=/x", cookies=bob, host="b.example"),
    ):
        assert set_cookies(answer)
        for line in set_cookies(answer):
            assert "evil" not in line.partition("=")[2].partition(";")[2]
            assert "domain" not in line.lower()
            assert "; Path=/;" in line


@pytest.mark.parametrize("target", ["/oauth2/start", "/oauth2/sign_out"])
def test_ou23_after_a_post_the_browser_gets(scene: Scene, target: str) -> None:
    """A redirect that would send the form on is 307 or 308."""
    kind = "application/x-www-form-urlencoded"
    answer = scene.ask(target, method="POST", body=b"rd=/x", content_type=kind)
    assert answer.status in (302, 303)


def test_ou25_no_token_in_an_address(scene: Scene, bob: dict[str, str]) -> None:
    for target in ("/oauth2/start", "/oauth2/sign_out"):
        location = scene.ask(target, cookies=bob).headers["location"]
        assert "eyJ" not in location
        assert "token=" not in location
