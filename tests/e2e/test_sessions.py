"""Sessions of several instances: refresh, outages, sign-out and logout.

The provider rotates refresh tokens and revokes the login if a used token comes again,
as Keycloak does with "Revoke Refresh Token". A duplicate refresh ends the session.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.http import Client, Cookies
from support.peers import OAUTH2_PROXY, WORKERS
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens, wait_for
from support.program import Program
from support.programs import find
from support.redis import RedisServer

from .instances import BACKENDS, PARALLEL, REFRESH, Instance, check_together, copy_of

pytestmark = pytest.mark.e2e
SECRET = "0123456789abcdef0123456789abcdef"
CLIENT_SECRET = "demo-client-secret"


@pytest.fixture
def idp() -> Iterator[DevProvider]:
    """A development provider on loopback."""
    config = ProviderConfig(
        users=example_users("pw"),
        clients=(DemoClient(id="authproxy", secret=CLIENT_SECRET),),
    )
    provider = DevProvider(config)
    running = serve(provider)
    yield provider
    running.close()


class Fleet:
    """Instances with the same settings."""

    def __init__(self, folder: Path, idp: DevProvider) -> None:
        self.folder = folder
        self.idp = idp
        self.stack = contextlib.ExitStack()
        self.count = 0

    def _folder(self) -> Path:
        self.count += 1
        folder = self.folder / f"instance-{self.count}"
        folder.mkdir()
        return folder

    def _settings(self, changes: dict[str, Any]) -> dict[str, Any]:
        return {
            "provider": "oidc",
            "client_id": "authproxy",
            "client_secret": CLIENT_SECRET,
            "cookie_secret": SECRET,
            "cookie_secure": False,
            "cookie_refresh": f"{REFRESH:g}s",
            "oidc_issuer_url": self.idp.config.issuer,
            **changes,
        }

    def start_authproxy(self, **changes: Any) -> Instance:
        """Start authproxy and wait until all workers are ready."""
        changes = self._settings({"workers": WORKERS, **changes})
        none = dict.fromkeys(
            ("skip_oidc_discovery", "login_url", "redeem_url", "oidc_jwks_url")
        )
        program = Program(self._folder(), **{**none, **changes})
        self.stack.callback(program.stop)
        instance = Instance(program.port, program)
        program.wait_until(lambda: "[provider_ready]" in program.log(), 30.0)
        wait_for(lambda: instance.get("/ready", Cookies()).status == 200, "readiness")
        return instance

    def start_oauth2_proxy(self, redis: RedisServer) -> Instance:
        """Start oauth2-proxy with sessions in Redis."""
        program = find(OAUTH2_PROXY)
        if program is None:
            pytest.skip(f"{OAUTH2_PROXY} is not installed")
        port = free_port()
        values = self._settings(
            {
                "session_store_type": "redis",
                "redis_connection_url": redis.url,
                "http_address": f"{LOOPBACK}:{port}",
                "code_challenge_method": "S256",
            }
        )
        flags = [
            f"--{name.replace('_', '-')}={str(value).lower() if value in (True, False) else value}"
            for name, value in values.items()
        ]
        process = Process(
            OAUTH2_PROXY, [program, "--email-domain=*", *flags], folder=self._folder()
        )
        self.stack.callback(process.stop)
        process.wait_until(lambda: listens(port), 30.0)
        return Instance(port, process)

    def log_in(self, instance: Instance, user: str = "alice") -> Cookies:
        """Return the cookies of a new session."""
        cookies = Cookies()
        started = instance.get("/oauth2/start?rd=/", cookies)
        assert started.status == 302, started.text
        url = self.idp.log_in(started.location, user)
        response = Client(cookies=cookies).get(url)
        assert response.status == 302, response.text
        return cookies


@pytest.fixture
def fleet(tmp_path: Path, idp: DevProvider) -> Iterator[Fleet]:
    """The instances of a test; they stop after it."""
    fleet = Fleet(tmp_path, idp)
    with fleet.stack:
        yield fleet


REVOCABLE = ("cookie-revocable", "cookie-file", "redis", "sqlite")


def start_instances(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, backend: str, **more: Any
) -> list[Instance]:
    """Start two instances, or one with two workers if only those share sessions."""
    changes = {**BACKENDS[backend], **more}
    if "redis" in changes.values():
        changes["redis_connection_url"] = redis.url
    if backend == "cookie":
        return [fleet.start_authproxy(**changes)]
    if backend in ("sqlite", "cookie-file"):
        changes["sqlite_path"] = str(tmp_path / "sessions.db")
    return [fleet.start_authproxy(**changes) for _ in range(2)]


# -- refreshing


def test_az25_concurrent_checks_refresh_once(
    fleet: Fleet, redis: RedisServer, tmp_path: Path
) -> None:
    """With each backend; the sessions age together."""
    started = []
    for backend in BACKENDS:
        folder = tmp_path / backend
        folder.mkdir()
        instances = start_instances(fleet, redis, folder, backend)
        cookies = fleet.log_in(instances[0])
        assert all(instance.check(copy_of(cookies)) == 202 for instance in instances)
        started.append((backend, instances, cookies))
    time.sleep(REFRESH + 0.2)  # the programs have real clocks
    refreshed = []
    for backend, instances, cookies in started:
        before = fleet.idp.count("token")
        results = check_together(instances, cookies)
        assert [reply.status for reply, _ in results] == [202] * PARALLEL, backend
        assert fleet.idp.count("token") == before + 1, backend
        assert all(reply.all("set-cookie") for reply, _ in results), backend
        # All responses have the new session; late requests with the old one are allowed.
        for instance in instances:
            assert instance.check_each(results[-1][1], cookies) == {202}, backend
        assert fleet.idp.count("token") == before + 1, backend
        refreshed.append((backend, instances[-1], results[0][1]))
    time.sleep(REFRESH + 0.2)
    for backend, instance, cookies in refreshed:
        before = fleet.idp.count("token")
        # The session has the newest refresh token.
        assert instance.check(cookies) == 202, backend
        assert fleet.idp.count("token") == before + 1, backend


@pytest.mark.parametrize("backend", ["cookie-redis", "redis"])
def test_provider_failure_keeps_sessions(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    instances = start_instances(fleet, redis, tmp_path, backend)
    cookies = fleet.log_in(instances[0])
    time.sleep(REFRESH + 0.2)
    fleet.idp.config.failing["token"] = 503
    results = check_together(instances, cookies)
    assert [reply.status for reply, _ in results] == [202] * PARALLEL
    assert not any(reply.all("set-cookie") for reply, _ in results)


@pytest.mark.parametrize("backend", ["cookie-redis", "redis"])
def test_az23_session_revoked_at_provider_ends_everywhere(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    instances = start_instances(fleet, redis, tmp_path, backend)
    cookies = fleet.log_in(instances[0])
    time.sleep(REFRESH + 0.2)
    fleet.idp.revoke("alice")
    before = fleet.idp.count("token")
    results = check_together(instances, cookies)
    assert [reply.status for reply, _ in results] == [401] * PARALLEL
    assert fleet.idp.count("token") == before + 1


# -- outages


def test_redis_outage_keeps_sessions(
    fleet: Fleet, redis: RedisServer, tmp_path: Path
) -> None:
    [one, other] = start_instances(fleet, redis, tmp_path, "redis", cookie_refresh="1h")
    cookies = fleet.log_in(one)
    assert one.check(cookies) == other.check(cookies) == 202
    with redis.frozen():
        wait_for(lambda: one.get("/ready", Cookies()).status == 503, "/ready to fail")
        for instance in (one, other):
            wait_for(lambda: instance.check(cookies) == 503, "503")  # noqa: B023
            response = instance.get("/oauth2/auth", cookies)
            assert response.status == 503
            assert response.header("retry-after")
            assert not response.all("set-cookie")
    wait_for(lambda: one.check(cookies) == other.check(cookies) == 202, "recovery")


# -- authproxy and oauth2-proxy on one Redis


def test_oauth2_proxy_shares_sessions_refreshes_and_sign_outs(
    fleet: Fleet, redis: RedisServer
) -> None:
    oauth2_proxy = fleet.start_oauth2_proxy(redis)
    authproxy = fleet.start_authproxy(
        session_store_type="redis",
        redis_connection_url=redis.url,
        cookie_format="oauth2-proxy",
    )
    for writer, reader in ((oauth2_proxy, authproxy), (authproxy, oauth2_proxy)):
        cookies = fleet.log_in(writer)
        assert writer.check(cookies) == reader.check(cookies) == 202
        # Each refreshes sessions of the other, which accepts the result.
        for first, second in ((reader, writer), (writer, reader)):
            time.sleep(REFRESH + 1.2)
            before = fleet.idp.count("token")
            assert first.check(cookies) == 202
            assert fleet.idp.count("token") > before
            count = fleet.idp.count("token")
            assert second.check(cookies) == 202
            assert fleet.idp.count("token") == count
        copy = copy_of(cookies)
        assert reader.get("/oauth2/sign_out", cookies).status == 302
        wait_for(lambda: writer.check(copy_of(copy)) == 401, "the sign-out")  # noqa: B023
        assert reader.check(copy_of(copy)) == 401


# -- sign-out and logout


@pytest.mark.parametrize("backend", [*REVOCABLE])
def test_st11_sign_out_revokes_at_all_instances(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    one, other = start_instances(fleet, redis, tmp_path, backend)
    cookies = fleet.log_in(one)
    assert other.check_each(cookies) == {202}
    copy = copy_of(cookies)
    assert one.get("/oauth2/sign_out", cookies).status == 302
    for instance in (one, other):
        wait_for(lambda: instance.check_each(copy) == {401}, "the sign-out")  # noqa: B023


@pytest.mark.parametrize("backend", [*REVOCABLE])
def test_lo11_logout_token_revokes_at_all_instances(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, backend: str
) -> None:
    one, other = start_instances(
        fleet, redis, tmp_path, backend, backchannel_logout=True
    )
    alice, bob = fleet.log_in(one), fleet.log_in(one, "bob")
    assert other.check_each(alice) == other.check_each(bob) == {202}
    token = fleet.idp.logout_token("alice")
    url = f"{one.url}/oauth2/backchannel-logout"
    reply = Client().submit(url, {"logout_token": token})
    assert (reply.status, reply.header("cache-control")) == (200, "no-store")
    for instance in (one, other):
        wait_for(lambda: instance.check_each(alice) == {401}, "the logout")  # noqa: B023
        assert instance.check_each(bob) == {202}
    replayed = Client().submit(
        f"{other.url}/oauth2/backchannel-logout", {"logout_token": token}
    )
    assert replayed.status == 400
