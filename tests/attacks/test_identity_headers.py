"""Identity headers: smuggled, doubled, left over (rows HS)."""

from __future__ import annotations

import pytest

from .scene import GATEWAY, IDENTITY, Scene, set_cookies

FORGED = (
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
)
FOLDED = (
    "X_Forwarded_User",
    "x_forwarded-user",
    "X-Forwarded_User",
    "X.Forwarded.User",
    "X-FORWARDED-USER",
)


def of(received: list[tuple[str, str]], name: str) -> list[str]:
    """The values of all fields that an app could read as *name*."""
    return [
        value
        for field, value in received
        if field.replace("_", "-").replace(".", "-") == name.lower()
    ]


@pytest.mark.parametrize("name", FORGED)
def test_hs01_the_app_sees_only_what_the_session_says(
    scene: Scene, bob: dict[str, str], name: str
) -> None:
    received = scene.received("/", f"{name}: admin", cookies=bob)
    assert "admin" not in of(received, name)
    assert of(received, "x-forwarded-email") == ["bob@example.com"]


@pytest.mark.parametrize("name", FOLDED)
def test_hs04_in_every_spelling_that_folds(
    scene: Scene, bob: dict[str, str], name: str
) -> None:
    received = scene.received("/", f"{name}: admin", cookies=bob)
    assert len(of(received, "x-forwarded-user")) == 1
    assert "admin" not in of(received, "x-forwarded-user")


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
def test_hs05_malformed_names_are_refused(
    scene: Scene, bob: dict[str, str], line: str | bytes
) -> None:
    assert scene.denied("/", line, cookies=bob).status == 400


def test_hs07_connection_does_not_remove_identity(
    scene: Scene, bob: dict[str, str]
) -> None:
    received = scene.received(
        "/", "Connection: X-Forwarded-User, x-forwarded-email, cookie", cookies=bob
    )
    assert of(received, "x-forwarded-email") == ["bob@example.com"]
    assert len(of(received, "x-forwarded-user")) == 1


def test_hs08_what_a_session_lacks_is_sent_empty(scene: Scene) -> None:
    """A gateway that copies fields would keep the client's own value otherwise."""
    cookies = scene.log_in("mallory")
    answer = scene.ask("/oauth2/auth", source=GATEWAY, cookies=cookies)
    assert answer.status == 202
    for name in ("user", "email", "groups", "preferred-username"):
        assert f"x-auth-request-{name}" in answer.headers


def test_hs10_hs11_claims_make_no_second_field_or_group(scene: Scene) -> None:
    answer = scene.ask("/oauth2/auth", cookies=scene.log_in("mallory"))
    assert not set_cookies(answer)
    groups = answer.headers["x-auth-request-groups"].split(",")
    assert "admins" not in groups
    assert len(groups) == 3
    assert "\n" not in answer.headers["x-auth-request-groups"]
    for demand in ("admins", "a"):
        cookies = scene.log_in("mallory")
        scene.denied(f"/oauth2/auth?allowed_groups={demand}", cookies=cookies)


def test_hs13_one_authorization_and_it_is_ours(
    scene: Scene, bob: dict[str, str]
) -> None:
    received = scene.received("/", "Authorization: Basic YWRtaW46eA==", cookies=bob)
    assert len(of(received, "authorization")) == 1
    assert of(received, "authorization")[0].startswith("Bearer ey")


def test_hs14_doubled_credentials(scene: Scene, bob: dict[str, str]) -> None:
    """Two Cookie fields are one list; two of Authorization become ours alone."""
    line = "; ".join(f"{name}={value}" for name, value in bob.items())
    received = scene.received("/", f"Cookie: {line}", "Cookie: other=1")
    assert of(received, "cookie") == ["other=1"]
    twice = ("Authorization: Bearer a", "Authorization: Basic b")
    received = scene.received("/", f"Cookie: {line}", *twice)
    assert len(of(received, "authorization")) == 1
    assert scene.denied("/", *twice).status in (400, 401, 403)


@pytest.mark.parametrize(
    "target",
    ["/oauth2/auth", "/oauth2/auth?allowed_groups=nobody", "/", "/oauth2/start"],
)
def test_hs16_refusals_name_nobody(
    scene: Scene, bob: dict[str, str], target: str
) -> None:
    cookies = bob if "allowed_groups" in target else None
    scene.denied(target, cookies=cookies, source=GATEWAY)


@pytest.mark.parametrize("name", IDENTITY)
def test_hs17_identity_in_an_apps_answer_is_none(
    scene: Scene, bob: dict[str, str], name: str
) -> None:
    """What the client sends comes back in no field of the answer's head."""
    answer = scene.ask("/", f"{name}: admin", cookies=bob)
    assert "admin" not in answer.headers.get(name, "")
