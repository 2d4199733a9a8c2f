"""Identity headers: injected, duplicated, folded by name (rows HS)."""

from __future__ import annotations

import pytest

from .harness import GATEWAY, IDENTITY, Harness, set_cookies

FORGED = (
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "X-Auth-Request-User",
    "Remote-User",
)
FOLDED = (
    "X_Forwarded_User",
    "x_forwarded-user",
    "X-Forwarded_User",
    "X.Forwarded.User",
    "X-FORWARDED-USER",
)


def values_of(fields: list[tuple[str, str]], name: str) -> list[str]:
    """Return the values of all fields that an application may read as *name*."""
    return [
        value
        for field, value in fields
        if field.replace("_", "-").replace(".", "-") == name.lower()
    ]


@pytest.mark.parametrize("name", FORGED)
def test_hs01_identity_headers_of_the_client_replaced(
    harness: Harness, bob: dict[str, str], name: str
) -> None:
    received = harness.forwarded_fields("/", f"{name}: admin", cookies=bob)
    assert "admin" not in values_of(received, name)
    assert values_of(received, "x-forwarded-email") == ["bob@example.com"]


@pytest.mark.parametrize("name", FOLDED)
def test_hs04_spellings_that_fold_to_an_identity_header_stripped(
    harness: Harness, bob: dict[str, str], name: str
) -> None:
    received = harness.forwarded_fields("/", f"{name}: admin", cookies=bob)
    assert len(values_of(received, "x-forwarded-user")) == 1
    assert "admin" not in values_of(received, "x-forwarded-user")


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-User : admin",
        " X-Forwarded-User: admin",
        "X-Forwarded-User\t: admin",
        b"X-Forwarded-User\0: admin",
        b"X-Forwarded-User\xff: admin",
        "X-Ok: 1\r\n X-Forwarded-User: admin",
        "X-Ok: 1\nX-Forwarded-User: admin",
    ],
)
def test_hs05_malformed_field_names_rejected(
    harness: Harness, bob: dict[str, str], line: str | bytes
) -> None:
    assert harness.assert_denied("/", line, cookies=bob).status == 400


def test_hs07_connection_field_does_not_remove_identity(
    harness: Harness, bob: dict[str, str]
) -> None:
    received = harness.forwarded_fields(
        "/", "Connection: X-Forwarded-User, x-forwarded-email, cookie", cookies=bob
    )
    assert values_of(received, "x-forwarded-email") == ["bob@example.com"]
    assert len(values_of(received, "x-forwarded-user")) == 1


def test_hs08_missing_claims_sent_as_empty_headers(harness: Harness) -> None:
    """Otherwise a gateway that copies the fields would keep the client's values."""
    cookies = harness.log_in("mallory")
    response = harness.request("/oauth2/auth", source=GATEWAY, cookies=cookies)
    assert response.status == 202
    for name in ("user", "email", "groups", "preferred-username"):
        assert f"x-auth-request-{name}" in response.headers


def test_hs10_hs11_claims_inject_no_field_and_no_group(harness: Harness) -> None:
    response = harness.request("/oauth2/auth", cookies=harness.log_in("mallory"))
    assert not set_cookies(response)
    groups = response.headers["x-auth-request-groups"].split(",")
    assert "admins" not in groups
    assert len(groups) == 3
    assert "\n" not in response.headers["x-auth-request-groups"]
    for group in ("admins", "a"):
        cookies = harness.log_in("mallory")
        harness.assert_denied(f"/oauth2/auth?allowed_groups={group}", cookies=cookies)


def test_hs13_authorization_of_the_client_replaced(
    harness: Harness, bob: dict[str, str]
) -> None:
    received = harness.forwarded_fields(
        "/", "Authorization: Basic YWRtaW46eA==", cookies=bob
    )
    assert len(values_of(received, "authorization")) == 1
    assert values_of(received, "authorization")[0].startswith("Bearer ey")


def test_hs14_duplicate_credentials(harness: Harness, bob: dict[str, str]) -> None:
    """Cookie fields are joined; Authorization fields are replaced by authproxy's."""
    line = "; ".join(f"{name}={value}" for name, value in bob.items())
    received = harness.forwarded_fields("/", f"Cookie: {line}", "Cookie: other=1")
    assert values_of(received, "cookie") == ["other=1"]
    twice = ("Authorization: Bearer a", "Authorization: Basic b")
    received = harness.forwarded_fields("/", f"Cookie: {line}", *twice)
    assert len(values_of(received, "authorization")) == 1
    assert harness.assert_denied("/", *twice).status in (400, 401, 403)


@pytest.mark.parametrize(
    "target",
    ["/oauth2/auth", "/oauth2/auth?allowed_groups=unknown", "/", "/oauth2/start"],
)
def test_hs16_denials_have_no_identity(
    harness: Harness, bob: dict[str, str], target: str
) -> None:
    cookies = bob if "allowed_groups" in target else None
    harness.assert_denied(target, cookies=cookies, source=GATEWAY)


@pytest.mark.parametrize("name", IDENTITY)
def test_hs17_identity_headers_of_the_client_not_reflected(
    harness: Harness, bob: dict[str, str], name: str
) -> None:
    """The response has no value that the client sent."""
    response = harness.request("/", f"{name}: admin", cookies=bob)
    assert "admin" not in response.headers.get(name, "")
