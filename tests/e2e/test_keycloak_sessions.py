"""Sessions from Keycloak: refresh, sign-out and logout."""

from __future__ import annotations

import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.http import Client, Cookies, Reply
from support.keycloak import APP, CLIENT_ID, REALM, Keycloak
from support.peers import AUTHPROXY, AuthServer
from support.processes import wait_for
from support.redis import RedisServer

from .conftest import log_in as log_in_at_keycloak
from .instances import (
    BACKENDS,
    PARALLEL,
    REFRESH,
    Instance,
    check_together,
    copy_of,
)

pytestmark = pytest.mark.e2e
PLAIN = APP.replace("https", "http")
Start = Callable[..., AuthServer]


@pytest.fixture
def strict_keycloak(keycloak: Keycloak) -> Iterator[Keycloak]:
    """Keycloak with "Revoke Refresh Token" and recorded refresh events."""
    strict = {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0}
    kinds = ["REFRESH_TOKEN", "REFRESH_TOKEN_ERROR"]
    recorded = {"eventsEnabled": True, "enabledEventTypes": kinds}
    keycloak.admin("PUT", f"/{REALM}", strict | recorded)
    keycloak.admin("DELETE", f"/{REALM}/events")
    yield keycloak
    keycloak.admin("PUT", f"/{REALM}", {"revokeRefreshToken": False})


def environment(redis: RedisServer, backend: str, **more: str) -> dict[str, str]:
    values = {
        "COOKIE_REFRESH": f"{REFRESH:g}s",
        "REDIS_CONNECTION_URL": redis.url,
        **{
            key.upper(): str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in BACKENDS[backend].items()
        },
        **more,
    }
    return {f"OAUTH2_PROXY_{key}": value for key, value in values.items()}


class NamedInstance(Instance):
    """An instance that is reached by the application's name."""

    def __init__(self, server: AuthServer) -> None:
        super().__init__(server.port, server.process)
        self.origin, self.host = PLAIN, "app.example.com"

    def get(self, path: str, cookies: Cookies) -> Reply:
        return Client({"app.example.com": self.port}, cookies).get(PLAIN + path)


def start_named(
    start: Start, redis: RedisServer, tmp_path: Path, backend: str, **more: str
) -> list[Instance]:
    """Start two instances, or one that is returned twice if only its workers share."""
    if backend in ("sqlite", "cookie-file"):
        more = {"SQLITE_PATH": str(tmp_path / "sessions.db"), **more}
    variables = environment(redis, backend, **more)
    if backend == "cookie":
        servers = [start(AUTHPROXY, environment=variables)] * 2
    else:
        servers = [start(AUTHPROXY, environment=variables) for _ in range(2)]
    return [NamedInstance(server) for server in servers]


def log_in(instance: Instance, user: str = "lisan123") -> Cookies:
    cookies = Cookies()
    client = Client({"app.example.com": instance.port}, cookies)
    assert log_in_at_keycloak(client, PLAIN, user).status == 302
    return cookies


def test_keycloak_concurrent_checks_refresh_once(
    start: Start, strict_keycloak: Keycloak, redis: RedisServer, tmp_path: Path
) -> None:
    """With each kind of backend; the sessions age together."""
    started = []
    for backend in ("cookie", "cookie-redis", "redis", "sqlite"):
        instances = start_named(start, redis, tmp_path, backend)
        started.append((backend, instances, log_in(instances[0])))
    time.sleep(REFRESH + 0.2)
    refreshed = []
    for number, (backend, instances, cookies) in enumerate(started, 1):
        results = check_together(instances, cookies)
        assert [reply.status for reply, _ in results] == [202] * PARALLEL, backend
        assert refresh_events(strict_keycloak) == ["REFRESH_TOKEN"] * number, backend
        for instance in instances:
            assert instance.check(copy_of(cookies)) == 202, backend
        refreshed.append((backend, instances[1], results[0][1]))
    time.sleep(REFRESH + 0.2)
    total = len(refreshed)
    for number, (backend, instance, cookies) in enumerate(refreshed, total + 1):
        assert instance.check(cookies) == 202, backend
        assert refresh_events(strict_keycloak) == ["REFRESH_TOKEN"] * number, backend


