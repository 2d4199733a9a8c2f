"""A key that the provider withdrew ends in all workers together."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

from authproxy_devprovider.config import ProviderConfig, example_users
from authproxy_devprovider.provider import DevProvider, serve
from support import workers
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import Program

WORKERS = 3


def bearer(provider: DevProvider) -> str:
    """Return an Authorization field with a token of the provider's current key."""
    claims = {"iss": provider.config.issuer, "sub": "robot", "aud": "authproxy"}
    dates = {"iat": 1, "exp": 4_000_000_000, "email": "robot@example.com"}
    token = provider.tokens.keys.sign({**claims, **dates}, "RS256", {})
    return f"Authorization: Bearer {token}\r\n"


def statuses(program: Program, field: str) -> set[int]:
    """Return the statuses with which all workers respond to *field*."""
    request = f"GET /oauth2/auth HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode()
    answers = workers.send_to_each(program, program.port, request)
    assert len(answers) == WORKERS
    return {answer.status for answer in answers}


def status(program: Program, field: str) -> int:
    """Return the status with which one worker responds to *field*."""
    connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
    name, value = field.strip().split(": ")
    connection.request("GET", "/oauth2/auth", headers={name: value})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def test_withdrawn_key_ends_in_all_workers_once_one_sees_the_new_key(
    tmp_path: Path,
) -> None:
    provider = DevProvider(ProviderConfig(users=example_users("secret")))
    with (
        serve(provider) as idp,
        Program(
            tmp_path,
            workers=WORKERS,
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
        program.wait_until(lambda: len(program.workers) == WORKERS)
        old = bearer(provider)
        wait_for(lambda: statuses(program, old) == {202}, "the keys in all workers")
        provider.rotate_keys(keep_old=False)
        assert statuses(program, old) == {202}  # no worker knows yet
        assert status(program, bearer(provider)) == 202
        wait_for(lambda: statuses(program, old) == {401}, "the end in all workers")
        assert statuses(program, bearer(provider)) == {202}
        assert "no longer publishes" in program.log()
