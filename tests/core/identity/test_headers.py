"""Identity headers: sources of each kind, with many values and none."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from authproxy_core import SettingsError
from authproxy_core.identity.headers import HeaderInjector
from authproxy_core.session import Session
from authproxy_core.settings.root import ClaimSource, HeaderRule, Secret, check
from support.harness import rule, settings

SESSION = Session(
    user="alice",
    email="alice@example.com",
    groups=("a", "b,c"),
    created_at=1_764_000_000.75,
    expires_at=1_764_003_600.0,
    claims={"numbers": [1, 2], "object": {"b": 1, "a": True}, "none": None},
)


def value(*sources: ClaimSource | Secret, session: Session | None = SESSION) -> bytes:
    one = HeaderRule("X-Test", sources)
    [(name, text)] = HeaderInjector([one]).headers(session)
    assert name == b"x-test"
    return text


def test_header_values_joined_in_order() -> None:
    mixed = (ClaimSource("user", "u:"), Secret("fixed"), ClaimSource("groups", "g-"))
    assert value(*mixed) == b"u:alice,fixed,g-a,g-b%2Cc"
    assert value(*mixed, session=None) == b"fixed"
    assert value() == b""


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("numbers", b"1,2"),
        ("object", b'{"a":true,"b":1}'),
        ("none", b""),
        ("unknown", b""),
        ("preferred_username", b""),
    ],
)
def test_header_value_of_claim(claim: str, expected: bytes) -> None:
    assert value(ClaimSource(claim)) == expected


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "Proxy-Authorization"])
def test_header_empty_credentials_left_out_of_requests(name: str) -> None:
    """Gateways still get them, empty, and so overwrite the client's."""
    rules = [HeaderRule(name, ()), HeaderRule("X-Test", ())]
    injector = HeaderInjector(rules)
    assert injector.headers(SESSION) == ((b"x-test", b""),)
    assert name.lower().encode() in injector.stripped
    response = HeaderInjector(rules, named=True).headers(None)
    assert response == ((name.lower().encode(), b""), (b"x-test", b""))


@pytest.mark.parametrize(
    "source",
    [
        ClaimSource("unknown", "Bearer "),
        ClaimSource("unknown", basic_auth_password=Secret("p")),
    ],
)
def test_header_credentials_of_missing_claim_left_out(source: ClaimSource) -> None:
    """Neither a scheme nor a password alone."""
    injector = HeaderInjector([HeaderRule("Authorization", (source,))])
    assert injector.headers(SESSION) == ()
    assert b"authorization" in injector.stripped


def test_header_basic_credentials_per_value() -> None:
    source = ClaimSource("groups", "ignored ", Secret("p:w"))
    parts = [part.removeprefix(b"Basic ") for part in value(source).split(b",")]
    assert [base64.b64decode(part) for part in parts] == [b"a:p:w", b"b%2Cc:p:w"]


@pytest.mark.parametrize(
    ("changes", "created", "expires"),
    [
        ({}, b"2025-11-24 16:00:00 +0000 UTC", b"2025-11-24 17:00:00 +0000 UTC"),
        ({"created_at": 0.0, "expires_at": 0.0}, b"", b""),
    ],
)
def test_header_time_formatted_like_go(
    changes: dict[str, Any], created: bytes, expires: bytes
) -> None:
    session = Session(**{"created_at": 1_764_000_000.75, "expires_at": 1_764_003_600.0,
                         "user": "a", **changes})  # fmt: skip
    assert value(ClaimSource("created_at"), session=session) == created
    assert value(ClaimSource("expires_on"), session=session) == expires


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "host",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "TE",
        "a b",
        "",
    ],
)
def test_hs19_header_that_affects_framing_refused(name: str) -> None:
    for option in ("inject_request_headers", "inject_response_headers"):
        values: dict[str, Any] = {option: (rule(name, "email"),)}
        with pytest.raises(SettingsError, match="can't be injected"):
            check(settings(**values))


def test_header_set_cookie_values_not_joined() -> None:
    rules = [
        HeaderRule("Set-Cookie", (Secret("a=1"), ClaimSource("groups", "g="))),
        HeaderRule("X-User", (ClaimSource("user"),)),
    ]
    assert HeaderInjector(rules).headers(SESSION) == (
        (b"x-user", b"alice"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"g=a"),
        (b"set-cookie", b"g=b%2Cc"),
    )
    assert HeaderInjector(rules).headers(None) == (
        (b"x-user", b""),
        (b"set-cookie", b"a=1"),
    )
