"""A proxy with providers whose endpoints respond from a table, without network.

Responses are looked up by method and URL without query. They are JSON values,
`Response` objects, errors to raise, functions of the `Fetch`, or `Turns` of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jws
from joserfc.jwk import RSAKey

from authproxy_core import Fetch, ProviderSettings, Respond, Response, Secret
from authproxy_core.encoding import b64url
from authproxy_core.errors import EffectError
from support.harness import RESPONSE_RULES, SECRET, Harness, header, settings

JSON_TYPE = ((b"content-type", b"application/json"),)
FORM_TYPE = ((b"content-type", b"application/x-www-form-urlencoded"),)
ISSUER = "https://idp.example.com"
SUBJECT = "248289761001"


class Turns:
    """Responses in sequence; the last one repeats."""

    def __init__(self, *responses: Any) -> None:
        self._answers = list(responses)

    def next(self) -> Any:
        """Return the next response."""
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def json(value: Any, status: int = 200) -> Response:
    """Return a JSON response."""
    return Response(status, JSON_TYPE, orjson.dumps(value))


def status(code: int, *headers: tuple[bytes, bytes]) -> Response:
    """Return a response without a body."""
    return Response(code, headers, b"")


def signing_key(name: str = "one") -> RSAKey:
    """Return a signing key of the providers, generated once for all tests."""
    return _key(name)


@cache
def _key(name: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": name})


@cache
def weak_key() -> rsa.RSAPrivateKey:
    """Return an RSA key that is too small."""
    return rsa.generate_private_key(65537, 1024)


def public_pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> str:
    """Return a public key as PEM."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def private_pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b""
) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


def jwks(name: str = "one") -> dict[str, Any]:
    """Return the key set with the key *name*."""
    return {"keys": [{**signing_key(name).as_dict(private=False), "kid": name}]}


def signed(claims: Mapping[str, Any], name: str = "one") -> str:
    """Return a JWT with *claims*, signed by the key *name*."""
    header_ = {"alg": "RS256", "kid": name}
    return jws.serialize_compact(header_, orjson.dumps(dict(claims)), signing_key(name))


def signed_text(
    claims: Mapping[str, Any], texts: Mapping[str, str], alg: str = "RS256"
) -> str:
    """Return a JWT with *claims*, and with further claims as JSON *texts*."""
    more = "".join(f',"{name}":{text}' for name, text in texts.items())
    payload = orjson.dumps(dict(claims))[:-1] + more.encode() + b"}"
    return jws.serialize_compact(
        {"alg": alg, "kid": "one"}, payload, signing_key("one"), algorithms=[alg]
    )


