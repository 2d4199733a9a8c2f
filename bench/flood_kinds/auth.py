"""Floods of authentication: guesses, logins, callbacks; floods of log lines."""

from __future__ import annotations

import base64
import json

from flood_kinds.http1 import AUTH, HOST
from flood_kinds.kinds import ALL, PROXIES, Variant, flood
from flood_kinds.link import Link

BEARER = Variant(toml="skip_jwt_bearer_tokens = true\n")
BASIC = Variant(toml='htpasswd_file = "HTPASSWD"\n')
LOGOUT = Variant(
    own_toml="session_revocation = true\nbackchannel_logout = true\n"
    'sqlite_path = "FOLDER/revoked.db"\n'
)
FIELD = b"Authorization: "


def _encoded(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def _token(number: int, key_id: str) -> bytes:
    head = {"alg": "RS256", "typ": "JWT", "kid": key_id}
    claims = {"iss": "http://127.0.0.1", "sub": str(number), "exp": 4_000_000_000}
    signature = base64.urlsafe_b64encode(b"%d" % number * 32)[:342]
    return _encoded(head) + b"." + _encoded(claims) + b"." + signature


@flood(against=PROXIES, variant=BEARER)
async def bearer_guesses(link: Link) -> None:
    """Bearer tokens with random signatures."""
    number = link.number * 1_000_000
    while True:
        number += 1
        token = _token(number, "key")
        await link.response(AUTH + FIELD + b"Bearer " + token + b"\r\n\r\n")


@flood(against=PROXIES, variant=BEARER)
async def bearer_unknown_keys(link: Link) -> None:
    """Bearer tokens that each name another key."""
    number = link.number * 1_000_000
    while True:
        number += 1
        token = _token(number, f"key-{number}")
        await link.response(AUTH + FIELD + b"Bearer " + token + b"\r\n\r\n")


@flood(against=PROXIES, variant=BASIC)
async def basic_guesses(link: Link) -> None:
    """Wrong passwords of a user with a bcrypt hash."""
    number = link.number * 1_000_000
    while True:
        number += 1
        credentials = base64.b64encode(b"alice:guess-%d" % number)
        await link.response(AUTH + FIELD + b"Basic " + credentials + b"\r\n\r\n")


@flood(against=PROXIES, variant=BASIC)
async def form_guesses(link: Link) -> None:
    """Wrong passwords in the sign-in form."""
    number = link.number * 1_000_000
    while True:
        number += 1
        body = b"username=alice&password=guess-%d&rd=/" % number
        await link.response(
            b"POST /oauth2/sign_in HTTP/1.1\r\n" + HOST + b"Content-Type: application/"
            b"x-www-form-urlencoded\r\nOrigin: http://app.example.com\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )


@flood(against=PROXIES)
async def login_starts(link: Link) -> None:
    """Logins that are started at /oauth2/start and not finished."""
    while True:
        await link.response(
            b"GET /oauth2/start?rd=/%d HTTP/1.1\r\n" % link.sent + HOST + b"\r\n"
        )


@flood(against=PROXIES)
async def junk_callbacks(link: Link) -> None:
    """Callbacks with invalid state and code."""
    while True:
        head = b"GET /oauth2/callback?code=%d&state=%d:/ HTTP/1.1\r\n"
        await link.response(head % (link.sent, link.sent) + HOST + b"\r\n")


@flood(against=PROXIES)
async def sign_in_pages(link: Link) -> None:
    """Sign-in pages."""
    while True:
        await link.response(b"GET /oauth2/sign_in HTTP/1.1\r\n" + HOST + b"\r\n")


@flood(against=("authproxy",), variant=LOGOUT)
async def logout_tokens(link: Link) -> None:
    """Invalid logout tokens at the back-channel endpoint."""
    number = link.number * 1_000_000
    while True:
        number += 1
        body = b"logout_token=" + _token(number, "key")
        await link.response(
            b"POST /oauth2/backchannel-logout HTTP/1.1\r\n" + HOST + b"Content-Type: "
            b"application/x-www-form-urlencoded\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )


async def _log_lines(link: Link) -> None:
    filler = b"x" * 1000
    while True:
        await link.response(
            b"GET /oauth2/auth?%d%b HTTP/1.1\r\n" % (link.sent, filler) + HOST + b"\r\n"
        )


@flood(against=PROXIES)
async def log_lines(link: Link) -> None:
    """Requests with log lines of 1 kB."""
    await _log_lines(link)


@flood(against=PROXIES, variant=Variant(output="pipe"))
async def log_lines_full_pipe(link: Link) -> None:
    """Requests with log lines of 1 kB while the log is a full pipe."""
    await _log_lines(link)


@flood(against=ALL, variant=Variant(output="disk"))
async def log_lines_full_disk(link: Link) -> None:
    """Requests with log lines of 1 kB while the disk of the log is full."""
    await _log_lines(link)
