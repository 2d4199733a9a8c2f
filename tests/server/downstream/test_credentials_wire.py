"""Auth bypass, passwords and bearer tokens end to end."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from authproxy_devprovider.config import Client as IdpClient
from authproxy_devprovider.config import ProviderConfig, User
from authproxy_devprovider.provider import DevProvider, serve
from support.echo import EchoApp
from support.http import Client
from support.processes import wait_for
from support.program import Program
from support.server import Wire

PASSWORD = "right horse"


@pytest.fixture
def provider() -> Iterator[DevProvider]:
    """An identity provider that issues tokens."""
    user = User(name="alice", password="pw")
    provider = DevProvider(
        ProviderConfig(users=(user,), clients=(IdpClient(id="web"),))
    )
    with serve(provider):
        yield provider


@pytest.fixture
def program(tmp_path: Path, provider: DevProvider) -> Iterator[Program]:
    """authproxy in front of an application, with all kinds of credentials enabled."""
    htpasswd = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
    htpasswd.write_text(f"ann:{hashed}\n")
    with ExitStack() as running:
        app = running.enter_context(EchoApp())
        values: dict[str, Any] = {
            "oidc_issuer_url": provider.config.issuer,
            "skip_oidc_discovery": None,
            "login_url": None,
            "redeem_url": None,
            "oidc_jwks_url": None,
            "cookie_secure": False,
            "upstreams": [f"http://127.0.0.1:{app.port}/"],
            "skip_auth_routes": ["GET=^/public/"],
            "skip_jwt_bearer_tokens": True,
            "htpasswd_file": str(htpasswd),
            "htpasswd_user_groups": ["crew"],
        }
        started = running.enter_context(Program(tmp_path, **values))
        wait_for(lambda: "[provider_ready]" in started.log(), "the provider", 20.0)
        yield started


def url(program: Program, path: str) -> str:
    return f"http://127.0.0.1:{program.port}{path}"


def token(provider: DevProvider, **claims: Any) -> str:
    now = int(time.time())
    values = {
        "iss": provider.config.issuer,
        "sub": "robot",
        "aud": "web",
        "azp": "web",
        "iat": now,
        "exp": now + 60,
        "email": "robot@example.com",
    } | claims
    return provider.tokens.keys.sign(values, "RS256", {})


def test_skip_auth_route_path_variants_rejected(program: Program) -> None:
    for target, status in (
        ("/public/x?y", 200),
        ("/admin", 403),
        ("/public/../admin", 403),
        ("/public/%2e%2e/admin", 403),
        ("/public/..%2fadmin", 403),
        ("/public//admin", 403),
        ("/public/..;/admin", 403),
        ("/public/%00", 403),
        ("/public/#/../admin", 400),
        ("//public/x", 403),
    ):
        with Wire(program.port) as wire:
            wire.send(f"GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n".encode())
            response = wire.answer()
        assert response.status == status, target
        assert (b'"target"' in response.body) == (status == 200), target
    with Wire(program.port) as wire:
        wire.send(b"POST /public/x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
        assert wire.answer().status == 403


def test_unusual_request_lines_forwarded_in_origin_form(program: Program) -> None:
    """UTF-8, absolute-form, unknown methods and HTTP/1.0 reach the upstream."""
    for line, target, host in (
        ("GET /public/ä?ü HTTP/1.1", "/public/%C3%A4?%C3%BC", "a.example"),
        ("GET http://b.example/public/x?y HTTP/1.1", "/public/x?y", "b.example"),
        ("GET /public/x HTTP/1.0", "/public/x", "localhost"),
    ):
        fields = "" if line.endswith("1.0") else "host: a.example\r\n"
        with Wire(program.port) as wire:
            wire.send(f"{line}\r\n{fields}\r\n".encode())
            seen = json.loads(wire.answer().body)
        assert (seen["target"], dict(seen["headers"])["host"]) == (target, host)
    pair = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    with Wire(program.port) as wire:
        fields = f"host: a\r\nauthorization: Basic {pair}\r\n"
        wire.send(f"FOO /x HTTP/1.1\r\n{fields}\r\n".encode())
        response = wire.answer()  # the application has no such method
        assert (response.status, b"'FOO'" in response.body) == (501, True)
    with Wire(program.port) as wire:
        wire.send(b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.answer().status == 200


@pytest.mark.parametrize(
    "line",
    [
        "GET http://a/admin HTTP/1.1", "GET http://a/public/../admin HTTP/1.1",
        "GET http://public/admin HTTP/1.1", "GET http://a?/public/ HTTP/1.1",
        "GET http://a//public/x HTTP/1.1", "GET /public/ä/../../admin HTTP/1.1",
        "GET /public/\u2024\u2024/admin HTTP/1.1", "FOO /public/x HTTP/1.1",
        "GET /admin HTTP/1.0", "OPTIONS http://a/public/x HTTP/1.1",
    ],
)  # fmt: skip
def test_sk_unusual_request_lines_need_a_login(program: Program, line: str) -> None:
    with Wire(program.port) as wire:
        wire.send(f"{line}\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        response = wire.answer()
    assert response.status == 403
    assert b'"target"' not in response.body


def test_sk17_skip_auth_route_long_path_is_fast(program: Program) -> None:
    started = time.monotonic()
    with Wire(program.port) as wire:
        wire.send(b"GET /" + b"a" * 12_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n")
        assert wire.answer().status == 403
    assert time.monotonic() - started < 10.0  # not minutes, as with backtracking


def test_htpasswd_accepted_in_field_and_form(program: Program) -> None:
    pair = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    client = Client()
    reply = client.get(url(program, "/x"), authorization=f"Basic {pair}")
    headers = dict(reply.json["headers"])
    assert headers["x-forwarded-user"] == "ann"
    assert headers["x-forwarded-groups"] == "crew"
    assert not client.cookies.named("_oauth2_proxy")
    page = client.get(url(program, "/oauth2/sign_in?rd=/deep"))
    assert '<form class="actions" method="post"' in page.text
    form = {"username": "ann", "password": PASSWORD, "rd": "/deep"}
    wrong = client.submit(url(program, "/oauth2/sign_in"), {**form, "password": "no"})
    assert wrong.status == 401
    back = client.submit(url(program, "/oauth2/sign_in"), form)
    assert (back.status, back.location) == (302, url(program, "/deep"))
    page = client.get(url(program, "/deep"))
    assert dict(page.json["headers"])["x-forwarded-user"] == "ann"
    assert PASSWORD not in program.log()
    assert pair not in program.log()


@pytest.mark.parametrize(
    "path", ["/oauth2/auth", "/oauth2/userinfo", "/x", "/public/x"]
)
def test_wrong_basic_password_is_auth_failure_with_client(
    program: Program, path: str
) -> None:
    """A line of the auth log with the address, for fail2ban."""
    pair = base64.b64encode(f"mallory{path}:no".encode()).decode()
    reply = Client().get(url(program, path), authorization=f"Basic {pair}")
    expected = ["Basic"] if reply.status == 401 else []
    challenges = [text.partition(" ")[0] for text in reply.all("WWW-Authenticate")]
    assert challenges == expected
    line = rf"(?m)^127\.0\.0\.1:\d+ - \S+ - mallory{path} \[[^]]+\] \[AuthFailure\] "
    program.wait_until(lambda: bool(re.search(line, program.log())))


def test_htpasswd_change_is_reloaded(program: Program, tmp_path: Path) -> None:
    pair = base64.b64encode(f"ann:{PASSWORD}".encode()).decode()
    field = {"authorization": f"Basic {pair}"}
    assert Client().get(url(program, "/oauth2/auth"), **field).status == 202
    hashed = bcrypt.hashpw(b"other", bcrypt.gensalt(5)).decode()
    fresh = tmp_path / "htpasswd.new"
    fresh.write_text(f"ann:{hashed}\n")
    fresh.replace(tmp_path / "htpasswd")
    wait_for(
        lambda: Client().get(url(program, "/oauth2/auth"), **field).status == 401,
        "the new htpasswd file",
        15.0,
    )


def test_bearer_token_accepted_and_forged_rejected(
    program: Program, provider: DevProvider
) -> None:
    good = token(provider)
    for _ in range(2):
        reply = Client().get(url(program, "/x"), authorization=f"Bearer {good}")
        assert dict(reply.json["headers"])["x-forwarded-email"] == "robot@example.com"
    for bad in (token(provider, aud="other"), good[:-8] + "AAAAAAAA", "opaque"):
        field = {"authorization": f"Bearer {bad}"}
        assert Client().get(url(program, "/oauth2/auth"), **field).status == 401
    wait_for(lambda: "bearer token rejected" in program.log(), "a line")
    assert good not in program.log()
