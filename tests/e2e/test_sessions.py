"""A session's life among real programs: refreshes, outages, and its end everywhere.

The provider rotates refresh tokens and ends a login whose old token comes again, as
Keycloak does with "Revoke Refresh Token": one refresh too many, and everybody is out.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import html
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authproxy_devprovider.config import Client as DemoClient
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.http import Client, Cookies, Reply
from support.keycloak import APP, CLIENT_ID, REALM, Keycloak
from support.peers import AUTHPROXY, OAUTH2_PROXY, WORKERS, AuthServer
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens, wait_for
from support.program import Program
from support.programs import find
from support.redis import RedisServer

from .conftest import log_in as log_in_at_keycloak

pytestmark = pytest.mark.e2e
SECRET = "0123456789abcdef0123456789abcdef"
CLIENT_SECRET = "demo-client-secret"
REFRESH = 4.0  # seconds
PARALLEL = 20
PLAIN = APP.replace("https", "http")
NAME = "_oauth2_proxy"


@pytest.fixture
def idp() -> Iterator[DevProvider]:
    """A provider on loopback."""
    config = ProviderConfig(
        users=example_users("pw"),
        clients=(DemoClient(id="authproxy", secret=CLIENT_SECRET),),
    )
    provider = DevProvider(config)
    running = serve(provider)
    yield provider
    running.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of our own."""
    if find("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server


class Instance:
    """A program that runs, by its address."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.url = f"http://{LOOPBACK}:{port}"
        self.process = process

    def get(self, path: str, cookies: Cookies) -> Reply:
        """GET with a browser's cookies, which are kept."""
        return Client(cookies=cookies).get(self.url + path)

    def check(self, cookies: Cookies) -> int:
        """The status of an auth check."""
        return self.get("/oauth2/auth", cookies).status


class Fleet:
    """Starts instances with the same settings."""

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

    def ours(self, **changes: Any) -> Instance:
        """authproxy, ready."""
        changes = self._settings({"workers": WORKERS, **changes})
        none = dict.fromkeys(
            ("skip_oidc_discovery", "login_url", "redeem_url", "oidc_jwks_url")
        )
        program = Program(self._folder(), **{**none, **changes})
        self.stack.callback(program.stop)
        instance = Instance(program.port, program)
        program.wait_until(
            lambda: program.log().count("[provider_ready]") >= changes["workers"], 30.0
        )
        wait_for(lambda: instance.get("/ready", Cookies()).status == 200, "readiness")
        return instance

    def theirs(self, redis: RedisServer) -> Instance:
        """oauth2-proxy, with its sessions in Redis."""
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
        """The cookies of a browser that has logged in."""
        cookies = Cookies()
        started = instance.get("/oauth2/start?rd=/", cookies)
        assert started.status == 302, started.text
        url = self.idp.log_in(started.location, user)
        answer = Client(cookies=cookies).get(url)
        assert answer.status == 302, answer.text
        return cookies


@pytest.fixture
def fleet(tmp_path: Path, idp: DevProvider) -> Iterator[Fleet]:
    """Instances of one deployment."""
    fleet = Fleet(tmp_path, idp)
    with fleet.stack:
        yield fleet


def copied(cookies: Cookies) -> Cookies:
    """Another browser's jar with the same cookies."""
    fresh = Cookies()
    fresh._values = dict(cookies._values)
    return fresh


def check_together(
    instances: list[Instance], cookies: Cookies
) -> list[tuple[Reply, Cookies]]:
    """Many checks at the same time, all with the same cookies; and what came back."""

    def one(number: int) -> tuple[Reply, Cookies]:
        jar = copied(cookies)
        return instances[number % len(instances)].get("/oauth2/auth", jar), jar

    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(one, range(PARALLEL)))


PLACES: dict[str, dict[str, Any]] = {
    "cookie": {},
    "cookie-redis": {"shared_state": "redis"},
    "cookie-revocable": {"shared_state": "redis", "session_revocation": True},
    "cookie-file": {"session_revocation": True},
    "redis": {"session_store_type": "redis"},
    "redis-original": {"session_store_type": "redis", "cookie_format": "oauth2-proxy"},
    "sqlite": {"session_store_type": "sqlite"},
}
REVOCABLE = ("cookie-revocable", "cookie-file", "redis", "sqlite")


