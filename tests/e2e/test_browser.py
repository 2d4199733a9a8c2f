"""Chromium: deep link, sign-in page, Keycloak, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from support.browser import start_browser
from support.certificates import Certificate
from support.echo import EchoApp
from support.keycloak import APP, PASSWORD, WRONG_AUDIENCE
from support.peers import AUTHPROXY, OAUTH2_PROXY, AuthServer
from support.programs import ROOT
from support.traefik import Traefik

from .conftest import DEPLOY_NGINX, Gateway, require

pytestmark = pytest.mark.e2e
Start = Callable[..., AuthServer]
MakeGateway = Callable[..., Gateway]
WAIT = 20  # seconds


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[Gateway], Chrome]]:
    """Open a browser that resolves the application to the gateway."""
    chromium, driver = require("chromium"), require("chromedriver")
    browsers: list[Chrome] = []

    def opener(front: Gateway) -> Chrome:
        folder = tmp_path / f"browser-{len(browsers)}"
        folder.mkdir()
        resolve = {"app.example.com": front.port}
        browsers.append(start_browser(chromium, driver, folder, resolve))
        return browsers[-1]

    yield opener
    for browser in browsers:
        browser.quit()


def log_in_at_keycloak(browser: Chrome, user: str = "lisan123") -> None:
    WebDriverWait(browser, WAIT).until(
        lambda found: found.find_elements(By.ID, "username")
    )
    browser.find_element(By.ID, "username").send_keys(user)
    browser.find_element(By.ID, "password").send_keys(PASSWORD)
    browser.find_element(By.ID, "kc-login").click()


def wait_for_url(browser: Chrome, url: str) -> None:
    """Wait until the browser is at *url*."""
    WebDriverWait(browser, WAIT).until(lambda found: found.current_url == url)


def csp_violations(browser: Chrome) -> list[str]:
    """Return the violations of the Content Security Policy that the browser logged."""
    return [
        record["message"]
        for record in browser.get_log("browser")
        if "Content Security Policy" in record["message"]
    ]


def test_deep_link_login_and_sign_out(
    start: Start,
    gateway: MakeGateway,
    open_browser: Callable[[Gateway], Chrome],
    tmp_path: Path,
) -> None:
    front = gateway(start(), DEPLOY_NGINX)
    browser = open_browser(front)
    deep = f"{APP}/deep/link?x=1&next=https://other.example/#part"
    browser.get(deep)
    button = browser.find_element(By.CSS_SELECTOR, "a.button")
    assert button.text == "Sign in with Keycloak"
    assert browser.save_screenshot(str(tmp_path / "sign_in.png"))
    assert csp_violations(browser) == []
    button.click()
    log_in_at_keycloak(browser)
    wait_for_url(browser, deep)
    assert "lisan123@example.com" in browser.page_source
    browser.get(f"{APP}/oauth2/sign_out?rd=/")
    wait_for_url(browser, f"{APP}/")
    assert browser.find_element(By.CSS_SELECTOR, "a.button")
    assert not [
        cookie
        for cookie in browser.get_cookies()
        if cookie["name"].startswith("_oauth2_proxy")
    ]


def test_failed_login_page_names_the_cause(
    start: Start,
    gateway: MakeGateway,
    open_browser: Callable[[Gateway], Chrome],
    tmp_path: Path,
) -> None:
    server = start(environment={"OAUTH2_PROXY_CLIENT_ID": WRONG_AUDIENCE})
    browser = open_browser(gateway(server))
    browser.get(f"{APP}/oauth2/start")
    log_in_at_keycloak(browser)
    WebDriverWait(browser, WAIT).until(
        lambda found: found.find_elements(By.CSS_SELECTOR, ".id code")
    )
    assert "audience" in browser.find_element(By.CSS_SELECTOR, ".message").text
    assert csp_violations(browser) == []
    assert browser.save_screenshot(str(tmp_path / "error.png"))


@pytest.mark.parametrize("program", [AUTHPROXY, OAUTH2_PROXY])
def test_reference_sign_in_page_starts_the_login(
    program: str,
    start: Start,
    app: EchoApp,
    certificate: Certificate,
    open_browser: Callable[[Gateway], Chrome],
    tmp_path: Path,
) -> None:
    """Behind Traefik, the custom page starts the login by itself.

    The page sends its own absolute URL as ``rd``, because Traefik's ``errors``
    middleware does not forward the original URI.
    """
    folder = tmp_path / "templates"
    folder.mkdir()
    text = (ROOT / "tests" / "e2e" / "reference_sign_in.html").read_text()
    (folder / "sign_in.html").write_text(text)
    server = start(
        program,
        environment={
            "OAUTH2_PROXY_CUSTOM_TEMPLATES_DIR": str(folder),
            "OAUTH2_PROXY_WHITELIST_DOMAINS": "app.example.com",
        },
    )
    with Traefik(server.port, app.port, certificate) as traefik:
        browser = open_browser(Gateway(traefik.port))
        browser.get(f"{APP}/deep/link?x=1")
        log_in_at_keycloak(browser)
        wait_for_url(browser, f"{APP}/deep/link?x=1")
        assert "lisan123" in browser.page_source
        assert csp_violations(browser) == []
