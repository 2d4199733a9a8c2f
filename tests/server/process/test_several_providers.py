"""The program with several providers: logins over real sockets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from support.http import Client, Reply
from support.in_thread import InThread
from support.ports import LOOPBACK
from support.processes import Process
from support.program import ROOT, SECRET

GITHUB = {
    "/user/orgs?per_page=100&page=1": [{"login": "acme"}],
    "/user/orgs?per_page=100&page=2": [],
    "/user/teams?per_page=100&page=1": [],
    "/user": {"login": "alice"},
    "/user/emails": [
        {"email": "alice@acme.example", "primary": True, "verified": True}
    ],
    "/": {},
}
ACCOUNT = {"account": {"email": "bob@example.com", "email_verified": True}}


class _ApiHandler(BaseHTTPRequestHandler):
    """GitHub under /github, DigitalOcean under /ocean."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        form = parse_qs(body.decode())
        valid = form.get("code") == ["code-1"]
        self._send_json(
            {"access_token": f"token-of{self.path}"} if valid else {"error": "x"}
        )

    def do_GET(self) -> None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        if self.path.startswith("/github") and token == "token-of/github/token":
            responses: dict[str, Any] = GITHUB if scheme == "token" else {}
            self._send_json(responses[self.path.removeprefix("/github")])
        elif self.path == "/ocean/me" and token == "token-of/ocean/token":
            self._send_json(ACCOUNT)
        else:
            self.send_response(401)
            self.send_header("content-length", "0")
            self.end_headers()

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def apis() -> Iterator[str]:
    """The base URL of the provider APIs."""
    server = ThreadingHTTPServer((LOOPBACK, 0), _ApiHandler)
    server.daemon_threads = True
    with InThread(server) as running:
        yield f"http://{LOOPBACK}:{running.port}"


ALPHA = """
providers:
- id: github
  provider: github
  clientID: web
  clientSecret: hidden-one
  loginURL: {apis}/github/authorize
  redeemURL: {apis}/github/token
  validateURL: {apis}/github/
  githubConfig: {{org: acme}}
- id: ocean
  name: Partners
  provider: digitalocean
  clientID: app
  clientSecret: hidden-two
  loginURL: {apis}/ocean/authorize
  redeemURL: {apis}/ocean/token
  profileURL: {apis}/ocean/me
  validateURL: {apis}/ocean/me
- id: bound
  provider: github
  clientID: other
  clientSecret: hidden-three
  hosts: [partners.example.com]
injectResponseHeaders:
- {{name: X-User, values: [{{claimSource: {{claim: user}}}}]}}
- {{name: X-Groups, values: [{{claimSource: {{claim: groups}}}}]}}
server: {{bindAddress: '127.0.0.1:0'}}
"""


class MultiProviderProgram(Process):
    """authproxy with an alpha configuration."""

    def __init__(self, directory: Path, apis: str) -> None:
        file = directory / "alpha.yaml"
        file.write_text(ALPHA.format(apis=apis))
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
        super().__init__(
            "authproxy",
            [sys.executable, "-m", "authproxy", f"--alpha-config={file}"],
            folder=directory,
            environment={
                "PYTHONPATH": path,
                "OAUTH2_PROXY_COOKIE_SECRET": SECRET,
                "OAUTH2_PROXY_COOKIE_SECURE": "false",
                "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
                "OAUTH2_PROXY_WORKERS": "1",
            },
        )

    def url(self) -> str:
        self.wait_until(lambda: "listening on" in self.log())
        address = self.log().partition("listening on ")[2].split()[0]
        return address.rstrip(",")


def log_in(client: Client, base: str, provider: str) -> Reply:
    started = client.get(f"{base}/oauth2/start?rd=/&provider={provider}")
    assert started.status == 302
    state, path = started.query["state"], urlsplit(started.query["redirect_uri"]).path
    return client.get(f"{base}{path}?code=code-1&state={state}")


def test_login_with_each_provider(tmp_path: Path, apis: str) -> None:
    with MultiProviderProgram(tmp_path, apis) as program:
        base = program.url()
        client = Client()
        page = client.get(f"{base}/oauth2/sign_in").text
        assert "Sign in with GitHub" in page
        assert "Sign in with Partners" in page
        assert page.count("Sign in with") == 2
        for path in ("/oauth2/callback\n", "/oauth2/callback/ocean\n"):
            assert f"callback URL: http://HOST{path}" in program.log()
        assert log_in(client, base, "github").status == 302
        check = client.get(f"{base}/oauth2/auth")
        assert check.status == 202
        assert check.header("gap-auth") == "alice@acme.example"
        assert (check.header("x-user"), check.header("x-groups")) == ("alice", "acme")
        other = client.get(f"{base}/oauth2/auth", host="partners.example.com")
        assert other.status == 401
        assert log_in(client, base, "ocean").status == 302
        check = client.get(f"{base}/oauth2/auth")
        assert check.header("gap-auth") == "bob@example.com"
        start = client.get(f"{base}/oauth2/start", host="partners.example.com")
        assert urlsplit(start.location).netloc == "github.com"
        assert client.get(f"{base}/ready").status == 200
        assert "hidden" not in program.log()