def started(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str, **more: Any
) -> list[Instance]:
    """Two instances, or one with two workers where they can't share more."""
    changes = {**PLACES[place], **more}
    if "redis" in changes.values():
        changes["redis_connection_url"] = redis.url
    if place == "cookie":
        return [fleet.ours(**changes)]
    if place in ("sqlite", "cookie-file"):
        changes["sqlite_path"] = str(tmp_path / "sessions.db")
    return [fleet.ours(**changes) for _ in range(2)]


# -- refreshing


@pytest.mark.parametrize("place", list(PLACES))
def test_az25_twenty_requests_refresh_once(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    instances = started(fleet, redis, tmp_path, place)
    cookies = fleet.log_in(instances[0])
    assert all(instance.check(copied(cookies)) == 202 for instance in instances)
    before = fleet.idp.count("token")
    time.sleep(REFRESH + 0.2)  # the session's age, by the programs' own clocks
    answers = check_together(instances, cookies)
    assert [reply.status for reply, _ in answers] == [202] * PARALLEL
    assert fleet.idp.count("token") == before + 1
    assert all(reply.all("set-cookie") for reply, _ in answers)
    # All of them carry the new session, and late requests with the old one are let in.
    for instance in instances:
        assert instance.check(answers[-1][1]) == 202
        late = copied(cookies)
        assert instance.check(late) == 202
        assert instance.check(late) == 202
    assert fleet.idp.count("token") == before + 1
    # The refresh token that was kept is the good one.
    time.sleep(REFRESH + 0.2)
    assert instances[-1].check(answers[0][1]) == 202
    assert fleet.idp.count("token") == before + 2


@pytest.mark.parametrize("place", ["cookie-redis", "redis"])
def test_a_provider_that_is_away_logs_nobody_out(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    instances = started(fleet, redis, tmp_path, place)
    cookies = fleet.log_in(instances[0])
    time.sleep(REFRESH + 0.2)
    fleet.idp.config.failing["token"] = 503
    answers = check_together(instances, cookies)
    assert [reply.status for reply, _ in answers] == [202] * PARALLEL
    assert not any(reply.all("set-cookie") for reply, _ in answers)


@pytest.mark.parametrize("place", ["cookie-redis", "redis"])
def test_az23_an_ended_session_ends_everywhere(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    instances = started(fleet, redis, tmp_path, place)
    cookies = fleet.log_in(instances[0])
    time.sleep(REFRESH + 0.2)
    fleet.idp.revoke("alice")
    before = fleet.idp.count("token")
    answers = check_together(instances, cookies)
    assert [reply.status for reply, _ in answers] == [401] * PARALLEL
    assert fleet.idp.count("token") == before + 1


# -- outages


def test_without_redis_nobody_is_logged_out(
    fleet: Fleet, redis: RedisServer, tmp_path: Path
) -> None:
    [one, other] = started(fleet, redis, tmp_path, "redis", cookie_refresh="1h")
    cookies = fleet.log_in(one)
    assert one.check(cookies) == other.check(cookies) == 202
    with redis.frozen():
        wait_for(lambda: one.get("/ready", Cookies()).status == 503, "no readiness")
        for instance in (one, other):
            answer = instance.get("/oauth2/auth", cookies)
            wait_for(lambda: instance.check(cookies) == 503, "503")  # noqa: B023
            answer = instance.get("/oauth2/auth", cookies)
            assert answer.status == 503
            assert answer.header("retry-after")
            assert not answer.all("set-cookie")
    wait_for(lambda: one.check(cookies) == other.check(cookies) == 202, "recovery")


# -- both programs on one Redis


def test_both_programs_share_sessions_refreshes_and_sign_outs(
    fleet: Fleet, redis: RedisServer
) -> None:
    theirs = fleet.theirs(redis)
    ours = fleet.ours(
        session_store_type="redis",
        redis_connection_url=redis.url,
        cookie_format="oauth2-proxy",
    )
    for maker, reader in ((theirs, ours), (ours, theirs)):
        cookies = fleet.log_in(maker)
        assert maker.check(cookies) == reader.check(cookies) == 202
        # Each refreshes what the other made, and the other takes it.
        for first, second in ((reader, maker), (maker, reader)):
            time.sleep(REFRESH + 1.2)
            before = fleet.idp.count("token")
            assert first.check(cookies) == 202
            assert fleet.idp.count("token") > before
            count = fleet.idp.count("token")
            assert second.check(cookies) == 202
            assert fleet.idp.count("token") == count
        copy = copied(cookies)
        assert reader.get("/oauth2/sign_out", cookies).status == 302
        wait_for(lambda: maker.check(copied(copy)) == 401, "the sign-out")  # noqa: B023
        assert reader.check(copied(copy)) == 401


# -- the end of a session


@pytest.mark.parametrize("place", [*REVOCABLE])
def test_st11_signing_out_here_ends_it_there(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    one, other = started(fleet, redis, tmp_path, place)
    cookies = fleet.log_in(one)
    for _ in range(3):
        assert other.check(cookies) == 202
    copy = copied(cookies)
    assert one.get("/oauth2/sign_out", cookies).status == 302
    moment = time.monotonic()
    wait_for(lambda: other.check(copied(copy)) == 401, "the sign-out", 2.0)
    assert time.monotonic() - moment < 2.0
    assert one.check(copied(copy)) == 401


@pytest.mark.parametrize("place", [*REVOCABLE])
def test_lo11_a_logout_token_ends_it_everywhere(
    fleet: Fleet, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    one, other = started(fleet, redis, tmp_path, place, backchannel_logout=True)
    alice, bob = fleet.log_in(one), fleet.log_in(one, "bob")
    for _ in range(3):
        assert other.check(alice) == other.check(bob) == 202
    token = fleet.idp.logout_token("alice")
    url = f"{one.url}/oauth2/backchannel-logout"
    reply = Client().submit(url, {"logout_token": token})
    assert (reply.status, reply.header("cache-control")) == (200, "no-store")
    wait_for(lambda: other.check(copied(alice)) == 401, "the logout", 2.0)
    assert one.check(copied(alice)) == 401
    assert one.check(bob) == other.check(bob) == 202
    replayed = Client().submit(
        f"{other.url}/oauth2/backchannel-logout", {"logout_token": token}
    )
    assert replayed.status == 400


# -- with Keycloak

Start = Callable[..., AuthServer]


@pytest.fixture
def strict_keycloak(keycloak: Keycloak) -> Iterator[Keycloak]:
    """Keycloak that ends a session when a refresh token comes a second time."""
    strict = {"revokeRefreshToken": True, "refreshTokenMaxReuse": 0}
    kinds = ["REFRESH_TOKEN", "REFRESH_TOKEN_ERROR"]
    noted = {"eventsEnabled": True, "enabledEventTypes": kinds}
    keycloak.admin("PUT", f"/{REALM}", strict | noted)
    keycloak.admin("DELETE", f"/{REALM}/events")
    yield keycloak
    keycloak.admin("PUT", f"/{REALM}", {"revokeRefreshToken": False})


def at_keycloak(server: AuthServer) -> Instance:
    return Instance(server.port, server.process)


def environment(redis: RedisServer, place: str, **more: str) -> dict[str, str]:
    values = {
        "COOKIE_REFRESH": f"{REFRESH:g}s",
        "REDIS_CONNECTION_URL": redis.url,
        **{
            key.upper(): str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in PLACES[place].items()
        },
        **more,
    }
    return {f"OAUTH2_PROXY_{key}": value for key, value in values.items()}


class Browser(Instance):
    """An instance behind the name of the application."""

    def get(self, path: str, cookies: Cookies) -> Reply:
        return Client({"app.example.com": self.port}, cookies).get(PLAIN + path)


def browsers(
    start: Start, redis: RedisServer, tmp_path: Path, place: str, **more: str
) -> list[Instance]:
    """Two instances, or twice the same one (with its workers) where no other shares."""
    if place in ("sqlite", "cookie-file"):
        more = {"SQLITE_PATH": str(tmp_path / "sessions.db"), **more}
    given = environment(redis, place, **more)
    if place == "cookie":
        servers = [start(AUTHPROXY, environment=given)] * 2
    else:
        servers = [start(AUTHPROXY, environment=given) for _ in range(2)]
    return [Browser(server.port, server.process) for server in servers]


def log_in(instance: Instance, user: str = "lisan123") -> Cookies:
    cookies = Cookies()
    client = Client({"app.example.com": instance.port}, cookies)
    assert log_in_at_keycloak(client, PLAIN, user).status == 302
    return cookies


@pytest.mark.parametrize("place", ["cookie", "cookie-redis", "redis", "sqlite"])
def test_keycloak_sees_one_refresh(
    start: Start,
    strict_keycloak: Keycloak,
    redis: RedisServer,
    tmp_path: Path,
    place: str,
) -> None:
    instances = browsers(start, redis, tmp_path, place)
    cookies = log_in(instances[0])
    time.sleep(REFRESH + 0.2)
    answers = check_together(instances, cookies)
    assert [reply.status for reply, _ in answers] == [202] * PARALLEL
    assert refreshes(strict_keycloak) == ["REFRESH_TOKEN"]
    for instance in instances:
        assert instance.check(copied(cookies)) == 202
    time.sleep(REFRESH + 0.2)
    assert instances[1].check(answers[0][1]) == 202
    assert refreshes(strict_keycloak) == ["REFRESH_TOKEN"] * 2


def refreshes(keycloak: Keycloak) -> list[str]:
    """What Keycloak noted of refreshes."""
    return [event["type"] for event in keycloak.admin("GET", f"/{REALM}/events").json]


@pytest.mark.parametrize("place", ["cookie-revocable", "cookie-file", "redis"])
def test_keycloak_ends_a_session_over_the_back_channel(
    start: Start, keycloak: Keycloak, redis: RedisServer, tmp_path: Path, place: str
) -> None:
    more = {"BACKCHANNEL_LOGOUT": "true", "COOKIE_REFRESH": "1h"}
    one, other = browsers(start, redis, tmp_path, place, **more)
    uuid = keycloak.client_uuid(CLIENT_ID)
    client = keycloak.admin("GET", f"/{REALM}/clients/{uuid}").json
    client["attributes"] |= {
        "backchannel.logout.url": f"{one.url}/oauth2/backchannel-logout",
        "backchannel.logout.session.required": "true",
    }
    keycloak.admin("PUT", f"/{REALM}/clients/{uuid}", client)
    cookies, bystander = log_in(one), log_in(one, "wangwu")
    for _ in range(3):
        assert one.check(cookies) == other.check(cookies) == 202
    keycloak.log_out_everywhere("lisan123")
    for instance in (one, other):
        wait_for(
            lambda: instance.check(copied(cookies)) == 401,  # noqa: B023
            "the logout",
        )
        assert instance.check(bystander) == 202
    wait_for(lambda: "stored sessions revoked" in one.process.log(), "the log")


def test_signing_out_goes_on_to_keycloak(start: Start, keycloak: Keycloak) -> None:
    """RP-initiated: the login at Keycloak ends as well, and the way leads back."""
    server = start(AUTHPROXY, environment={"OAUTH2_PROXY_SIGN_OUT_AT_PROVIDER": "true"})
    client = Client({"app.example.com": server.port})
    assert log_in_at_keycloak(client, PLAIN, "lisan123").status == 302
    https = {"x-forwarded-proto": "https"}
    answer = client.get(f"{PLAIN}/oauth2/sign_out?rd=/", **https)
    assert answer.location.startswith(f"{keycloak.issuer}/protocol/openid-connect/")
    back = client.follow(answer, until=APP)
    assert back.location.partition("?")[0] == f"{APP}/"
    assert client.get(f"{PLAIN}/oauth2/auth").status == 401
    again = client.follow(client.get(f"{PLAIN}/oauth2/start?rd=/"), until=APP)
    assert "kc-form-login" in again.text  # no single sign-on any more


def test_keycloak_ends_a_session_over_the_front_channel(
    start: Start, keycloak: Keycloak
) -> None:
    server = start(AUTHPROXY, environment={"OAUTH2_PROXY_FRONTCHANNEL_LOGOUT": "true"})
    path = f"/{REALM}/clients/{keycloak.client_uuid(CLIENT_ID)}"
    before = keycloak.admin("GET", path).json
    told = {
        "frontchannel.logout.url": f"{PLAIN}/oauth2/frontchannel-logout",
        "frontchannel.logout.session.required": "true",
    }
    keycloak.admin(
        "PUT",
        path,
        before
        | {"frontchannelLogout": True, "attributes": before["attributes"] | told},
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
