"""Chromium with server-sent events and WebSockets over HTTP/2 and TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websockets

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider
from authproxy_devprovider.provider import serve as serve_provider
from support.browser import start_browser
from support.certificates import make_certificate
from support.ports import LOOPBACK
from support.program import Program

from .conftest import require

pytestmark = pytest.mark.e2e
APP = "https://app.example.com"
WAIT = 20  # seconds
PAGE = b"""<!doctype html><title>streams</title><ul id="seen"></ul><script>
const add = text => {
  const item = document.createElement("li")
  item.textContent = text
  document.getElementById("seen").append(item)
}
const events = new EventSource("/events")
events.onmessage = event => add("event " + event.data)
const socket = new WebSocket("wss://" + location.host + "/ws?x=1")
socket.onopen = () => socket.send("hello")
socket.onmessage = event => {
  add("socket " + event.data)
  if (event.data === "echo hello") socket.send("close")
}
socket.onclose = event => add("closed " + event.code + " " + event.reason)
fetch("/").then(() => add("protocol " + performance.getEntriesByType("navigation")[0].nextHopProtocol))
</script>"""


class _App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/events":
            self._events()
            return
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        resume: threading.Event = self.server.resume  # type: ignore[attr-defined]
        self.wfile.write(b"data: one\n\n")
        if resume.wait(WAIT):
            self.wfile.write(b"data: two\n\n")
        self.server.closing.wait(WAIT)  # type: ignore[attr-defined]
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class Events:
    """The application; it sends the second event when ``resume`` is set."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _App)
        self._server.daemon_threads = True
        self.resume = self._server.resume = threading.Event()  # type: ignore[attr-defined]
        self._closing = self._server.closing = threading.Event()  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()


def echo(socket: ServerConnection) -> None:
    """Echo messages; close on the message ``close``."""
    user = socket.request.headers.get("x-forwarded-email") if socket.request else ""
    for message in socket:
        if message == "close":
            socket.close(4001, f"bye {user}")
            return
        socket.send(f"echo {message!s}")


@pytest.fixture
def websocket_port() -> Iterator[int]:
    with serve_websockets(echo, LOOPBACK, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def provider() -> Iterator[DevProvider]:
    client = DemoClient(id="web", secret="s", redirect_uris=(f"{APP}/oauth2/callback",))
    provider = DevProvider(
        ProviderConfig(users=example_users("secret"), clients=(client,))
    )
    with serve_provider(provider):
        yield provider


def items(browser: Chrome) -> list[str]:
    """Return the list items of the page."""
    return [item.text for item in browser.find_elements(By.TAG_NAME, "li")]


def test_events_and_websockets_stream_through_the_proxy(
    tmp_path: Path, provider: DevProvider, websocket_port: int
) -> None:
    chromium, driver = require("chromium"), require("chromedriver")
    certificate = make_certificate(tmp_path, "app.example.com")
    with (
        Events() as app,
        Program(
            tmp_path,
            client_secret="s",
            oidc_issuer_url=provider.config.issuer,
            skip_oidc_discovery=None,
            login_url=None,
            redeem_url=None,
            oidc_jwks_url=None,
            https_address=f"{LOOPBACK}:0",
            tls_cert_file=certificate.cert_file,
            tls_key_file=certificate.key_file,
            upstreams=[
                f"http://{LOOPBACK}:{app.port}/",
                f"http://{LOOPBACK}:{websocket_port}/ws",
            ],
        ) as program,
    ):
        resolve = {"app.example.com": program.port}
        browser = start_browser(chromium, driver, tmp_path, resolve)
        try:
            browser.get(f"{APP}/page")
            browser.find_element(By.CSS_SELECTOR, "a.button").click()
            wait = WebDriverWait(browser, WAIT)
            wait.until(lambda found: found.find_elements(By.NAME, "username"))
            browser.find_element(By.NAME, "username").send_keys("alice")
            browser.find_element(By.NAME, "password").send_keys("secret")
            browser.find_element(By.CSS_SELECTOR, "form button").click()
            wait.until(lambda found: found.current_url == f"{APP}/page")

            wait.until(lambda found: "event one" in items(found))
            wait.until(lambda found: "protocol h2" in items(found))
            wait.until(
                lambda found: "closed 4001 bye alice@example.com" in items(found)
            )
            assert "socket echo hello" in items(browser)
            # The first event arrived before the response was complete.
            assert "event two" not in items(browser)
            app.resume.set()
            wait.until(lambda found: "event two" in items(found))
        finally:
            browser.quit()