def discovery(issuer: str = ISSUER, **changes: Any) -> dict[str, Any]:
    """Return provider metadata with all endpoints under the issuer."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
        "userinfo_endpoint": f"{issuer}/userinfo",
        **changes,
    }


class Endpoints:
    """A proxy, a client, and providers that respond from a table.

    *claims* are added to the standard claims of ID tokens.
    """

    def __init__(
        self,
        kind: str,
        responses: Mapping[str, Any],
        *,
        claims: Mapping[str, Any] | None = None,
        core: Mapping[str, Any] | None = None,
        cookie: Mapping[str, Any] | None = None,
        ready: bool = True,
        **provider: Any,
    ) -> None:
        self.claims: dict[str, Any] = dict(claims or {})
        self.responses: dict[str, Any] = dict(responses)
        self.asked: list[Fetch] = []
        values = {
            "id": kind,
            "type": kind,
            "name": "",
            "client_id": "web",
            "client_secret": Secret("hush"),
            "issuer": "",
        }
        given = settings(
            cookie={"secrets": (SECRET,), **(cookie or {})},
            **{
                "providers": (ProviderSettings(**(values | provider)),),
                "inject_response_headers": RESPONSE_RULES,
                **(core or {}),
            },
        )
        self.harness = Harness(given, ready=False)
        self.harness.on_fetch = self._respond
        self.nonce: str | None = None
        if ready:
            self.harness.run(self.harness.proxy.warm_up())
            self.asked.clear()

    # -- the provider

    def _respond(self, fetch: Fetch) -> Response:
        self.asked.append(fetch)
        assert fetch.purpose, f"{fetch.url} is requested without a purpose"
        response = self.responses[f"{fetch.method} {fetch.url.partition('?')[0]}"]
        if isinstance(response, Turns):
            response = response.next()
        if callable(response):
            response = response(fetch)
        if isinstance(response, EffectError):
            raise response
        return response if isinstance(response, Response) else json(response)

    def id_token(self, **changes: Any) -> str:
        """Return an ID token for the current login."""
        now = int(self.harness.clock())
        claims = {
            "iss": ISSUER,
            "aud": "web",
            "sub": SUBJECT,
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            **self.claims,
            **changes,
        }
        return signed({name: it for name, it in claims.items() if it is not None})

    def tokens(self, **changes: Any) -> Callable[[Fetch], Response]:
        """Return a token endpoint whose ID token is issued at the request."""

        def response(fetch: Fetch) -> Response:
            document = {
                "access_token": "access-1",
                "token_type": "Bearer",
                "expires_in": 300,
                "refresh_token": "refresh-1",
                "id_token": self.id_token(),
                **changes,
            }
            kept = {name: it for name, it in document.items() if it is not None}
            return json(kept)

        return response

    def requests(self, purpose: str) -> list[Fetch]:
        """Return the requests with that purpose."""
        return [fetch for fetch in self.asked if fetch.purpose == purpose]

    # -- the client

    def start_login(self, target: str = "/oauth2/start?rd=/") -> dict[str, str]:
        """Start a login; return the parameters of the authorization request."""
        response = self.harness.get(target)
        assert response.status == 302, response
        self.location = header(response, b"location").decode()
        params = dict(parse_qsl(urlsplit(self.location).query))
        self.nonce = params.get("nonce")
        return params

    def finish(self, params: Mapping[str, str], **more: str) -> Respond:
        """Call the callback with a code; return the response."""
        extra = "".join(f"&{name}={value}" for name, value in more.items())
        path = urlsplit(params["redirect_uri"]).path
        return self.harness.get(f"{path}?code=code-1&state={params['state']}{extra}")

    def log_in(self) -> Respond:
        """Log in; return the response of the callback."""
        return self.finish(self.start_login())

    def later(self, seconds: float) -> Respond:
        """Return the response of the auth check *seconds* later."""
        self.harness.clock.now += seconds
        return self.auth_check()

    def auth_check(self) -> Respond:
        """Return the response of the auth check."""
        return self.harness.get("/oauth2/auth")

    def identity(self) -> tuple[str, str, str, str]:
        """Return user, email, groups and preferred username of the session."""
        response = self.auth_check()
        assert response.status == 202, response
        return (
            header(response, b"x-auth-request-user").decode(),
            header(response, b"x-auth-request-email").decode(),
            header(response, b"x-auth-request-groups").decode(),
            header(response, b"x-auth-request-preferred-username").decode(),
        )

    def failure(self) -> str:
        """Log in; return the reason code of its failure."""
        response = self.log_in()
        assert response.status >= 400, response
        assert self.auth_check().status == 401
        return response.events[0].reason


def form(fetch: Fetch) -> dict[str, str]:
    """Return the form in the body of a request."""
    return dict(parse_qsl(fetch.body.decode(), keep_blank_values=True))


def query(fetch: Fetch) -> dict[str, str]:
    """Return the query parameters of a request."""
    return dict(parse_qsl(urlsplit(fetch.url).query, keep_blank_values=True))


def field(fetch: Fetch, name: bytes) -> bytes:
    """Return a field of a request; b"" if it is absent."""
    return next((value for known, value in fetch.headers if known == name), b"")


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier."""
    return b64url(hashlib.sha256(verifier.encode()).digest()).decode()
