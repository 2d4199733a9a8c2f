"""Session cookies for the benchmarks, with tokens of the development provider."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
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
COOKIE_BYTES = 3800  # of oauth2-proxy's cookie


def realistic_session(issuer: str) -> Session:
    """Return a session as from Keycloak; its cookie has about `COOKIE_BYTES` bytes."""
    padding = 0
    while True:
        session = log_in(DevProvider(provider_config(issuer, padding)), issuer)
        size = len(
            OAuth2ProxyFormat((SECRET,), NAME).write_session(session, iv=bytes(16))
        )
        if size >= COOKIE_BYTES:
            return session
        padding += max((COOKIE_BYTES - size) // 3, 8)


def provider_config(issuer: str, padding: int = 0) -> ProviderConfig:
    """Return the configuration of a provider that `log_in` can use."""
    user = User(
        name="alice", password="x", groups=("admins", "staff"), roles=("admin",)
    )
    return ProviderConfig(
        issuer=issuer,
        users=(user,),
        clients=(Client(redirect_uris=(CALLBACK,)),),
        padding=padding,
        rotate_refresh_tokens=False,
    )


def log_in(provider: DevProvider, issuer: str) -> Session:
    """Return the session of a login at *provider*."""
    client = Client()
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
    response = decide_sync(proxy.handle(request), perform)
    assert response.status == 302, response
    cookies = [
        value.partition(b";")[0]
        for name, value in response.headers
        if name == b"set-cookie" and b"Max-Age=0" not in value
    ]
    request = Request(
        b"GET", b"/", (host, (b"cookie", b"; ".join(cookies))), "127.0.0.1"
    )
    session = proxy.identify(request)
    assert isinstance(session, Session)
    return session


def write_cookies(
    file: Path, session: Session, count: int, *, oauth2_proxy: bool
) -> int:
    """Write cookies of *count* users, one per line; return the size of a value."""
    now = time.time()
    users = (
        msgspec.structs.replace(
            session,
            created_at=now,
            user=f"user-{number}",
            email=f"user-{number}@example.com",
        )
        for number in range(count)
    )
    return write_sessions(file, users, oauth2_proxy=oauth2_proxy)


def write_sessions(
    file: Path, sessions: Iterable[Session], *, oauth2_proxy: bool
) -> int:
    """Write the cookies of *sessions*, one per line; return the size of the last."""
    interop, sealer = OAuth2ProxyFormat((SECRET,), NAME), Sealer((SECRET,))
    now = time.time()
    size = 0
    with file.open("wb") as stream:
        for session in sessions:
            one = msgspec.structs.replace(session, provider="")
            if oauth2_proxy:
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
