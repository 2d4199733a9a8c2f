"""Responses of the proxy endpoints: scripts, frames, caches, leaks (rows OU)."""

from __future__ import annotations

import json
import urllib.parse

import pytest

from .harness import GATEWAY, NAVIGATION, Harness, encode, set_cookies

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
def test_ou01_request_data_escaped_in_pages(
    harness: Harness, rd: str, page: str
) -> None:
    quoted = urllib.parse.quote(rd, safe="")
    response = harness.request(f"{page}?rd={quoted}&error={quoted}&state={quoted}")
    text = response.body.decode()
    for bad in ("<script>alert", "<img src=x", 'href="javascript', "36863"):
        assert bad not in text, bad
    assert "'unsafe-inline'" not in response.headers["content-security-policy"]


def test_ou02_userinfo_with_markup_is_json(harness: Harness) -> None:
    response = harness.request("/oauth2/userinfo", cookies=harness.log_in("mallory"))
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "<b>x</b>" in json.loads(response.body)["groups"]


@pytest.mark.parametrize(
    "target", ["/oauth2/<script>", "/oauth2/nothing", "/%3Cscript%3Ealert(1)"]
)
def test_ou04_request_path_not_shown(harness: Harness, target: str) -> None:
    response = harness.request(target)
    assert b"<script>alert" not in response.body
    assert b"<script></" not in response.body


@pytest.mark.parametrize(
    "target", ["/oauth2/userinfo", "/oauth2/auth", "/oauth2/sign_in", "/ping"]
)
def test_ou05_ou22_no_cors_headers(
    harness: Harness, bob: dict[str, str], target: str
) -> None:
    for cookies in (None, bob):
        response = harness.request(
            target, cookies=cookies, origin="https://evil.example"
        )
        assert not any(name.startswith("access-control") for name in response.headers)


def test_ou05_userinfo_without_tokens(harness: Harness, bob: dict[str, str]) -> None:
    body = harness.request("/oauth2/userinfo", cookies=bob).body
    assert b"token" not in body.lower()
    assert b"ey" not in body.split(b'"')[0::2]


@pytest.mark.parametrize("page", PAGES)
def test_ou07_ou08_pages_forbid_frames_and_scripts(harness: Harness, page: str) -> None:
    response = harness.request(page, **NAVIGATION)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"


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
def test_ou10_ou11_responses_not_cacheable(
    harness: Harness, bob: dict[str, str], target: str
) -> None:
    for cookies in (None, bob):
        response = harness.request(target, cookies=cookies)
        if response.status == 202 or (response.status == 200 and target == "/app"):
            continue  # read by the gateway only; or the application's response
        assert "no-store" in response.headers["cache-control"], response.head


def test_ou13_responses_name_no_program(harness: Harness, bob: dict[str, str]) -> None:
    for data in (
        *(encode(target) for target in (*PAGES, "/ping", "/oauth2/auth", "/nothing")),
        encode("/", cookies=bob),
        encode("/", method="TRACE"),
        encode("/", host="a b"),
        b"nonsense\r\n\r\n",
    ):
        response = harness.send(data)
        for name in ("server", "x-powered-by", "via", "x-generator"):
            assert name not in response.headers
        assert b"authproxy/" not in response.head + response.body
        assert b"python" not in (response.head + response.body).lower()


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
def test_ou16_debug_paths_denied(harness: Harness, target: str) -> None:
    harness.assert_denied(target, source=GATEWAY)


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
def test_ou19_location_is_one_valid_field(
    harness: Harness, bob: dict[str, str], rd: str
) -> None:
    response = harness.request(f"/oauth2/sign_out?rd={rd}", cookies=bob)
    assert response.status in (302, 400)
    location = response.headers.get("location", "/")
    assert location.isascii()
    assert " " not in location
    assert all("a=b" not in line for line in set_cookies(response))


def test_ou20_cookie_attributes_without_request_data(
    harness: Harness, bob: dict[str, str]
) -> None:
    for response in (
        harness.request("/oauth2/start?rd=/x;Domain=evil", host="evil.example"),
        harness.request("/oauth2/sign_out?rd=/;path=/x", cookies=bob, host="b.example"),
    ):
        assert set_cookies(response)
        for line in set_cookies(response):
            assert "evil" not in line.partition("=")[2].partition(";")[2]
            attributes = line.lower().split("; ")
            # Only the deletion of a cookie that was set for the whole domain has one.
            domains = [part for part in attributes if part.startswith("domain=")]
            assert not domains or "max-age=0" in attributes
            assert set(domains) <= {"domain=b.example"}
            assert "; Path=/;" in line


@pytest.mark.parametrize("target", ["/oauth2/start", "/oauth2/sign_out"])
def test_ou23_redirect_after_post_drops_the_body(harness: Harness, target: str) -> None:
    """307 and 308 would send the form to the redirect target."""
    kind = "application/x-www-form-urlencoded"
    response = harness.request(target, method="POST", body=b"rd=/x", content_type=kind)
    assert response.status in (302, 303)


def test_ou25_no_token_in_redirect_targets(
    harness: Harness, bob: dict[str, str]
) -> None:
    for target in ("/oauth2/start", "/oauth2/sign_out"):
        location = harness.request(target, cookies=bob).headers["location"]
        assert "eyJ" not in location
        assert "token=" not in location
