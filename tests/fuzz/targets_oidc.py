"""Targets that read the answers of providers and session stores: JSON, JWTs, RESP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from typing import Any

import hiredis
import msgspec

from authproxy.server_settings import RedisAddress
from authproxy.stores.redis_cluster import SLOTS, parse_ranges
from authproxy.stores.redis_connection import RedisConnection
from authproxy.stores.redis_sentinel import parse_address
from authproxy.stores.redis_server import changed_keys
from authproxy_core.encoding import b64url
from authproxy_core.errors import ProviderError, StoreError, TokenError
from authproxy_core.messages import Response
from authproxy_core.oidc.jwt import (
    ExpectedClaims,
    check_id_token,
    parse_key_set,
    token_algorithm,
    unverified_claims,
    verify_jws,
)
from authproxy_core.oidc.logout_token import LOGOUT_EVENT, check_logout_token
from authproxy_core.oidc.protocol import (
    parse_metadata,
    parse_tokens,
    parse_userinfo,
    signed_userinfo,
)
from support.harness import ISSUER, START

from .target import Target

# Fixed, so that the mutations are the same in every run.
KEYS = msgspec.json.encode(
    {
        "keys": [
            {
                "kty": "EC",
                "crv": "P-256",
                "kid": "e",
                "use": "sig",
                "alg": "ES256",
                "x": "olCBB3DKSnAGwqwGuLPdeeOywRdkmqG9w2kKebExN60",
                "y": "cWm95DebgRjyPBkJtdnlfylwuPEi3FsdgM-JM8tno2c",
            },
            {
                "kty": "RSA",
                "kid": "r",
                "e": "AQAB",
                "n": "qdeMuR6Bi0BY60HyDD7NgV7LIW0RH6Dfe1aLhNSnYnJITEy1FxE6B8-BMdYPbVva"
                "RB7_nhuKjH3Z1xUFvVQex-LAmLf2nzSZmVHmSxmeq61XR6wee8Nh3OI0UFwisVo2"
                "MHkZI4UezemLMVnV51HUNwHCof0VLN3Yx4BKKEgunjg02Bx2n2Fw8qXfwNZ134-Z"
                "1G-qr0WF9ORuJhOJsmnpUw9UoKs31cW4NRqKdQZQGp4YcBnQ9bBa2p7XlGVoE4J0"
                "KMT4YZWEvBvm17zfJV1xcCvC-381c73vCxTZuLKRc6TF9XN9aurdsXWJr1lv5HS9"
                "cBUaZ6uPz7dFgJmzvNZw-Q",
            },
        ]
    }
)
EXPECTED = ExpectedClaims(issuer=ISSUER, client_id="authproxy")
ALGORITHMS = ("RS256", "ES256", "EdDSA")
TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiIsImtpZCI6ImUifQ.eyJzdWIiOiJhI"
    "n0.lvRpDNRLo5Me9hkD1hi3eEehZggZUCAgF7JEZfTzP4KOyC5SHpr4XoQNWX6vJ"
    "YqBFQMbUJrOUmyxHL31N4-uHA"
)
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "service-1",
    "aud": ["authproxy", "other"],
    "azp": "authproxy",
    "iat": int(START),
    "exp": START + 300.5,
    "nbf": int(START),
}
LOGOUT = CLAIMS | {"events": {LOGOUT_EVENT: {}}, "jti": "1", "sid": "s"}
_keys = parse_key_set(KEYS)


def jwt(data: bytes) -> None:
    """Verify a token; only the seed has a valid signature."""
    token = data.decode("utf-8", "surrogateescape")
    token_algorithm(token)
    verify_jws(token, _keys, ALGORITHMS)
    assert token == TOKEN, token


def claims(data: bytes) -> None:
    """Validate claims as those of an ID token, and as those of a logout token."""
    found = unverified_claims("e30." + b64url(data).decode() + ".c2ln")
    try:
        check_id_token(found, EXPECTED, START)
    except TokenError:
        pass
    else:
        assert found["iss"] == ISSUER
        assert "authproxy" in found["aud"]
        assert "events" not in found
    logout = check_logout_token(found, EXPECTED, START)
    assert logout.subject or logout.sid
    assert "nonce" not in found


def key_set(data: bytes) -> None:
    """Parse a key set."""
    found = parse_key_set(data)
    assert len(found.thumbprints) <= len(found.keys)


def _check_text(error: ProviderError) -> None:
    """Assert that an error text is fit for logs and pages."""
    assert str(error).isprintable(), error


def provider_answer(data: bytes) -> None:
    """Parse metadata, tokens and userinfo; a first byte selects status and type."""
    status = 400 if data[:1] == b"4" else 200
    data = data.removeprefix(b"4")
    kinds = (
        b"application/json",
        b"application/x-www-form-urlencoded",
        b"application/jwt",
    )
    for kind in kinds:
        response = Response(status, ((b"content-type", kind),), data)
        try:
            tokens = parse_tokens(response, START, ("secret",))
        except ProviderError as error:
            _check_text(error)
        else:
            assert tokens.access_token
            assert 0 <= tokens.expires_in < math.inf
        signed_userinfo(response)
        try:
            parse_userinfo(response, "token")
        except ProviderError as error:
            _check_text(error)
    metadata = parse_metadata(response, None)
    assert metadata.issuer
    assert metadata.token_endpoint.startswith("http")


def _start_connection() -> tuple[RedisConnection, list[asyncio.Future[Any]]]:
    connection = RedisConnection(RedisAddress(host="127.0.0.1", port=6379), 5.0)
    return connection, [connection.send(("GET", "key")) for _ in range(4)]


_loop = asyncio.new_event_loop()


def redis_reply(data: bytes) -> None:
    """Receive replies to four commands, and read each as an address and as slots."""

    async def receive() -> list[Any]:
        connection, futures = _start_connection()
        connection.data_received(data)
        connection.abort("end")
        return await asyncio.gather(*futures, return_exceptions=True)

    for reply in _loop.run_until_complete(receive()):
        if isinstance(reply, Exception):
            assert isinstance(reply, StoreError | hiredis.HiredisError), reply
            continue
        with contextlib.suppress(StoreError):
            assert 0 <= parse_address(reply).port <= 0xFFFF
        if not isinstance(reply, list):
            continue
        changed_keys(reply)
        try:
            ranges = parse_ranges(reply, RedisAddress(host="127.0.0.1", port=6379))
        except StoreError:
            continue
        assert all(0 <= first <= last < SLOTS for first, last, _ in ranges)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


TARGETS = (
    Target("jwt", jwt, (TokenError,), (TOKEN.encode(), b"e30.e30.c2ln")),
    Target("claims", claims, (TokenError,), (_json(CLAIMS), _json(LOGOUT))),
    Target(
        "key_set",
        key_set,
        (ProviderError,),
        (
            KEYS,
            b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "' + b"A" * 43 + b'"}]}',
            b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, 1, null]}',
        ),
    ),
    Target(
        "provider_answer",
        provider_answer,
        (ProviderError,),
        (
            _json(
                {
                    "issuer": ISSUER,
                    "authorization_endpoint": ISSUER + "/auth",
                    "token_endpoint": ISSUER + "/token",
                    "jwks_uri": ISSUER + "/certs",
                    "id_token_signing_alg_values_supported": ["RS256", 1],
                    "access_token": "a",
                    "expires_in": 300,
                }
            ),
            b"access_token=a&expires_in=300&id_token=b",
            b'4{"error": "invalid_grant", "error_description": "a\\u0000 secret"}',
            b'{"access_token": "a", "expires_on": "1790000300"}',
        ),
    ),
    Target(
        "redis_reply",
        redis_reply,
        (),
        (
            b"+OK\r\n$3\r\nabc\r\n$-1\r\n:1\r\n",
            b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n-MOVED 1 a:1\r\n",
            b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\na\r\n:6379\r\n",
            b"%1\r\n%1\r\n+a\r\n+b\r\n+c\r\n*99999\r\n",
            b">2\r\n+invalidate\r\n*1\r\n$1\r\na\r\n%1\r\n+a\r\n,inf\r\n#t\r\n_\r\n",
        ),
    ),
)
