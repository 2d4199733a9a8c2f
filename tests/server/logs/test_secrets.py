"""Logs and metrics contain no credentials during logins, refreshes and errors."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from authproxy_core.messages import Headers
from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import SECRET, Program

PASSWORD = "canary-password-of-all-users"
MIN_SECRET_LENGTH = 12  # characters; shorter ones may occur by chance
FORMATS = ("text", "json")


class Recorder(DevProvider):
    """A provider that records the secrets of its requests and responses."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.secrets: set[str] = set()
        self.refreshes = 0  # requests with a refresh token

    def handle(
        self, method: bytes, target: bytes, headers: Headers, body: bytes
    ) -> tuple[int, Headers, bytes]:
        """Return the provider's response."""
        response = super().handle(method, target, headers, body)
        self.refreshes += b"grant_type=refresh_token" in body
        self.note(target.decode().partition("?")[2])
        self.note(body.decode())
        self.secrets |= {v.decode() for k, v in headers if k == b"authorization"}
        if target.startswith(b"/token") and response[2].startswith(b"{"):
            tokens = json.loads(response[2])
            self.secrets |= {tokens[k] for k in tokens if k.endswith("_token")}
        return response

    def note(self, query: str) -> None:
        """Record the secret values of a query or form."""
        for name, value in parse_qsl(query):
            if name in ("code", "state", "nonce", "code_verifier", "refresh_token"):
                self.secrets.add(value)


class Browser:
    """Client with cookies; their values are secrets, too."""

    def __init__(self, port: int, provider: Recorder) -> None:
        self._port = port
        self._provider = provider
        self.cookies: dict[str, str] = {}

    def get(self, target: str, headers: Mapping[str, str] | None = None) -> int:
        """Send a request and return the status; store the cookies."""
        connection = HTTPConnection(LOOPBACK, self._port, timeout=60)
        jar = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        fields = {"Cookie": jar} if jar else {}
        connection.request("GET", target, headers={**fields, **(headers or {})})
        response = connection.getresponse()
        response.read()
        for value in response.headers.get_all("Set-Cookie", []):
            name, _, text = value.partition(";")[0].partition("=")
            self._provider.secrets |= {text, text.partition("|")[0]}
            self.cookies[name] = text
        self.location = response.headers.get("Location", "")
        self._provider.note(urlsplit(self.location).query)
        connection.close()
        return response.status

    def log_in(self, name: str) -> int:
        """Log in and return the status of the callback."""
        assert self.get("/oauth2/start?rd=/page") == 302
        callback = urlsplit(self._provider.log_in(self.location, name))
        self._provider.note(callback.query)
        return self.get(f"{callback.path}?{callback.query}")


@pytest.mark.parametrize("form", FORMATS)
def test_ou14_no_credential_is_logged(tmp_path: Path, form: str) -> None:
    config = ProviderConfig(users=example_users(PASSWORD))
    provider = Recorder(config)
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
            cookie_refresh="1s",
            upstreams=["http://127.0.0.1:9/"],
            metrics_address=f"{LOOPBACK}:0",
            logging_format=form,
            set_authorization_header=True,
        ) as program,
    ):
        browser = Browser(program.port, provider)
        wait_for(lambda: browser.get("/ready") == 200, "the provider")
        _use(browser, provider)
        # The two log writers are not synchronized.
        for line in ("/last", "refresh_failed", "session_ended", "login_failed"):
            wait_for(lambda: line in program.log(), line)  # noqa: B023 - called at once
        log = program.log()
        metrics = _metrics(program)
    secrets = {item for item in provider.secrets if len(item) >= MIN_SECRET_LENGTH}
    secrets |= {SECRET, PASSWORD, "demo-client-secret", "canary-"}
    assert len(secrets) > 20
    for secret in secrets:
        for spelling in (
            secret,
            quote(secret, safe=""),
            secret[: 2 * MIN_SECRET_LENGTH],
        ):
            assert spelling not in log
            assert spelling not in metrics
    lines = [line for line in log.splitlines() if line]
    if form == "json":
        kinds = [json.loads(line)["kind"] for line in lines]
        assert set(kinds) == {"request", "auth", "standard"}


def _use(browser: Browser, provider: Recorder) -> None:
    """Cause all events of sessions, logins and rejected requests."""
    config = provider.config
    assert browser.log_in("alice") == 302
    assert browser.get("/oauth2/auth") == 202
    _check_until_refresh(browser, provider, 202)
    config.failing["token"] = 500
    _check_until_refresh(browser, provider, 202)
    del config.failing["token"]
    assert browser.log_in("bob") == 302
    provider.revoke("bob")
    _check_until_refresh(browser, provider, 401)
    assert browser.log_in("alice") == 302
    assert browser.get("/page?access_token=canary-in-query-1") == 502
    basic = base64.b64encode(b"alice:canary-in-basic").decode()
    for value in ("Bearer canary-in-bearer-1", f"Basic {basic}"):
        browser.get("/page", {"Authorization": value})
    provider.secrets.add(basic)
    browser.get("/oauth2/callback?code=canary-code-1&state=canary-state-1")
    browser.get("/oauth2/callback?error=denied&state=canary-state-2")
    browser.get("/page?rd=https%3A%2F%2Fa%2F%3Fcode%3Dcanary-in-rd")
    config.id_token_claims["nonce"] = "canary-nonce-1"
    assert browser.log_in("alice") == 403
    del config.id_token_claims["nonce"]
    config.id_token_filter = lambda token: token + "canary"
    assert browser.log_in("alice") == 500
    config.id_token_filter = None
    browser.cookies = {"_oauth2_proxy": "canary-in-cookie"}
    browser.get("/page", {"X-Forwarded-Access-Token": "canary-in-header"})
    browser.get("/last")


def _check_until_refresh(browser: Browser, provider: Recorder, status: int) -> None:
    """Send auth checks until one refreshes the session and has the *status*."""
    refreshes = provider.refreshes
    wait_for(
        lambda: (
            browser.get("/oauth2/auth") == status and provider.refreshes > refreshes
        ),
        "a refresh",
    )


def _metrics(program: Program) -> str:
    port = int(
        program.log().partition("metrics on http://127.0.0.1:")[2][:6].strip('" ,}\n')
    )
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text
