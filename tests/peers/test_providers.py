"""oauth2-proxy and authproxy log in at the same endpoints with equal results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from support import peers
from support.api_server import ApiServer
from support.endpoints import SUBJECT, discovery, jwks, signed, signing_key
from support.http import Client, Reply

pytestmark = pytest.mark.peers
HEADERS = (
    "gap-auth",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-groups",
    "x-auth-request-preferred-username",
)
CONFIG = """
email_domains = "*"
cookie_secure = false
set_xauthrequest = true
reverse_proxy = true
upstreams = "file:///dev/null"
scope = "openid email"
"""
ALICE = {
    "email": "alice@example.com",
    "email_verified": True,
    "preferred_username": "alice",
    "groups": ["staff"],
}
TOKEN = {"access_token": "access-1", "token_type": "bearer"}


class Case(NamedTuple):
    """A provider type: settings, endpoint responses, claims, whether login is allowed.

    ``{url}`` in settings stands for the endpoints' base URL. Without ``claims`` the
    provider issues no ID token.
    """

    kind: str
    settings: dict[str, str]
    responses: dict[str, Any]
    claims: dict[str, Any] | None = None
    allowed: bool = True


def pages(*items: Any) -> Callable[[str, str], Any]:
    """Return a responder for a paged list; ``page`` in the query selects the page."""

    def respond(target: str, body: str) -> Any:
        page = int(parse_qs(urlsplit(target).query).get("page", ["1"])[0])
        return items[page - 1] if page <= len(items) else []

    return respond


OWN = {"login_url": "{url}/authorize", "redeem_url": "{url}/token"}
DISCOVERED = {"oidc_issuer_url": "{url}"}
GITHUB = {
    "GET /": {},
    "GET /user/orgs": pages([{"login": "acme"}, {"login": "umbrella"}]),
    "GET /user/teams": pages([{"slug": "devs", "organization": {"login": "acme"}}]),
    "GET /user": {"login": "alice"},
    "GET /user/emails": [
        {"email": "old@example.com", "primary": False, "verified": True},
        {"email": "alice@example.com", "primary": True, "verified": True},
    ],
}
GITHUB_URLS = {**OWN, "validate_url": "{url}/"}
GITLAB_USER = {
    "sub": SUBJECT,
    "nickname": "alice",
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["eng", "eng/core"],
}
PROJECT = {
    "archived": False,
    "permissions": {"project_access": {"access_level": 30}, "group_access": None},
}
GITLAB = {"GET /oauth/userinfo": GITLAB_USER, "GET /api/v4/projects/eng%2Fapp": PROJECT}
CASES = (
    Case("github", GITHUB_URLS, GITHUB),
    Case("github", {**GITHUB_URLS, "github_org": "acme"}, GITHUB),
    Case("github", {**GITHUB_URLS, "github_org": "other"}, GITHUB, allowed=False),
    Case(
        "github", {**GITHUB_URLS, "github_org": "ACME", "github_team": "devs"}, GITHUB
    ),
    Case("github", {**GITHUB_URLS, "github_team": "acme:ops"}, GITHUB, allowed=False),
    Case("github", {**GITHUB_URLS, "github_users": "alice", "github_org": "x"}, GITHUB),
    Case(
        "github",
        {**GITHUB_URLS, "github_repo": "acme/app"},
        {
            **GITHUB,
            "GET /repos/acme/app": {"private": False, "permissions": {"push": True}},
        },
    ),
    Case(
        "bitbucket",
        {**OWN, "validate_url": "{url}/2.0/user/emails"},
        {
            "GET /2.0/user/emails": {
                "values": [{"email": "alice@example.com", "is_primary": True}]
            }
        },
    ),
    *(
        Case(
            "bitbucket",
            {
                **OWN,
                "validate_url": "{url}/2.0/user/emails",
                "bitbucket_workspace": slug,
            },
            {
                "GET /2.0/user/emails": {
                    "values": [{"email": "alice@example.com", "is_primary": True}]
                },
                "GET /2.0/user/workspaces": {
                    "values": [{"workspace": {"slug": "acme"}}]
                },
            },
            allowed=slug == "acme",
        )
        for slug in ("acme", "other")
    ),
    *(
        Case(
            "entra-id",
            {**DISCOVERED, "entra_id_allowed_tenants": "tenant-a"},
            {},
            {**ALICE, "tid": tenant},
            allowed=tenant == "tenant-a",
        )
        for tenant in ("tenant-a", "tenant-b", "", ["tenant-a"], None)
    ),
    Case(
        "digitalocean",
        {**OWN, "profile_url": "{url}/account", "validate_url": "{url}/account"},
        {"GET /account": {"account": {"email": "alice@example.com"}}},
    ),
    Case(
        "facebook",
        {**OWN, "profile_url": "{url}/me", "validate_url": "{url}/me"},
        {"GET /me": {"email": "alice@example.com", "name": "Alice"}},
    ),
    Case(
        "linkedin",
        {**OWN, "profile_url": "{url}/email", "validate_url": "{url}/me"},
        {
            "GET /email": {
                "elements": [{"handle~": {"emailAddress": "alice@example.com"}}]
            },
            "GET /me": {},
        },
    ),
    Case(
        "sourcehut",
        {**OWN, "profile_url": "{url}/query", "validate_url": "{url}/profile"},
        {
            "POST /query": {
                "data": {"me": {"username": "alice", "email": "alice@example.com"}}
            },
            "GET /profile": {},
        },
    ),
    Case(
        "nextcloud",
        {**OWN, "validate_url": "{url}/user"},
        {
            "GET /user": {
                "ocs": {
                    "data": {
                        "id": "alice",
                        "email": "alice@example.com",
                        "groups": ["staff", "admin"],
                    }
                }
            }
        },
    ),
    Case(
        "keycloak",
        {**OWN, "validate_url": "{url}/userinfo", "keycloak_groups": "staff"},
        {"GET /userinfo": {**ALICE, "user": "alice"}},
    ),
    Case(
        "keycloak",
        {**OWN, "validate_url": "{url}/userinfo", "keycloak_groups": "other"},
        {"GET /userinfo": ALICE},
        allowed=False,
    ),
    Case("oidc", DISCOVERED, {}, ALICE),
    Case("oidc", {**DISCOVERED, "allowed_groups": "other"}, {}, ALICE, allowed=False),
    Case("adfs", DISCOVERED, {}, {**ALICE, "email": None, "upn": "a@corp.example"}),
    Case(
        "cidaas",
        DISCOVERED,
        {
            "GET /userinfo": {
                "sub": SUBJECT,
                "email": "alice@example.com",
                "groups": [{"groupId": "STAFF", "roles": ["USER"]}],
                "roles": ["ADMIN"],
            }
        },
        ALICE,
    ),
    Case("gitlab", DISCOVERED, GITLAB, ALICE),
    Case("gitlab", {**DISCOVERED, "gitlab_groups": "eng/core"}, GITLAB, ALICE),
    Case("gitlab", {**DISCOVERED, "gitlab_groups": "x"}, GITLAB, ALICE, allowed=False),
    Case("gitlab", {**DISCOVERED, "gitlab_projects": "eng/app=30"}, GITLAB, ALICE),
    Case(
        "gitlab",
        {**DISCOVERED, "gitlab_projects": "eng/app=40"},
        GITLAB,
        ALICE,
        allowed=False,
    ),
    Case("azure", {**DISCOVERED, "validate_url": "{url}/me"}, {"GET /me": {}}, ALICE),
    Case(
        "google",
        {
            **OWN,
            "validate_url": "{url}/tokeninfo",
            "oidc_issuer_url": "{url}",
            "oidc_jwks_url": "{url}/jwks",
        },
        {"GET /tokeninfo": {}},
        ALICE,
    ),
    Case(
        "login.gov",
        {
            **OWN,
            "profile_url": "{url}/userinfo",
            "validate_url": "{url}/userinfo",
            "pubjwk_url": "{url}/jwks",
            "jwt_key": signing_key("own").as_pem(private=True).decode(),
            "oidc_issuer_url": "{url}",
        },
        {
            "GET /userinfo": {
                "sub": SUBJECT,
                "email": "alice@example.com",
                "email_verified": True,
            }
        },
        ALICE,
    ),
)


class Idp:
    """The endpoints of one case; ``nonce`` is that of the current login."""

    def __init__(self, api: ApiServer, case: Case) -> None:
        self.api, self.case = api, case
        self.nonce = ""
        found = discovery(api.url)
        if "GET /userinfo" not in case.responses:
            found["userinfo_endpoint"] = ""
        api.answers = {
            "GET /.well-known/openid-configuration": found,
            "GET /jwks": jwks(),
            "POST /token": self.tokens,
            **case.responses,
        }

    def tokens(self, target: str, body: str) -> Any:
        if self.case.claims is None:
            return TOKEN
        now = int(time.time())
        claims = {
            "iss": self.api.url,
            "aud": "web",
            "sub": SUBJECT,
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce or None,
            **self.case.claims,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        more = {"expires_in": 300, "expires_on": str(now + 300), "refresh_token": "r"}
        return {**TOKEN, **more, "id_token": signed(kept)}


def log_in(server: peers.AuthServer, idp: Idp) -> tuple[Reply, Reply]:
    """Log in; return the responses of the callback and of the auth check."""
    client = Client()
    started = client.get(f"{server.url}/oauth2/start?rd=/")
    assert started.status == 302, started.text
    idp.nonce = started.query.get("nonce", "")
    state = started.query["state"]
    back = client.get(f"{server.url}/oauth2/callback?code=c&state={state}")
    return back, client.get(f"{server.url}/oauth2/auth")


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


def results(name: str, folder: Path, api: ApiServer, case: Case) -> dict[str, Any]:
    """Log in with the program *name*; return the compared results."""
    idp = Idp(api, case)
    settings = {
        key: value.replace("{url}", api.url)
        for key, value in {"provider": case.kind, **case.settings}.items()
    }
    server = peers.start_auth_server(
        name,
        folder / name,
        settings.get("oidc_issuer_url", api.url),
        config=CONFIG,
        path="/ping",
        environment={
            "OAUTH2_PROXY_CLIENT_ID": "web",
            "OAUTH2_PROXY_WORKERS": "1",
            **{f"OAUTH2_PROXY_{key.upper()}": value for key, value in settings.items()},
        },
    )
    try:
        if name == peers.AUTHPROXY:
            ready = Client()
            server.process.wait_until(
                lambda: ready.get(f"{server.url}/ready").status == 200, 20.0
            )
        api.seen.clear()
        callback, check = log_in(server, idp)
    finally:
        server.stop()
    return {
        "allowed": callback.status == 302,
        "check": check.status,
        "endpoints": {request.partition("?")[0] for request in api.seen},
        **{header: _sorted(check.header(header)) for header in HEADERS},
    }


def _sorted(value: str) -> str:
    """Return the groups sorted, because some provider types send them in random order."""
    return ",".join(sorted(value.split(",")))


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{number}-{case.kind}" for number, case in enumerate(CASES)]
)
def test_login_results_equal(case: Case, tmp_path: Path, api: ApiServer) -> None:
    if peers.command(peers.OAUTH2_PROXY) is None:
        pytest.skip("oauth2-proxy is not installed")
    reference = results(peers.OAUTH2_PROXY, tmp_path, api, case)
    actual = results(peers.AUTHPROXY, tmp_path, api, case)
    endpoints, known = actual.pop("endpoints"), reference.pop("endpoints")
    assert actual == reference
    assert actual["allowed"] is case.allowed
    # authproxy requests the user before it checks access; oauth2-proxy only afterwards.
    assert endpoints <= known | {"GET /user"}
