"""The same requests to oauth2-proxy and to authproxy, with the seed's configuration.

Where the answers differ, `INTENDED` has to say so, field by field; a difference that is
gone has to go there too.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from authproxy.demo.config import Client as DemoClient
from authproxy.demo.config import DemoConfig, example_users
from authproxy.demo.provider import DemoProvider
from authproxy.demo.provider import serve as serve_provider
from support.http import Client, Cookies, Reply
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.peers import (
    AUTHPROXY,
    OAUTH2_PROXY,
    AuthServer,
    command,
    start_auth_server,
)

from .observed import differences, observe

pytestmark = pytest.mark.peers
APP = "http://app.example.com"
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"accept": "application/json"}
TRAEFIK = {
    "x-forwarded-method": "GET",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "other.example.com",
    "x-forwarded-uri": "/deep?x=1",
    "x-forwarded-for": "203.0.113.9",
}
FORM = {"content-type": "application/x-www-form-urlencoded"}
BROKEN = {"_oauth2_proxy": "bm90LWEtc2Vzc2lvbg==|1700000000|bm90LWEtc2lnbmF0dXJl"}


@dataclass(frozen=True)
class Case:
    """A request; ``session`` sends the cookies of a login, ``cookies`` others."""

    target: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    session: bool = False
    cookies: dict[str, str] = field(default_factory=dict)


CASES = {
    "auth, stranger": Case("/oauth2/auth"),
    "auth, stranger, json": Case("/oauth2/auth", headers=JSON),
    "auth, user": Case("/oauth2/auth", session=True),
    "auth, user, HEAD": Case("/oauth2/auth", "HEAD", session=True),
    "auth, user, POST": Case("/oauth2/auth", "POST", session=True),
    "auth, user, as Traefik": Case("/oauth2/auth", headers=TRAEFIK, session=True),
    "auth, broken cookie": Case("/oauth2/auth", cookies=BROKEN),
    "auth, group": Case("/oauth2/auth?allowed_groups=admin", session=True),
    "auth, one of the groups": Case(
        "/oauth2/auth?allowed_groups=x,admin", session=True
    ),
    "auth, role": Case("/oauth2/auth?allowed_groups=role:admin", session=True),
    "auth, no such group": Case("/oauth2/auth?allowed_groups=nobody", session=True),
    "auth, empty groups": Case("/oauth2/auth?allowed_groups=", session=True),
    "auth, e-mail": Case("/oauth2/auth?allowed_emails=alice@example.com", session=True),
    "auth, other e-mail": Case("/oauth2/auth?allowed_emails=a@b.c", session=True),
    "auth, domain": Case(
        "/oauth2/auth?allowed_email_domains=example.com", session=True
    ),
    "auth, other domain": Case("/oauth2/auth?allowed_email_domains=b.c", session=True),
    "auth, group, stranger": Case("/oauth2/auth?allowed_groups=admin"),
    "auth with a slash": Case("/oauth2/auth/"),
    "page, stranger": Case("/deep?x=1", headers=BROWSER),
    "page, stranger, json": Case("/deep?x=1", headers=JSON),
    "page, stranger, HEAD": Case("/deep?x=1", "HEAD", headers=BROWSER),
    "page, broken cookie": Case("/deep", headers=BROWSER, cookies=BROKEN),
    "page, user": Case("/deep?x=1", session=True),
    "sign-in page": Case("/oauth2/sign_in", headers=BROWSER),
    "sign-in page, user": Case("/oauth2/sign_in", headers=BROWSER, session=True),
    "sign-in page, broken cookie": Case("/oauth2/sign_in", cookies=BROKEN),
    "start": Case("/oauth2/start?rd=/deep"),
    "start, HEAD": Case("/oauth2/start?rd=/deep", "HEAD"),
    "start, as Traefik": Case("/oauth2/start", headers=TRAEFIK),
    "callback without anything": Case("/oauth2/callback"),
    "callback without a login": Case("/oauth2/callback?code=x&state=y%3A/deep"),
    "callback with an error": Case("/oauth2/callback?error=access_denied&state=y:/"),
    "userinfo, stranger": Case("/oauth2/userinfo"),
    "userinfo, user": Case("/oauth2/userinfo", session=True),
    "sign out, stranger": Case("/oauth2/sign_out"),
    "sign out, user": Case("/oauth2/sign_out", session=True),
    "sign out to a page": Case("/oauth2/sign_out?rd=/bye", session=True),
    "sign out to elsewhere": Case("/oauth2/sign_out?rd=https://b.c/", session=True),
    "sign out by a form": Case(
        "/oauth2/sign_out", "POST", FORM, body="rd=/bye", session=True
    ),
    "ping": Case("/ping"),
    "ready": Case("/ready"),
    "robots.txt": Case("/robots.txt"),
}

# What differs on purpose: the fields, the cases, and why.
GROUPS: list[tuple[set[str], list[str], str]] = [
    (
        {"caching"},
        [
            "auth, stranger",
            "auth, stranger, json",
            "auth, broken cookie",
            "auth, no such group",
            "auth, other e-mail",
            "auth, other domain",
            "auth, group, stranger",
            "page, stranger, json",
            "page, user",
            "robots.txt",
        ],
        "what is ours is never to be stored; the original leaves that to the caches",
    ),
    (
        {"caching"},
        ["userinfo, stranger"],
        "no-store alone says it all",
    ),
    (
        {"status", "identity", "bearer", "caching", "kind", "body"},
        ["auth, empty groups"],
        "an empty constraint, of a variable that was not set, lets nobody in",
    ),
    (
        {"cookies"},
        ["sign-in page, user"],
        "a page that any site can make the browser fetch does not end a good session",
    ),
    (
        {"location", "cookies"},
        ["start", "start, HEAD", "start, as Traefik"],
        "the nonce is on; each login has a cookie of its own, for logins side by side",
    ),
    (
        {"status"},
        ["callback without anything"],
        "the client is wrong, not the server",
    ),
    (
        {"cookies"},
        ["sign out, stranger"],
        "the session cookie is cleared even when the request didn't show it",
    ),
]
INTENDED = {
    name: (fields, reason) for fields, names, reason in GROUPS for name in names
}


@pytest.fixture(scope="module")
def provider() -> Iterator[DemoProvider]:
    """An identity provider for both."""
    client = DemoClient(
        id=CLIENT_ID,
        secret=CLIENT_SECRET,
        redirect_uris=("https://app.example.com/oauth2/callback",),
    )
    made = DemoProvider(DemoConfig(users=example_users("secret"), clients=(client,)))
    with serve_provider(made):
        yield made


@dataclass(frozen=True)
class Peer:
    """A program with a user logged in."""

    server: AuthServer
    cookies: Cookies

    def answer(self, case: Case) -> Reply:
        """What it says to *case*; the user's cookies stay as they are."""
        headers = {"host": "app.example.com", **case.headers}
        pairs = [f"{name}={value}" for name, value in case.cookies.items()]
        if case.session:
            pairs.append(self.cookies.sent_to(APP))
        if pairs:
            headers["cookie"] = "; ".join(pairs)
        client = Client({"app.example.com": self.server.port})
        return client.request(
            case.method, APP + case.target, headers.items(), case.body.encode()
        )


