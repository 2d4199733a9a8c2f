"""Several requests in a row, and faults, with oauth2-proxy and authproxy.

Each test states the results of both programs; a difference names its row in
`differences`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from authproxy_devprovider.config import (
    Client,
    HttpResponse,
    ProviderConfig,
    User,
    example_users,
)
from authproxy_devprovider.provider import DevProvider, serve
from support.http import Cookies, Reply
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.peers import OAUTH2_PROXY, command
from support.processes import wait_for
from support.programs import find
from support.redis import RedisServer

from .bearer import REDIRECT_URI
from .cases import BROKEN, HOST, Case
from .configurations import Configuration
from .running import Peer, Peers

pytestmark = pytest.mark.peers
CALLBACK = f"http://{HOST}/oauth2/callback"
AUTH = "{P}/auth"
NAME = "_oauth2_proxy"
LARGE = "large"  # a user whose session needs several cookies
USERS = (
    *example_users("pw"),
    User(name=LARGE, password="pw", groups=tuple(f"{'g' * 40}{n}" for n in range(400))),
    User(name="unverified", password="pw", email_verified=False),
)


class SlowKeys(DevProvider):
    """A provider that takes 0.3 s to send its keys."""

    def handle(
        self, method: bytes, target: bytes, headers: Any, body: bytes
    ) -> HttpResponse:
        if b"jwks" in target:
            time.sleep(0.3)
        return super().handle(method, target, headers, body)


def new_provider(kind: type[DevProvider] = DevProvider, **changes: Any) -> DevProvider:
    """Return a provider with the users and the client of both programs."""
    client = Client(
        id=CLIENT_ID,
        secret=CLIENT_SECRET,
        redirect_uris=(CALLBACK, REDIRECT_URI, CALLBACK.replace("http:", "https:")),
    )
    return kind(ProviderConfig(users=USERS, clients=(client,), **changes))


@contextmanager
def running(
    folder: Path, provider: DevProvider, options: dict[str, Any], **more: Any
) -> Iterator[tuple[Peer, Peer]]:
    """oauth2-proxy and authproxy with *options*, and alice signed in at both."""
    if command(OAUTH2_PROXY) is None:
        pytest.skip("oauth2-proxy is not installed")
    own = {} if "alpha" in more else {"upstreams": ["static://200"]}
    options = {"cookie_secure": False, **own, **options}
    with serve(provider):
        peers = Peers(provider, {})
        with peers.running(Configuration("scene", options, **more), folder) as both:
            yield both


@pytest.fixture(scope="module")
def provider() -> DevProvider:
    """A provider that works."""
    return new_provider()


@pytest.fixture(scope="module")
def both(
    provider: DevProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Peer, Peer]]:
    """Both programs with bearer tokens and sessions in cookies."""
    options = {"skip_jwt_bearer_tokens": True}
    with running(tmp_path_factory.mktemp("scenes"), provider, options) as peers:
        yield peers


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with RedisServer(tmp_path) as server:
        yield server


def check(peer: Peer, cookies: str = "", **headers: str) -> Reply:
    """Return the response to an auth check with these cookies."""
    return peer.send(Case("check", AUTH, cookies=cookies, headers=headers))


def session(peer: Peer, cookies: Cookies | None = None) -> list[str]:
    """Return the session cookies of alice, or those in *cookies*, by name."""
    found = (cookies or peer.cookies).named(NAME)
    return [f"{name}={found[name]}" for name in sorted(found) if "csrf" not in name]


def checks(both: tuple[Peer, Peer], cookies: list[list[str]]) -> list[int]:
    """Return the statuses of auth checks, each with the cookies of its program."""
    pairs = zip(both, cookies, strict=True)
    return [check(peer, "; ".join(jar)).status for peer, jar in pairs]


def callbacks(
    both: tuple[Peer, Peer], provider: DevProvider, user: str = "alice"
) -> list[int]:
    """Return the statuses of the callbacks of a login at each program."""
    return [peer.log_in_with(provider, "/", user=user)[1].status for peer in both]


def bearers(both: tuple[Peer, Peer], provider: DevProvider, **claims: Any) -> list[int]:
    """Return the statuses of auth checks with a token of *provider* with *claims*."""
    now = int(time.time())
    base = {"iss": provider.config.issuer, "aud": CLIENT_ID, "sub": "robot"}
    times = {"iat": now - 200, "exp": now + 300, "email": "robot@example.com"}
    token = provider.tokens.keys.sign({**base, **times, **claims}, "RS256", {})
    return [check(peer, Authorization=f"Bearer {token}").status for peer in both]


@pytest.mark.parametrize("size", [2, 4, 8, 15])
def test_deep_link_kept_through_login(
    both: tuple[Peer, Peer], provider: DevProvider, size: int
) -> None:
    link = f"/deep?x={'a' * 1024 * size}&y="
    for peer in both:
        _, finished = peer.log_in_with(provider, f"{link}\u00fc")
        assert finished.header("location") == f"{link}%c3%bc"


def test_twin_session_cookies_valid_one_counts(both: tuple[Peer, Peer]) -> None:
    """oauth2-proxy reads only the first cookie of a name."""
    jars = [session(peer) for peer in both]
    broken = f"{NAME}={BROKEN}"
    assert checks(both, [[*jar, broken] for jar in jars]) == [202, 202]
    assert checks(both, [[broken, *jar] for jar in jars]) == [401, 202]
    for order in ([*jars[0], broken], [broken, *jars[0]]):
        assert check(both[1], "; ".join(order)).status == 202


def test_twin_session_cookie_parts_valid_ones_count(
    both: tuple[Peer, Peer], provider: DevProvider
) -> None:
    jars = []
    for peer in both:
        cookies = Cookies()
        peer.log_in_with(provider, "/", cookies, LARGE)
        jars.append(session(peer, cookies))
        assert len(jars[-1]) > 1
    old = [f"{NAME}_0=x", f"{NAME}_1=y"]
    assert checks(both, jars) == [202, 202]
    assert checks(both, [jar[::-1] for jar in jars]) == [202, 202]
    assert checks(both, [[*jar, *old] for jar in jars]) == [202, 202]
    assert checks(both, [[*old, *jar] for jar in jars]) == [401, 202]
    assert check(both[1], "; ".join([*old, *jars[0]])).status == 202
    for peer, jar in zip(both, jars, strict=True):
        mixed = check(peer, "; ".join([*session(peer), *jar]))
        assert mixed.header("gap-auth") == "alice@example.com"


def test_bearer_expired_within_clock_skew_accepted(
    both: tuple[Peer, Peer], provider: DevProvider
) -> None:
    now = int(time.time())
    assert bearers(both, provider, exp=now - 10) == [401, 202]
    assert bearers(both, provider, exp=now - 100) == [401, 401]


def test_login_of_denied_user_or_audience_is_forbidden(
    both: tuple[Peer, Peer], provider: DevProvider
) -> None:
    """LG49: both programs answer 403."""
    assert callbacks(both, provider, "unverified") == [403, 403]
    provider.config.id_token_claims = {"aud": ["other"]}
    assert callbacks(both, provider) == [403, 403]
    provider.config.id_token_claims = {}
    assert callbacks(both, provider) == [302, 302]


@pytest.mark.parametrize("kind", ["slow", "unavailable", "empty", "rotated"])
def test_login_and_bearer_with_late_keys(tmp_path: Path, kind: str) -> None:
    provider = new_provider(SlowKeys if kind == "slow" else DevProvider)
    if kind == "unavailable":
        provider.config.failing["jwks"] = 500
    elif kind == "empty":
        fields = ((b"content-type", b"application/json"),)
        provider.config.failing["jwks"] = 200, fields, b'{"keys":[]}'
    with running(tmp_path, provider, {"skip_jwt_bearer_tokens": True}) as both:
        late = bool(provider.config.failing)
        login = [peer.login[1].status for peer in both]
        assert login == ([500, 503] if late else [302, 302])
        if kind == "rotated":
            provider.rotate_keys(keep_old=False)
        assert bearers(both, provider) == ([401, 503] if late else [202, 202])
        provider.config.failing.clear()
        assert callbacks(both, provider) == [302, 302]
        assert bearers(both, provider) == [202, 202]


# The commands of oauth2-proxy.
COMMANDS = (
    "+get +set +del +ping +auth +hello +select +eval +evalsha +pexpire +pttl +exists"
)


def test_redis_with_restricted_user_fails_and_recovers(
    tmp_path: Path, redis: RedisServer
) -> None:
    """oauth2-proxy takes a missing session for a missing store, and the reverse."""
    rules = ("on", ">pw", f"~{NAME}-*", "-@all", *COMMANDS.split())
    assert "OK" in redis.ask("ACL", "SETUSER", "app", *rules)
    url = redis.url.replace("//", "//app:pw@")
    options = {"session_store_type": "redis", "redis_connection_url": url}
    provider = new_provider()
    with running(tmp_path, provider, options) as both:
        jars = [session(peer) for peer in both]
        assert checks(both, jars) == [202, 202]
        redis.kill()
        assert checks(both, jars) == [401, 503]
        assert checks(both, [[], []]) == [401, 401]
        assert callbacks(both, provider) == [500, 503]
        for peer, jar, status in zip(both, jars, (500, 503), strict=True):
            sign_out = Case("sign out", "{P}/sign_out", cookies="; ".join(jar))
            assert peer.send(sign_out).status == status
            assert peer.send(Case("ready", "/ready")).status == status
        redis.start()
        assert "OK" in redis.ask("ACL", "SETUSER", "app", *rules)
        wait_for(lambda: callbacks(both, provider) == [302, 302], "logins")


@pytest.mark.parametrize(
    ("claims", "statuses"),
    [
        ({"ADGroups": ["admins"]}, [202, 202]),
        ({"ADGroups": "admins"}, [202, 202]),
        ({"ADGroups": ["admins"], "Email": "x@example.com"}, [202, 202]),
        ({"ADGroups": "x,admins"}, [401, 403]),
        ({"ADGroups": None}, [401, 403]),
        ({"groups": ["admins"]}, [401, 403]),
        ({"ADGroups": {"admins": 1}}, [401, 401]),
        ({"ADGroups": 5}, [401, 401]),
        ({"ADGroups": ["admins", ["x"]]}, [401, 401]),
        ({"ADGroups": ["admins"], "email": 1}, [401, 401]),
    ],
)
def test_bearer_of_extra_issuer_groups_claim(
    extra: tuple[tuple[Peer, Peer], DevProvider],
    claims: dict[str, Any],
    statuses: list[int],
) -> None:
    """A user without access gets 403; oauth2-proxy ends the session with 401."""
    both, issuer = extra
    assert bearers(both, issuer, aud="api", **claims) == statuses


@pytest.fixture(scope="module")
def extra(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[tuple[Peer, Peer], DevProvider]]:
    """Both programs, and another issuer of bearer tokens."""
    issuer = new_provider()
    with serve(issuer):
        options = {
            "skip_jwt_bearer_tokens": True,
            "extra_jwt_issuers": [f"{issuer.config.issuer}=api"],
            "oidc_groups_claim": "ADGroups",
            "allowed_groups": ["admins"],
        }
        folder = tmp_path_factory.mktemp("extra")
        with running(folder, new_provider(), options) as both:
            yield both, issuer


ADDITIONAL_CLAIMS = """
server: {bindAddress: '127.0.0.1:{port}'}
providers:
- id: demo
  provider: oidc
  clientID: oauth2-proxy
  clientSecret: ${OAUTH2_PROXY_CLIENT_SECRET}
  additionalClaims: [phone, address]
  oidcConfig:
    issuerURL: {issuer}
    insecureSkipNonce: false
    audienceClaims: [aud]
    emailClaim: email
    groupsClaim: groups
upstreamConfig: {upstreams: [{id: app, path: /, static: true}]}
injectResponseHeaders:
- {name: X-Phone, values: [{claimSource: {claim: phone}}]}
- {name: X-Address, values: [{claimSource: {claim: address}}]}
"""


def test_additional_claims_replaced_by_refresh(tmp_path: Path) -> None:
    """A missing claim is sent as an empty header; oauth2-proxy sends none."""
    provider = new_provider(id_token_claims={"phone": "1", "address": "a"})
    options = {"cookie_refresh": "1s"}
    with running(tmp_path, provider, options, alpha=ADDITIONAL_CLAIMS) as both:
        provider.config.id_token_claims = {"phone": "2"}
        for peer, address in zip(both, ([], [""]), strict=True):
            wait_for(lambda: phone(peer) == "2", "the refresh")  # noqa: B023
            assert check(peer, "; ".join(session(peer))).all("x-address") == address


def phone(peer: Peer) -> str:
    response = check(peer, "; ".join(session(peer)))
    assert response.status == 202
    return response.header("x-phone")
