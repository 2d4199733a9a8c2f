"""Notices about logins that fail where authproxy does not see it."""

from __future__ import annotations

import pytest

from authproxy_core.login.notices import MAX_REPORTED
from support.harness import Harness, settings

HOST_FIELD = (b"x-forwarded-host", b"app.example.com")


def details(harness: Harness, kind: str) -> list[str]:
    return [event.detail for event in harness.events if event.kind == kind]


def test_callback_url_reported_at_its_first_login() -> None:
    harness = Harness()
    for _ in range(2):
        assert harness.get("/oauth2/start").status == 302
    assert details(harness, "login_started") == [
        "callback URL sent to keycloak: https://app.example.com/oauth2/callback"
    ]


def test_notices_bounded() -> None:
    """Clients choose the host and may have many addresses."""
    harness = Harness(settings(reverse_proxy=True, trusted_proxies=("10.0.0.1",)))
    for number in range(MAX_REPORTED + 10):
        host = (b"host", b"h%d.example.com" % number)
        harness.get("/oauth2/start", host, HOST_FIELD, peer=f"192.0.2.{number}")
    assert len(details(harness, "login_started")) == MAX_REPORTED
    assert len(details(harness, "peer_untrusted")) == MAX_REPORTED


@pytest.mark.parametrize(
    ("host", "secure", "changes", "warned"),
    [
        (b"app.example.com", False, {}, True),
        (b"app.example.com", True, {}, False),
        (b"localhost:4180", False, {}, False),
        (b"app.example.com", False, {"cookie": {"secure": False}}, False),
        (b"app.example.com", False, {"redirect_url": "https://a.example.com"}, False),
    ],
)
def test_secure_cookie_over_plain_http_reported(
    host: bytes, secure: bool, changes: dict[str, object], warned: bool
) -> None:
    harness = Harness(settings(**changes))  # type: ignore[arg-type]
    harness.get("/oauth2/start", (b"host", host), secure=secure)
    texts = details(harness, "cookie_dropped")
    assert ["arrived over plain http" in text for text in texts] == [True] * warned


@pytest.mark.parametrize(
    ("reverse_proxy", "peer", "sent", "reported"),
    [
        (True, "192.0.2.7", True, True),
        (True, "192.0.2.7", False, False),
        (True, "10.0.0.1", True, False),
        (False, "192.0.2.7", True, False),
    ],
)
def test_ignored_fields_of_untrusted_peer_reported_once(
    reverse_proxy: bool, peer: str, sent: bool, reported: bool
) -> None:
    trust = {"reverse_proxy": reverse_proxy, "trusted_proxies": ("10.0.0.1",)}
    harness = Harness(settings(**trust))  # type: ignore[arg-type]
    fields = (HOST_FIELD,) if sent else ()
    for _ in range(2):
        harness.get("/oauth2/start", *fields, peer=peer)
    expected = [
        "X-Forwarded-* from 192.0.2.7 ignored: not a trusted proxy; add it to "
        "trusted_proxy_ips if it is your gateway"
    ]
    assert details(harness, "peer_untrusted") == (expected if reported else [])