@pytest.fixture(scope="module")
def peers(
    provider: DemoProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Peer, Peer]]:
    """oauth2-proxy and authproxy, each with alice logged in."""
    running = []
    for name in (OAUTH2_PROXY, AUTHPROXY):
        if command(name) is None:
            pytest.skip(f"{name} isn't installed")
        folder = tmp_path_factory.mktemp(name)
        server = start_auth_server(name, folder, provider.config.issuer)
        client = Client({"app.example.com": server.port})
        started = client.get(f"{APP}/oauth2/start")
        callback = provider.log_in(started.location, "alice")
        assert client.get(callback.replace("https:", "http:", 1)).status == 302
        running.append(Peer(server, client.cookies))
    yield running[0], running[1]
    for peer in running:
        peer.server.stop()


@pytest.mark.parametrize("name", CASES)
def test_both_answer_alike(name: str, peers: tuple[Peer, Peer]) -> None:
    original, ours = (observe(peer.answer(CASES[name])) for peer in peers)

    found = differences(original, ours)

    fields, reason = INTENDED.get(name, (set[str](), ""))
    assert set(found) == fields, (reason, found)


@pytest.mark.parametrize("rd", ["/deep?x=1", "//other.example", ""])
def test_a_login_ends_alike(
    rd: str, peers: tuple[Peer, Peer], provider: DemoProvider
) -> None:
    seen = []
    for peer in peers:
        client = Client({"app.example.com": peer.server.port})
        query = urllib.parse.urlencode({"rd": rd})
        started = client.get(f"{APP}/oauth2/start?{query}")
        callback = provider.log_in(started.location, "bob")
        ended = observe(client.get(callback.replace("https:", "http:", 1)))
        session = [line for line in ended.cookies if "_csrf=" not in line]
        seen.append((ended.status, ended.location, session))

    assert seen[0] == seen[1]
    assert seen[0][2] == ["_oauth2_proxy=…; Path=/; Max-Age=604800; HttpOnly; Secure"]


def test_every_intended_difference_is_one_of_a_case() -> None:
    assert set(INTENDED) <= set(CASES)
    assert all(fields and reason for fields, reason in INTENDED.values())
