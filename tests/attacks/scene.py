"""The scene of the attacks: a provider, an app, and authproxy in front of it.

Requests are raw bytes. They come from the gateway, whose word is believed, or from a
stranger. Every answer is looked at for what no answer may have.
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
from support.echo import EchoApp
from support.program import Program
from support.server import Answer, Wire

STRANGER, GATEWAY = "127.0.0.1", "127.0.0.2"
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


class Scene:
    """What a test talks to; ``app`` counts what got through."""

    def __init__(self, program: Program, app: EchoApp, idp: DevProvider) -> None:
        self.program = program
        self.app = app
        self.idp = idp

    def ask(
        self,
        target: str = "/",
        *lines: str | bytes,
        method: str = "GET",
        source: str = STRANGER,
        host: str = HOST,
        cookies: dict[str, str] | None = None,
        body: bytes = b"",
        **headers: str,
    ) -> Answer:
        """The answer to a request; *lines* are sent as they are.

        Header names in *headers* have ``_`` for ``-``.
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
        return self.raw(b"\r\n".join(head) + b"\r\n\r\n" + body, source, method)

    def raw(self, data: bytes, source: str = STRANGER, method: str = "GET") -> Answer:
        """The answer to raw bytes."""
        with Wire(self.program.port, source) as wire:
            wire.send(data)
            answer = wire.answer(head_only=method == "HEAD")
        assert "server" not in answer.headers
        assert b"Traceback" not in answer.body
        assert CLIENT_SECRET.encode() not in answer.head + answer.body
        return answer

    def denied(self, *request: Any, **how: Any) -> Answer:
        """The answer to a request that must not get through, nor say who anybody is."""
        before = self.app.count
        answer = self.ask(*request, **how)
        assert answer.status in (302, 400, 401, 403, 404, 405, 413, 414, 431), answer
        for name in IDENTITY:
            assert name not in answer.headers, (name, answer)
        assert self.app.count == before, "the app was reached"
        if answer.status == 302:
            where = urllib.parse.urlsplit(answer.headers["location"])
            login = urllib.parse.urlsplit(self.idp.config.issuer)
            assert (where.netloc, where.path[:7]) in (
                ("", "/oauth2"),
                (login.netloc, where.path[:7]),
            )
        return answer

    def received(self, *request: Any, **how: Any) -> list[tuple[str, str]]:
        """The fields that the app received of a request that gets through."""
        answer = self.ask(*request, **how)
        assert answer.status == 200, answer
        return [(name, value) for name, value in json.loads(answer.body)["headers"]]

    def log_in(self, user: str = "alice", rd: str = "/") -> dict[str, str]:
        """The cookies of a new session."""
        jar: dict[str, str] = {}
        begun = self.ask(f"/oauth2/start?rd={urllib.parse.quote(rd, safe='')}")
        keep(jar, begun)
        callback = self.idp.log_in(begun.headers["location"], user)
        ended = self.ask(target_of(callback), cookies=jar)
        assert ended.status == 302, ended
        keep(jar, ended)
        return jar


def target_of(url: str) -> str:
    """The target of a request for *url*."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def keep(jar: dict[str, str], answer: Answer) -> None:
    """Do with Set-Cookie what a browser does."""
    for line in set_cookies(answer):
        pair, _, attributes = line.partition(";")
        name, _, value = pair.partition("=")
        if "max-age=0" in attributes.lower():
            jar.pop(name, None)
        else:
            jar[name] = value


def set_cookies(answer: Answer) -> list[str]:
    """The values of all Set-Cookie fields."""
    return [
        line.partition(":")[2].strip()
        for line in answer.head.decode("latin-1").split("\r\n")
        if line.lower().startswith("set-cookie:")
    ]


@contextmanager
def opened(folder: Path, **changes: Any) -> Iterator[Scene]:
    """A scene with the options *changes*."""
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
        workers = changes.get("workers", 2)
        program.wait_until(lambda: program.log().count("[provider_ready]") >= workers)
        yield Scene(program, app, idp)
