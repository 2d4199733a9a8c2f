"""``authproxy demo``: three servers, a login, a graceful shutdown."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import pytest

from support.processes import Process, listens

# Options of another deployment, which the demonstration must ignore.
FOREIGN = {
    "OAUTH2_PROXY_PROVIDER": "github",
    "OAUTH2_PROXY_COOKIE_SECRET": "short",
    "OAUTH2_PROXY_UPSTREAMS": "http://127.0.0.1:1/",
}
PATH = {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def start(folder: Path, *arguments: str) -> Process:
    command = [sys.executable, "-m", "authproxy", "demo", *arguments]
    return Process("demo", command, folder=folder, environment={**FOREIGN, **PATH})


class Demo:
    """The running demonstration, with a browser without scripts."""

    def __init__(self, process: Process) -> None:
        self.process = process
        log = process.log()
        self.url = re.findall(r"open +(\S+)", log)[0]
        self.password = re.findall(r"password +(\S+)", log)[0]
        self.port = urlsplit(self.url).port or 0
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(self.cookies),
        )

    def open(
        self, url: str, form: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Return status, URL and text after all redirects."""
        data = urlencode(form).encode() if form is not None else None
        try:
            with self._opener.open(urljoin(self.url, url), data, 10) as response:
                return response.status, response.url, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.url, error.read().decode()

    def sign_in(self, name: str, password: str, rd: str) -> tuple[int, str, str]:
        """Start a login, submit the provider's form; returns the final page."""
        _, url, page = self.open(f"/oauth2/start?{urlencode({'rd': rd})}")
        action = html.unescape(re.findall(r'<form [^>]*action="([^"]*)"', page)[0])
        form = {"username": name, "password": password, "action": "login"}
        return self.open(urljoin(url, action), form)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with start(tmp_path, "--port", "0") as process:
        process.wait_until(lambda: "Stop with Ctrl-C." in process.log())
        demo = Demo(process)
        assert demo.open("/ready")[0] == 200  # else users cannot sign in yet
        yield demo


def headers_of(text: str) -> dict[str, Any]:
    return dict(json.loads(text)["headers"])


def test_banner_shows_users_and_warning(demo: Demo) -> None:
    log = demo.process.log()
    assert "NOT FOR PRODUCTION" in log
    assert "alice (admin staff), bob (staff)" in log
    assert "unavailable" not in log


def test_users_sign_in_and_out(demo: Demo) -> None:
    status, _, page = demo.open("/")
    assert status == 403
    assert "the demo provider" in page
    target = "/headers.json?a=1&b=%2F"
    status, url, text = demo.sign_in("alice", demo.password, target)
    assert (status, url) == (200, urljoin(demo.url, target))
    headers = headers_of(text)
    assert headers["x-forwarded-email"] == "alice@example.com"
    assert headers["x-forwarded-preferred-username"] == "alice"
    assert headers["x-forwarded-groups"] == (
        "admin,staff,role:admin,role:authproxy:editor"
    )
    assert "cookie" not in headers
    status, _, page = demo.open("/")
    assert "Hello, alice" in page
    sign_out = re.findall(r'href="(/oauth2/sign_out[^"]*)"', page)[0]
    assert demo.open(html.unescape(sign_out))[0] == 403
    _, _, text = demo.sign_in("bob", demo.password, "/headers.json")
    assert headers_of(text)["x-forwarded-groups"] == "staff"


def test_wrong_password_stays_at_provider(demo: Demo) -> None:
    status, url, page = demo.sign_in("alice", demo.password + "x", "/")
    assert status == 200
    assert urlsplit(url).path == "/authorize"
    assert "Incorrect username or password" in page
    assert demo.open("/")[0] == 403


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_all_servers(demo: Demo, number: int) -> None:
    _, provider_url, _ = demo.open("/oauth2/start?rd=/")
    provider_port = urlsplit(provider_url).port or 0
    assert listens(demo.port)
    assert listens(provider_port)
    demo.process.signal(number)
    assert demo.process.wait() == 0
    assert not listens(demo.port)
    assert not listens(provider_port)
    assert "Traceback" not in demo.process.log()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_right_after_start_exits(tmp_path: Path, number: int) -> None:
    with start(tmp_path, "--port", "0") as process:
        process.wait_until(lambda: "Stop with Ctrl-C." in process.log())
        process.signal(number)
        assert process.wait(8) == 0
        assert "Traceback" not in process.log()


def test_servers_listen_on_loopback_only(demo: Demo) -> None:
    # A wildcard listener would accept connections to 127.0.0.2.
    assert not listens(demo.port, "127.0.0.2")


def test_taken_port_logged(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start(tmp_path, "--port", str(port)) as process:
            assert process.wait() == 1
            assert f"can't listen on 127.0.0.1:{port}" in process.log()
            assert "--port" in process.log()
            assert "password" not in process.log()


@pytest.mark.parametrize("port", ["x", "65536", "-1"])
def test_invalid_port_rejected(tmp_path: Path, port: str) -> None:
    with start(tmp_path, f"--port={port}") as process:
        assert process.wait() == 2
        assert "--port" in process.log()
