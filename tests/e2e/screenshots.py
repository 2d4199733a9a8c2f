"""Take the screenshots of README and docs: ``python tests/e2e/screenshots.py``.

They show a real Keycloak and authproxy in headless Chromium.
"""

from __future__ import annotations

import base64
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from authproxy_core.session import Session
from support.browser import start_browser
from support.certificates import make_certificate
from support.keycloak import ADMIN, PASSWORD, Keycloak, launch_keycloak
from support.ports import LOOPBACK, free_port
from support.program import Program, session_cookie
from support.programs import ROOT, find

IMAGES = ROOT / "docs" / "images"
REALM = "main"
APP = "http://app.example.com"
WAIT = 120  # seconds
SETTLED = 1.5  # seconds until the animations of a page have ended
QUALITY = 70  # of WebP


class Camera:
    """A browser that writes pictures of its page."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        browser.set_page_load_timeout(WAIT)
        browser.set_window_size(1000, 760)

    def find(self, selector: str, text: str = "") -> WebElement:
        """Wait for the element with *selector* and, if given, *text*."""

        def found(browser: Chrome) -> WebElement | None:
            elements = browser.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in elements if text in ("", one.text)), None)

        return WebDriverWait(self.browser, WAIT).until(found)  # type: ignore[arg-type]

    def click(self, selector: str, text: str = "") -> None:
        """Click also what is outside of the window."""
        self.browser.execute_script("arguments[0].click()", self.find(selector, text))

    def type(self, selector: str, text: str) -> None:
        """Replace the value of an input field."""
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def take(self, name: str) -> None:
        """Write ``NAME.webp``."""
        time.sleep(SETTLED)
        options = {"format": "webp", "quality": QUALITY}
        picture = self.browser.execute_cdp_cmd("Page.captureScreenshot", options)
        (IMAGES / f"{name}.webp").write_bytes(base64.b64decode(picture["data"]))


def take_keycloak(camera: Camera, keycloak: Keycloak) -> None:
    """Fill in the forms of a new client, as in docs/keycloak.md."""
    keycloak.admin("POST", "", {"realm": REALM, "enabled": True})
    url = f"http://127.0.0.1:{keycloak.http_port}/admin/master/console/#/{REALM}"
    camera.browser.get(f"{url}/clients/add-client")
    camera.type("#username", ADMIN)
    camera.type("#password", PASSWORD)
    camera.click("#kc-login")
    camera.type("#clientId", "oauth2-proxy")
    camera.click("button", "Next")
    camera.click("#kc-authentication")
    camera.click("#kc-pkce-required-switch")
    camera.find("#keyForCodeExchange")
    camera.take("keycloak-capability")
    camera.click("button", "Next")
    camera.type(
        "[data-testid=redirectUris0]", "https://app.example.com/oauth2/callback"
    )
    logout = "[data-testid='attributes.post🍺logout🍺redirect🍺uris0']"
    camera.type(logout, "https://app.example.com/*")
    camera.take("keycloak-login-settings")


def take_authproxy(camera: Camera, folder: Path, port: int) -> None:
    """Show the sign-in page, and the page of a user without access."""
    with Program(
        folder,
        http_address=f"{LOOPBACK}:{port}",
        provider="keycloak-oidc",
        provider_display_name="Keycloak",
        email_domains=["other.example"],
        cookie_secure=False,
        banner="-",
        reverse_proxy=True,
    ) as program:
        program.started()
        camera.browser.set_window_size(760, 560)
        camera.browser.get(f"{APP}/oauth2/sign_in?rd=/")
        camera.take("sign-in")
        session = Session(user="alice", email="alice@example.com")
        name, _, value = session_cookie(session).partition("=")
        camera.browser.add_cookie({"name": name, "value": value})
        camera.browser.set_window_size(760, 720)
        camera.browser.get(f"{APP}/reports/2026")
        camera.take("no-access")


def main() -> None:
    """Start the programs, and write all pictures."""
    script, chromium, driver = map(find, ("keycloak", "chromium", "chromedriver"))
    assert script, "keycloak is not installed"
    assert chromium, "chromium is not installed"
    assert driver, "chromedriver is not installed"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate = make_certificate(folder, "127.0.0.1")
        keycloak = launch_keycloak(script, folder, certificate, free_port())
        port = free_port()
        resolve = f"--host-resolver-rules=MAP app.example.com:80 {LOOPBACK}:{port}"
        browser = start_browser(chromium, driver, folder, {}, resolve)
        try:
            take_keycloak(Camera(browser), keycloak)
            take_authproxy(Camera(browser), folder, port)
        finally:
            browser.quit()
            keycloak.process.stop()


if __name__ == "__main__":
    main()
