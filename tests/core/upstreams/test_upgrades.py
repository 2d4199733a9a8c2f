"""Protocol upgrades, and the session re-check of open tunnels."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Any

import msgspec
import pytest

from authproxy_core import (
    Forward,
    Respond,
    Secret,
    Upstream,
    UpstreamSettings,
)
from authproxy_core.messages import Header, Headers, header_values
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import SessionSettings
from support.fleet import Fleet
from support.forwarding import APP, WEBSOCKET, field_names, forward, signed_in
from support.harness import Harness, rule, settings, with_changes


def upstream_at(path: str, rewrite: str = "", **changes: Any) -> UpstreamSettings:
    return UpstreamSettings(
        id=path, path=path, uri="http://x", rewrite_target=rewrite, **changes
    )


# -- upgrades


def test_forward_websocket_upgrade() -> None:
    harness = signed_in(inject_request_headers=(rule("X-Forwarded-User", "user"),))
    decision = forward(harness, "/ws", *WEBSOCKET)
    assert decision.upgrade
    assert header_values(decision.headers, b"upgrade") == [b"websocket"]
    assert b"sec-websocket-version" in field_names(decision)
    assert header_values(decision.headers, b"x-forwarded-user") != [b""]
    assert not forward(harness, "/ws").upgrade


@pytest.mark.parametrize(
    "headers",
    [
        ((b"upgrade", b"websocket"),),
        ((b"upgrade", b"websocket"), (b"connection", b"close")),
        ((b"upgrade", b"h2c"), (b"connection", b"upgrade, http2-settings")),
        ((b"upgrade", b"HTTP/2.0"), (b"connection", b"upgrade")),
        ((b"upgrade", b"TLS/1.0"), (b"connection", b"upgrade")),
        ((b"upgrade", b"websocket, h2c"), (b"connection", b"upgrade")),
        ((b"upgrade", b"a/"), (b"connection", b"upgrade")),
        ((b"upgrade", b"websocket"), *WEBSOCKET),
        ((b"content-length", b"5"), *WEBSOCKET),
        ((b"transfer-encoding", b"chunked"), *WEBSOCKET),
    ],
)
def test_forward_rejected_upgrade_omits_it(headers: Headers) -> None:
    decision = forward(signed_in(), "/", *headers)
    assert not decision.upgrade
    assert b"upgrade" not in field_names(decision)


def test_forward_other_protocol_upgrade() -> None:
    spdy = ((b"upgrade", b"SPDY/3.1"), (b"connection", b"Upgrade"))
    decision = forward(signed_in(), "/", *spdy, (b"content-length", b"0"))
    assert header_values(decision.headers, b"upgrade") == [b"SPDY/3.1"]


def test_forward_upgrade_disabled_by_option() -> None:
    assert not forward(
        signed_in(upstream_at("/", proxy_websockets=False)), "/", *WEBSOCKET
    ).upgrade


def test_upgrade_without_session_returns_401() -> None:
    harness = Harness(settings(upstreams=(APP,)))
    assert harness.get("/", *WEBSOCKET).status == 401


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        (b"https://app.example.com", True),
        (b"http://APP.example.com:80", True),
        (b"https://app.example.com:443", True),
        (b"https://app.example.com:8443", False),
        (b"https://evil.example", False),
        (b"https://app.example.com.evil.example", False),
        (b"null", False),
        (b"ftp://app.example.com", False),
        (b"https://other.example.com", True),
        (b"https://other.example.com:444", False),
    ],
)
def test_upgrade_from_other_origin_denied(origin: bytes, passes: bool) -> None:
    """HT23: 403, although the session is valid."""
    harness = signed_in(websocket_origins=("https://Other.example.com/",))
    decision = harness.send("/", (b"origin", origin), *WEBSOCKET)
    assert isinstance(decision, Forward) == passes
    if isinstance(decision, Respond):
        assert (decision.status, decision.events[0].reason) == (403, "foreign_origin")
    assert isinstance(harness.send("/", (b"origin", origin)), Forward)


def test_upgrade_with_two_origins_denied_unless_any_allowed() -> None:
    origin = (b"origin", b"https://app.example.com")
    assert signed_in().get("/", origin, origin, *WEBSOCKET).status == 403
    foreign = (b"origin", b"https://evil.example")
    assert forward(
        signed_in(websocket_origins=("*",)), "/", foreign, *WEBSOCKET
    ).upgrade


# -- session re-check of open tunnels
ALLOWED = Forward(
    Upstream(id="app", scheme="http", host="10.0.0.9", port=80), b"GET", b"/ws", ()
)


def is_session_valid(harness: Harness, *headers: Header) -> bool:
    request = harness.request("/ws", *headers)
    found: bool = harness.run(harness.proxy.is_session_valid(request, ALLOWED))
    return found


def test_session_recheck_until_session_expires() -> None:
    harness = signed_in()
    assert is_session_valid(harness)
    harness.clock.now += 167 * 3600
    assert is_session_valid(harness)
    harness.clock.now += 3600
    assert not is_session_valid(harness)


def test_session_recheck_denied_session_closes() -> None:
    harness = signed_in()
    changed = with_changes(harness.settings, email_domains=("other.example",))
    harness.proxy = harness.proxy.with_settings(changed)
    assert not is_session_valid(harness)


def test_session_recheck_without_session_valid_only_if_bypassed() -> None:
    harness = Harness(settings(upstreams=(APP,)))
    assert not is_session_valid(harness)
    harness.jar[b"_oauth2_proxy"] = b"of-a-session-that-is-over"
    assert not is_session_valid(harness)
    request = harness.request("/ws")
    skipped = msgspec.structs.replace(ALLOWED, reason="skipped")
    assert harness.run(harness.proxy.is_session_valid(request, skipped))


@pytest.mark.parametrize("cookie", [b"", b"of-a-session-that-is-over"])
@pytest.mark.parametrize("kind", ["bearer", "basic"])
def test_session_recheck_with_credentials_ignores_cookie(
    kind: str, cookie: bytes
) -> None:
    bob = Secret(b"{SHA}" + b64encode(sha1(b"bob").digest()))
    accepted = CredentialSettings(jwt_bearer_tokens=True, users={"bob": bob})
    harness = Harness(settings(upstreams=(APP,), credentials=accepted))
    if cookie:
        harness.jar[b"_oauth2_proxy"] = cookie
    value = {"bearer": f"Bearer {harness.token()}", "basic": "Basic Ym9iOmJvYg=="}[kind]
    field = (b"authorization", value.encode())
    for _ in range(3):  # verified, verified and cached, cached
        decision = forward(harness, "/ws", field, *WEBSOCKET)
        assert (decision.verdict, decision.reason) == ("allowed", kind)
    request = harness.request("/ws", field, *WEBSOCKET)
    assert harness.run(harness.proxy.is_session_valid(request, decision))
    harness.clock.now += 24 * 3600
    assert harness.run(harness.proxy.is_session_valid(request, decision))


def test_upgrade_denied_user_with_credentials_denied() -> None:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    changes = {"upstreams": (APP,), "email_domains": ("other.example",)}
    harness = Harness(settings(credentials=accepted, **changes))
    field = (b"authorization", f"Bearer {harness.token()}".encode())
    response = harness.get("/ws", field, *WEBSOCKET)
    assert (response.status, response.verdict, response.reason) == (
        403,
        "denied",
        "email",
    )


def test_session_recheck_with_unknown_credentials_uses_session() -> None:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    harness = signed_in(credentials=accepted)
    field = (b"authorization", b"Bearer opaque")
    decision = forward(harness, "/ws", field, *WEBSOCKET)
    assert decision.reason == "session"
    request = harness.request("/ws", field, *WEBSOCKET)
    assert harness.run(harness.proxy.is_session_valid(request, decision))
    harness.clock.now += 168 * 3600
    assert not harness.run(harness.proxy.is_session_valid(request, decision))


@pytest.mark.parametrize("trusting", [True, False])
def test_session_recheck_after_sign_out_in_store(trusting: bool) -> None:
    stored = SessionSettings(backend="store", shared=True)
    fleet = Fleet(settings(upstreams=(APP,), sessions=stored), trusting=trusting)
    fleet[0].log_in()
    request = fleet.harness.request("/ws")
    assert fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
    fleet.store.away = not trusting
    assert fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
    fleet.store.away = False
    fleet[0].get("/oauth2/sign_out", (b"sec-fetch-site", b"same-origin"))
    assert not fleet[1].run(fleet[1].proxy.is_session_valid(request, ALLOWED))
