"""Test harness of the attacks: a provider, an application and authproxy.

Requests are raw bytes. They come from the gateway, a trusted proxy, or from another
client. Every response is checked for what no response may contain.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, User
from authproxy_devprovider.provider import DevProvider
from authproxy_devprovider.provider import serve as serve_provider
from support import workers
from support.echo import EchoApp
from support.program import Program
from support.server import Answer, Wire

CLIENT, GATEWAY = "127.0.0.1", "127.0.0.2"
HOST = "app.example.com"
CLIENT_ID, CLIENT_SECRET = "app", "hidden-client-secret"
NAVIGATION = {
    "accept": "text/html,application/xhtml+xml",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}
IDENTITY = (
    "gap-auth",
    "authorization",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
    "x-auth-request-access-token",
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-access-token",
)
USERS = (
    User(name="alice", password="pw", groups=("admins", "staff"), roles=("admin",)),
    User(name="bob", password="pw", groups=("staff",)),
    User(
        name="mallory",
        password="pw",
        full_name='<script>alert("x")</script>',
        groups=("<b>x</b>", "a,admins", "x\r\nset-cookie: a=b"),
    ),
)


class Harness:
    """A running program with its peers; ``app`` counts the forwarded requests."""

    def __init__(self, program: Program, app: EchoApp, idp: DevProvider) -> None:
        self.program = program
        self.app = app
        self.idp = idp

    def request(
        self, target: str = "/", *lines: str | bytes, source: str = CLIENT, **parts: Any
    ) -> Answer:
        """Send a request, made as by `encode`, and return the response."""
        method = parts.get("method", "GET")
        return self.send(encode(target, *lines, **parts), source, method)

    def send(self, data: bytes, source: str = CLIENT, method: str = "GET") -> Answer:
        """Send raw bytes and return the response."""
        with Wire(self.program.port, source) as wire:
            wire.send(data)
            response = wire.answer(head_only=method == "HEAD")
        return checked(response)

    def request_each(
        self, target: str, *, source: str = CLIENT, **parts: Any
    ) -> list[Answer]:
        """Send the same request to each worker; return their responses."""
        data = encode(target, **parts)
        port = self.program.port
        responses = workers.send_to_each(self.program, port, data, source=source)
        return [checked(response) for response in responses]

    def assert_denied(self, *request: Any, **parts: Any) -> Answer:
        """Assert that a request is not forwarded and the response has no identity."""
        before = self.app.count
        response = self.request(*request, **parts)
        denials = (302, 400, 401, 403, 404, 405, 413, 414, 431)
        assert response.status in denials, response
        for name in IDENTITY:
            assert name not in response.headers, (name, response)
        assert self.app.count == before, "the application was reached"
        if response.status == 302:
            target = urllib.parse.urlsplit(response.headers["location"])
            login = urllib.parse.urlsplit(self.idp.config.issuer)
            assert target.netloc == login.netloc or (
                target.netloc == "" and target.path.startswith("/oauth2")
            )
        return response

    def forwarded_fields(self, *request: Any, **parts: Any) -> list[tuple[str, str]]:
        """Return the header fields with which the application received a request."""
        response = self.request(*request, **parts)
        assert response.status == 200, response
        return [(name, value) for name, value in json.loads(response.body)["headers"]]

    def log_in(self, user: str = "alice", rd: str = "/") -> dict[str, str]:
        """Return the cookies of a new session."""
        jar: dict[str, str] = {}
        started = self.request(f"/oauth2/start?rd={urllib.parse.quote(rd, safe='')}")
        store_cookies(jar, started)
        callback = self.idp.log_in(started.headers["location"], user)
        finished = self.request(target_of(callback), cookies=jar)
        assert finished.status == 302, finished
        store_cookies(jar, finished)
        return jar


def encode(
    target: str,
    *lines: str | bytes,
    method: str = "GET",
    host: str = HOST,
    cookies: dict[str, str] | None = None,
    body: bytes = b"",
    **headers: str,
) -> bytes:
    """Return a request as bytes; *lines* are header lines that are sent unchanged.

    In the names of *headers*, ``_`` stands for ``-``.
    """
    head = [f"{method} {target} HTTP/1.1".encode("latin-1")]
    head += [f"Host: {host}".encode()] if host else []
    head += [
        line.encode("latin-1") if isinstance(line, str) else line for line in lines
    ]
    head += [
        f"{name.replace('_', '-')}: {value}".encode("latin-1")
        for name, value in headers.items()
    ]
    if cookies:
        pairs = "; ".join(f"{name}={value}" for name, value in cookies.items())
        head.append(f"Cookie: {pairs}".encode())
    if body:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def checked(response: Answer) -> Answer:
    """Return *response* after asserting that it leaks no internals."""
    assert "server" not in response.headers
    assert b"Traceback" not in response.body
    assert CLIENT_SECRET.encode() not in response.head + response.body
    return response


def target_of(url: str) -> str:
    """Return the request target of *url*."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def store_cookies(jar: dict[str, str], response: Answer) -> None:
    """Apply the Set-Cookie fields of *response* to *jar* as a browser does."""
    for line in set_cookies(response):
        pair, _, attributes = line.partition(";")
        name, _, value = pair.partition("=")
        if "max-age=0" in attributes.lower():
            jar.pop(name, None)
        else:
            jar[name] = value


def set_cookies(response: Answer) -> list[str]:
    """Return the values of all Set-Cookie fields."""
    return [
        line.partition(":")[2].strip()
        for line in response.head.decode("latin-1").split("\r\n")
        if line.lower().startswith("set-cookie:")
    ]


@contextmanager
def running_harness(folder: Path, **changes: Any) -> Iterator[Harness]:
    """A harness whose program has the options *changes*."""
    config = ProviderConfig(
        users=USERS,
        clients=(
            DemoClient(
                id=CLIENT_ID,
                secret=CLIENT_SECRET,
                redirect_uris=(
                    f"http://{HOST}/oauth2/callback",
                    f"https://{HOST}/oauth2/callback",
                ),
            ),
        ),
    )
    idp = DevProvider(config)
    with (
        serve_provider(idp),
        EchoApp() as app,
        Program(
            folder,
            **{
                "provider": "keycloak-oidc",
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
                "oidc_issuer_url": idp.config.issuer,
                "skip_oidc_discovery": None,
                "login_url": None,
                "redeem_url": None,
                "oidc_jwks_url": None,
                "reverse_proxy": True,
                "trusted_proxy_ips": [GATEWAY],
                "set_xauthrequest": True,
                "pass_access_token": True,
                "pass_authorization_header": True,
                "whitelist_domains": [".example.com"],
                "upstreams": [f"http://127.0.0.1:{app.port}/"],
                "workers": 2,
            }
            | changes,
        ) as program,
    ):
        count = changes.get("workers", 2)
        program.started()
        program.wait_until(lambda: len(program.workers) == (count if count > 1 else 0))
        program.wait_until(
            lambda: workers.statuses(program, program.port, target="/ready") == {200}
        )
        yield Harness(program, app, idp)