def refresh_events(keycloak: Keycloak) -> list[str]:
    """Return the types of the refresh events that Keycloak recorded."""
    return [event["type"] for event in keycloak.admin("GET", f"/{REALM}/events").json]


@pytest.mark.parametrize("backend", ["cookie-revocable", "cookie-file", "redis"])
def test_keycloak_backchannel_logout(
    start: Start, keycloak: Keycloak, redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    more = {"BACKCHANNEL_LOGOUT": "true", "COOKIE_REFRESH": "1h"}
    one, other = start_named(start, redis, tmp_path, backend, **more)
    uuid = keycloak.client_uuid(CLIENT_ID)
    client = keycloak.admin("GET", f"/{REALM}/clients/{uuid}").json
    client["attributes"] |= {
        "backchannel.logout.url": f"{one.url}/oauth2/backchannel-logout",
        "backchannel.logout.session.required": "true",
    }
    keycloak.admin("PUT", f"/{REALM}/clients/{uuid}", client)
    cookies, bystander = log_in(one), log_in(one, "wangwu")
    assert one.check_each(cookies) == other.check_each(cookies) == {202}
    keycloak.log_out_everywhere("lisan123")
    for instance in (one, other):
        wait_for(lambda: instance.check_each(cookies) == {401}, "the logout")  # noqa: B023
        assert instance.check_each(bystander) == {202}
    wait_for(lambda: "stored sessions revoked" in one.process.log(), "the log")


def test_keycloak_rp_initiated_logout(start: Start, keycloak: Keycloak) -> None:
    """Sign-out also ends the login at Keycloak, which redirects back."""
    server = start(AUTHPROXY, environment={"OAUTH2_PROXY_SIGN_OUT_AT_PROVIDER": "true"})
    client = Client({"app.example.com": server.port})
    assert log_in_at_keycloak(client, PLAIN, "lisan123").status == 302
    https = {"x-forwarded-proto": "https"}
    response = client.get(f"{PLAIN}/oauth2/sign_out?rd=/", **https)
    assert response.location.startswith(f"{keycloak.issuer}/protocol/openid-connect/")
    back = client.follow(response, until=APP)
    assert back.location.partition("?")[0] == f"{APP}/"
    assert client.get(f"{PLAIN}/oauth2/auth").status == 401
    again = client.follow(client.get(f"{PLAIN}/oauth2/start?rd=/"), until=APP)
    assert "kc-form-login" in again.text  # Keycloak asks for the password


def test_keycloak_frontchannel_logout(start: Start, keycloak: Keycloak) -> None:
    server = start(AUTHPROXY, environment={"OAUTH2_PROXY_FRONTCHANNEL_LOGOUT": "true"})
    path = f"/{REALM}/clients/{keycloak.client_uuid(CLIENT_ID)}"
    before = keycloak.admin("GET", path).json
    frontchannel = {
        "frontchannel.logout.url": f"{PLAIN}/oauth2/frontchannel-logout",
        "frontchannel.logout.session.required": "true",
    }
    keycloak.admin(
        "PUT",
        path,
        before
        | {
            "frontchannelLogout": True,
            "attributes": before["attributes"] | frontchannel,
        },
    )
    try:
        client = Client({"app.example.com": server.port})
        assert log_in_at_keycloak(client, PLAIN, "lisan123").status == 302
        check = client.get(f"{PLAIN}/oauth2/auth")
        assert check.status == 202
        hint = check.header("authorization").removeprefix("Bearer ")
        page = client.get(
            f"{keycloak.issuer}/protocol/openid-connect/logout?id_token_hint={hint}"
        )
        [frame] = re.findall(r'<iframe[^>]* src="([^"]+)"', page.text)
        frame = html.unescape(frame)
        assert frame.startswith(f"{PLAIN}/oauth2/frontchannel-logout?")
        other = re.sub(r"sid=[^&]+", "sid=other", frame)
        client.get(other)
        assert client.get(f"{PLAIN}/oauth2/auth").status == 202
        assert client.get(frame).status == 200
        assert client.get(f"{PLAIN}/oauth2/auth").status == 401
    finally:
        keycloak.admin("PUT", path, before)
