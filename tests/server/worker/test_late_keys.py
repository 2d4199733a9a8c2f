"""A running server whose provider serves its keys late, not at all, or new ones."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program


class Site:
    """A server, its provider, and a client with cookies."""

    def __init__(self, program: Program, provider: DevProvider) -> None:
        self.program, self.provider = program, provider
        self.cookies: dict[str, str] = {}
        self.headers: dict[str, str] = {}

    def get(self, target: str, **headers: str) -> int:
        """Send a request and return the status; store cookies and headers."""
        connection = HTTPConnection(LOOPBACK, self.program.port, timeout=60)
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request("GET", target, headers={"Cookie": jar, **headers})
        response = connection.getresponse()
        response.read()
        for value in response.headers.get_all("Set-Cookie", []):
            name, _, text = value.partition(";")[0].partition("=")
            self.cookies[name] = text
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        return response.status

    def log_in(self) -> int:
        """Log in and return the status of the callback."""
        assert self.get("/oauth2/start?rd=/page") == 302
        callback = urlsplit(self.provider.log_in(self.headers["location"], "alice"))
        return self.get(f"{callback.path}?{callback.query}")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A server whose provider returns 500 for its keys."""
    config = ProviderConfig(users=example_users("secret"))
    config.failing["jwks"] = 500
    provider = DevProvider(config)
    with (
        serve(provider) as idp,
        Program(
            tmp_path,
            provider="keycloak-oidc",
            client_id="authproxy",
            client_secret="demo-client-secret",
            oidc_issuer_url=idp.url,
            skip_oidc_discovery=None,
            login_url=None,
            redeem_url=None,
            oidc_jwks_url=None,
            cookie_secure=False,
            skip_jwt_bearer_tokens=True,
        ) as program,
    ):
        wait_for(lambda: provider.count("jwks") > 0, "the first attempt")
        yield Site(program, provider)


def test_login_before_keys_are_there_is_unavailable_then_succeeds(site: Site) -> None:
    """FA28: 503 with Retry-After, and the code is not used."""
    assert site.log_in() == 503
    assert site.headers["retry-after"].isdigit()
    assert site.provider.count("token") == 0
    wait_for(lambda: "got status 500" in site.program.log(), "the reason")
    del site.provider.config.failing["jwks"]
    assert site.log_in() == 302
    site.provider.rotate_keys(keep_old=False)
    assert site.log_in() == 302


def test_bearer_before_keys_are_there_is_unavailable_then_accepted(site: Site) -> None:
    """FA28: 503 with Retry-After, neither 401 nor 202."""
    provider = site.provider
    claims = {"iss": provider.config.issuer, "sub": "robot", "aud": "authproxy"}
    dates = {"iat": 1, "exp": 4_000_000_000, "email": "robot@example.com"}
    token = provider.tokens.keys.sign({**claims, **dates}, "RS256", {})
    field = f"Bearer {token}"
    assert site.get("/oauth2/auth", Authorization=field) == 503
    assert site.headers["retry-after"].isdigit()
    del provider.config.failing["jwks"]
    wait_for(lambda: site.get("/oauth2/auth", Authorization=field) == 202, "the keys")
