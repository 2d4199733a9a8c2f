"""Sessions for the benchmark: real tokens of the development provider, sealed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec

from authproxy_core import (
    AuthProxy,
    CookieSettings,
    Fetch,
    ProviderSettings,
    Request,
    Respond,
    Secret,
    Session,
    Settings,
    decide_sync,
    drive_sync,
)
from authproxy_core.sessions.codec import encode_session
from authproxy_core.sessions.oauth2_proxy_format import OAuth2ProxyFormat
from authproxy_core.sessions.sealing import Sealer
from authproxy_devprovider.config import Client, ProviderConfig, User
from authproxy_devprovider.provider import DevProvider

NAME = "_oauth2_proxy"
SECRET = Secret(b"0123456789abcdef0123456789abcdef")
CALLBACK = "https://app.example.com/oauth2/callback"
TARGET = 3800  # bytes of oauth2-proxy's cookie


def realistic_session(issuer: str) -> Session:
    """A session as Keycloak's users have them, with a cookie of about `TARGET` bytes."""
    padding = 0
    while True:
        session = _logged_in(issuer, padding)
        size = len(
            OAuth2ProxyFormat((SECRET,), NAME).write_session(session, iv=bytes(16))
        )
        if size >= TARGET:
            return session
        padding += max((TARGET - size) // 3, 8)


def _logged_in(issuer: str, padding: int) -> Session:
    user = User(
        name="alice", password="x", groups=("admins", "staff"), roles=("admin",)
    )
    client = Client(redirect_uris=(CALLBACK,))
    config = ProviderConfig(
        issuer=issuer, users=(user,), clients=(client,), padding=padding
    )
    provider = DevProvider(config)
    settings = Settings(
        cookie=CookieSettings(secrets=(SECRET,)),
        providers=(
            ProviderSettings(
                id="kc",
                type="keycloak-oidc",
                client_id=client.id,
                client_secret=Secret(client.secret),
                issuer=issuer,
            ),
        ),
        email_domains=("*",),
    )
    proxy = AuthProxy(settings)

    def perform(effect: Any) -> Any:
        return provider.fetch(effect) if isinstance(effect, Fetch) else True

    drive_sync(proxy.warm_up(), perform)
    host = (b"host", b"app.example.com")
    started = proxy.handle(Request(b"GET", b"/oauth2/start", (host,), "127.0.0.1"))
    assert isinstance(started, Respond)
    values = dict(started.headers)
    cookie = values[b"set-cookie"].partition(b";")[0]
    back = provider.log_in(values[b"location"].decode(), "alice")
    target = back.removeprefix("https://app.example.com").encode()
    request = Request(b"GET", target, (host, (b"cookie", cookie)), "127.0.0.1")
    answer = decide_sync(proxy.handle(request), perform)
    assert answer.status == 302, answer
    cookies = [
        value.partition(b";")[0]
        for name, value in answer.headers
        if name == b"set-cookie" and b"Max-Age=0" not in value
    ]
    seen = Request(b"GET", b"/", (host, (b"cookie", b"; ".join(cookies))), "127.0.0.1")
    session = proxy.identify(seen)
    assert isinstance(session, Session)
    return session


def write_cookies(file: Path, session: Session, count: int, *, original: bool) -> int:
    """Write *count* Cookie lines of different users; the size of one value in bytes."""
    interop, sealer = OAuth2ProxyFormat((SECRET,), NAME), Sealer((SECRET,))
    now = time.time()
    size = 0
    with file.open("wb") as stream:
        for number in range(count):
            one = msgspec.structs.replace(
                session,
                provider="",
                created_at=now,
                user=f"user-{number}",
                email=f"user-{number}@example.com",
            )
            if original:
                value = interop.write_session(one, iv=os.urandom(16))
            else:
                value = sealer.seal(
                    f"session:{NAME}".encode(),
                    encode_session(one),
                    issued_at=now,
                    nonce=os.urandom(12),
                )
            size = len(value)
            stream.write(NAME.encode() + b"=" + value + b"\n")
    return size
