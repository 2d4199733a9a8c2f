"""Logins through the whole server, as browsers and gateways send them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from authproxy_core.login.loop_guard import LOOP_THRESHOLD
from support.login import Answer, Browser, Provider
from support.ports import LOOPBACK
from support.program import Program

WORKERS = 2


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@contextlib.contextmanager
def running(directory: Path, provider: Provider, **options: Any) -> Iterator[Browser]:
    """Run a server; yield a browser without cookies."""
    with Program(directory, **provider.options(), **options) as program:
        browser = provider.browser()
        program.wait_until(lambda: is_ready(browser))
        yield browser


def is_ready(browser: Browser) -> bool:
    with contextlib.suppress(OSError):
        return browser.get("/ready").status == 200
    return False


def log_in(browser: Browser, rd: str) -> Answer:
    started = browser.get(f"/oauth2/start?rd={quote(rd, safe='')}")
    assert started.status == 302, started.status
    back = urlsplit(browser.provider.idp.log_in(started.headers["location"], "alice"))
    return browser.get(f"{back.path}?{back.query}")


def test_denied_user_leaves_login_loop_of_gateway(
    tmp_path: Path, provider: Provider
) -> None:
    """Traefik's errors middleware replaces 401 to 403 by a page that starts a login.

    The replaced response's cookies are lost. All workers count together.
    """
    options = {"email_domains": ["other.example"], "workers": WORKERS}
    with running(tmp_path, provider, **options) as browser:
        callbacks = 0
        response = browser.get("/oauth2/sign_in")
        while response.status not in range(404, 500):
            kept = dict(browser.jar._values)
            response = log_in(browser, "/deep")
            callbacks += 1
            assert callbacks <= LOOP_THRESHOLD
            if response.status in range(401, 404):
                browser.jar._values = kept
        assert response.status == 429
        assert b"does not have access" in response.body


@pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
def test_deep_link_survives_login(
    tmp_path: Path, provider: Provider, form: str
) -> None:
    with running(tmp_path, provider, cookie_format=form) as browser:
        for size in (2_500, 8_000, 16_384):
            rd = ("/app?q=" + "0123456789abcdef" * 1_024)[:size]
            response = log_in(browser, rd)
            assert (response.status, response.headers["location"]) == (302, rd)
        rd = "/app?q=" + "x" * 16_384
        response = browser.get(f"/oauth2/start?rd={rd}")
        assert response.status == 414
        assert b"too long" in response.body


@pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
def test_session_found_behind_cookies_of_same_name(
    tmp_path: Path, provider: Provider, form: str
) -> None:
    with running(tmp_path, provider, cookie_format=form) as browser:
        log_in(browser, "/")
        url = f"http://{LOOPBACK}:{browser.port}/"
        session = browser.jar.sent_to(url)
        for line, status in (
            (session, 202),
            (f"_oauth2_proxy=old; {session}", 202),
            (f"{session}; _oauth2_proxy=old", 202),
            ("_oauth2_proxy=old; _oauth2_proxy=older", 401),
            ("; ".join(["_oauth2_proxy=x"] * 900), 401),
            ("; ".join(["_oauth2_proxy=x"] * 2_000), 431),
        ):
            browser.jar.sent_to = lambda _, line=line: line  # type: ignore[method-assign, misc]
            assert browser.get("/oauth2/auth").status == status
