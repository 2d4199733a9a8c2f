"""The development provider, without a network and over HTTP."""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from authproxy_core.effects import Fetch
from authproxy_core.messages import first_header
from authproxy_devprovider.config import (
    UNUSABLE_KEYS,
    Client,
    HttpResponse,
    ProviderConfig,
    User,
    example_users,
)
from authproxy_devprovider.pages import SUBMIT_SCRIPT, csp_hash
from authproxy_devprovider.protocol import OAuthError
from authproxy_devprovider.provider import DevProvider, serve
from authproxy_devprovider.web import RunningServer

ISSUER = "http://127.0.0.1:9"
CALLBACK = "http://127.0.0.1:4180/oauth2/callback"
SECRET = "demo-client-secret"
VERIFIER = "v" * 43
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .rstrip(b"=")
    .decode()
)
FORM = ((b"content-type", b"application/x-www-form-urlencoded"),)


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def config() -> ProviderConfig:
    return ProviderConfig(issuer=ISSUER, users=example_users("pass word"))


@pytest.fixture
def provider(config: ProviderConfig, clock: Clock) -> DevProvider:
    return DevProvider(config, clock)


def get(
    provider: DevProvider, target: str, *headers: tuple[bytes, bytes]
) -> HttpResponse:
    return provider.handle(b"GET", target.encode(), headers, b"")


def post(
    provider: DevProvider,
    target: str,
    form: dict[str, str],
    *headers: tuple[bytes, bytes],
) -> HttpResponse:
    body = urlencode(form).encode()
    return provider.handle(b"POST", target.encode(), (*FORM, *headers), body)


def authorization_target(**changes: str | None) -> str:
    params: dict[str, str | None] = {
        "response_type": "code",
        "client_id": "authproxy",
        "redirect_uri": CALLBACK,
        "scope": "openid email profile",
        "state": "the state",
        "nonce": "the-nonce",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        **changes,
    }
    given = {name: value for name, value in params.items() if value is not None}
    return f"/authorize?{urlencode(given)}"


def callback_params(response: HttpResponse) -> dict[str, str]:
    status, headers, _ = response
    assert status == 303
    location = (first_header(headers, b"location") or b"").decode()
    assert location.startswith(CALLBACK + "?")
    return {
        name: values[0] for name, values in parse_qs(urlsplit(location).query).items()
    }


def log_in(provider: DevProvider, user: str = "alice", /, **changes: str | None) -> str:
    """Return the authorization code of a login of *user*."""
    url = ISSUER + authorization_target(**changes)
    query = urlsplit(provider.log_in(url, user)).query
    return parse_qs(query)["code"][0]


def redeem(provider: DevProvider, code: str, /, **changes: str | None) -> HttpResponse:
    form: dict[str, str | None] = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "client_id": "authproxy",
        "client_secret": SECRET,
        **changes,
    }
    return post(provider, "/token", {k: v for k, v in form.items() if v is not None})


def refresh(provider: DevProvider, token: str, **changes: str) -> HttpResponse:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token,
        "client_id": "authproxy",
        "client_secret": SECRET,
        **changes,
    }
    return post(provider, "/token", form)


def tokens_of(response: HttpResponse) -> dict[str, Any]:
    status, headers, body = response
    assert status == 200, body
    assert first_header(headers, b"cache-control") == b"no-store"
    value: dict[str, Any] = json.loads(body)
    return value


def error_of(response: HttpResponse) -> tuple[int, str]:
    return response[0], json.loads(response[2])["error"]


def verify(provider: DevProvider, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims; verifies the signature with the JWKS."""
    keys = json.loads(get(provider, "/jwks")[2])["keys"]
    keys_of_algorithms = KeySet.import_key_set(
        {"keys": [key for key in keys if key.get("alg") in ("RS256", "ES256")]}
    )
    decoded = jwt.decode(token, keys_of_algorithms, algorithms=["RS256", "ES256"])
    return decoded.header, decoded.claims


class TestDiscovery:
    def test_discovery_endpoints_share_issuer(self, provider: DevProvider) -> None:
        _, _, body = get(provider, "/.well-known/openid-configuration")
        document = json.loads(body)
        assert document["issuer"] == ISSUER
        for name in ("authorization", "token", "userinfo", "end_session"):
            assert document[f"{name}_endpoint"].startswith(ISSUER + "/")
        assert document["jwks_uri"] == ISSUER + "/jwks"
        assert document["code_challenge_methods_supported"] == ["S256", "plain"]
        assert document["authorization_response_iss_parameter_supported"] is True
        assert document["id_token_signing_alg_values_supported"] == ["RS256", "ES256"]

    def test_discovery_issuer_with_path(self, clock: Clock) -> None:
        provider = DevProvider(ProviderConfig(issuer=ISSUER + "/realms/demo"), clock)
        target = "/realms/demo/.well-known/openid-configuration"
        document = json.loads(get(provider, target)[2])
        assert document["token_endpoint"] == ISSUER + "/realms/demo/token"
        assert get(provider, "/.well-known/openid-configuration")[0] == 404

    def test_discovery_overrides_applied(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.discovery = {"jwks_uri": None, "issuer": "https://other.test"}
        document = json.loads(get(provider, "/.well-known/openid-configuration")[2])
        assert "jwks_uri" not in document
        assert document["issuer"] == "https://other.test"

    def test_failing_endpoint_sends_configured_response(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.failing["discovery"] = 500
        config.failing["jwks"] = (200, (), b"not json")
        assert get(provider, "/.well-known/openid-configuration")[0] == 500
        assert get(provider, "/jwks") == (200, (), b"not json")
        del config.failing["discovery"]
        assert get(provider, "/.well-known/openid-configuration")[0] == 200

    def test_jwks_has_public_keys_and_configured_ones(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.jwks_before = UNUSABLE_KEYS
        keys = json.loads(get(provider, "/jwks")[2])["keys"]
        assert [key["kid"] for key in keys[: len(UNUSABLE_KEYS)]] == [
            key["kid"] for key in UNUSABLE_KEYS
        ]
        current = keys[len(UNUSABLE_KEYS) :]
        assert {key["alg"] for key in current} == {"RS256", "ES256"}
        assert not any({"d", "p", "q"} & set(key) for key in current)


class TestAuthorization:
    def test_sign_in_form_redirects_to_callback(self, provider: DevProvider) -> None:
        status, headers, body = get(provider, authorization_target())
        assert status == 200
        csp = (first_header(headers, b"content-security-policy") or b"").decode()
        assert "default-src 'none'" in csp
        assert "unsafe" not in csp
        style = re.findall(r"<style>(.*?)</style>", body.decode(), re.DOTALL)
        assert csp_hash(style[0]) in csp
        action = html.unescape(re.findall(r'action="([^"]+)"', body.decode())[0])
        form = {"username": "alice", "password": "pass word", "action": "login"}
        params = callback_params(post(provider, "/authorize" + action, form))
        assert set(params) == {"code", "state", "iss"}
        assert params["state"] == "the state"
        assert params["iss"] == ISSUER

    @pytest.mark.parametrize(
        ("username", "password"),
        [("alice", "wrong"), ("unknown", "pass word"), ("unknown", ""), ("", "")],
    )
    def test_wrong_password_shows_form(
        self, provider: DevProvider, username: str, password: str
    ) -> None:
        form = {"username": username, "password": password, "action": "login"}
        status, headers, body = post(provider, authorization_target(), form)
        assert status == 200
        assert b"Incorrect username or password" in body
        assert first_header(headers, b"location") is None

    def test_sign_in_form_escapes_username(self, provider: DevProvider) -> None:
        form = {"username": '"><script>', "password": "x"}
        _, _, body = post(provider, authorization_target(), form)
        assert b'"><script>' not in body
        assert b"&quot;&gt;&lt;script&gt;" in body

    def test_cancel_returns_access_denied(self, provider: DevProvider) -> None:
        response = post(provider, authorization_target(), {"action": "cancel"})
        params = callback_params(response)
        assert params["error"] == "access_denied"
        assert (params["state"], params["iss"]) == ("the state", ISSUER)
        assert "code" not in params

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"prompt": "none"}, "login_required"),
            ({"prompt": "none login"}, "invalid_request"),
            ({"response_type": "token"}, "unsupported_response_type"),
            ({"response_type": None}, "unsupported_response_type"),
            ({"response_mode": "fragment"}, "invalid_request"),
            ({"request": "x"}, "request_not_supported"),
            ({"request_uri": "x"}, "request_uri_not_supported"),
            ({"scope": "openid universe"}, "invalid_scope"),
            ({"code_challenge_method": "S512"}, "invalid_request"),
            ({"code_challenge": "short"}, "invalid_request"),
            ({"code_challenge": None}, "invalid_request"),
        ],
    )
    def test_invalid_request_redirects_error_to_callback(
        self, provider: DevProvider, changes: dict[str, str | None], error: str
    ) -> None:
        params = callback_params(get(provider, authorization_target(**changes)))
        assert params["error"] == error
        assert (params["state"], params["iss"]) == ("the state", ISSUER)

    @pytest.mark.parametrize(
        "changes",
        [
            {"client_id": "other"},
            {"client_id": None},
            {"redirect_uri": None},
            {"redirect_uri": "https://evil.test/oauth2/callback"},
            {"redirect_uri": "http://127.0.0.1.evil.test/"},
            {"redirect_uri": "http://127.0.0.1@evil.test/"},
            {"redirect_uri": "http://evil.test@127.0.0.1/"},
            {"redirect_uri": "javascript://localhost/%0aalert(1)"},
            {"redirect_uri": "http://localhost/\r\nx: y"},
            {"redirect_uri": "http://[::1/"},
        ],
    )
    def test_unregistered_client_or_redirect_uri_not_redirected(
        self, provider: DevProvider, changes: dict[str, str | None]
    ) -> None:
        status, headers, _ = get(provider, authorization_target(**changes))
        assert status == 400
        assert first_header(headers, b"location") is None

    def test_registered_redirect_uris_match_exactly(self, clock: Clock) -> None:
        client = Client(redirect_uris=("https://app.test/oauth2/callback",))
        provider = DevProvider(ProviderConfig(issuer=ISSUER, clients=(client,)), clock)
        registered = authorization_target(
            redirect_uri="https://app.test/oauth2/callback"
        )
        assert get(provider, registered)[0] == 200
        for uri in ("https://app.test/oauth2/callback/", CALLBACK):
            target = authorization_target(redirect_uri=uri)
            assert get(provider, target)[0] == 400

    def test_repeated_parameter_rejected(self, provider: DevProvider) -> None:
        target = authorization_target() + "&client_id=authproxy"
        assert get(provider, target)[0] == 400

    def test_malformed_query_rejected(self, provider: DevProvider) -> None:
        assert get(provider, authorization_target() + "&x=\xe4")[0] == 400
        assert get(provider, authorization_target() + "&x=%ff")[0] == 400

    def test_authorization_request_as_form_accepted(
        self, provider: DevProvider
    ) -> None:
        query = urlsplit(authorization_target()).query
        form = {name: values[0] for name, values in parse_qs(query).items()}
        status, _, body = post(provider, "/authorize", form)
        assert status == 200
        assert b"code_challenge=" in body

    def test_form_post_response_mode(self, provider: DevProvider) -> None:
        target = authorization_target(response_mode="form_post")
        form = {"username": "bob", "password": "pass word"}
        status, headers, body = post(provider, target, form)
        text = body.decode()
        assert status == 200
        assert f'action="{CALLBACK}"' in text
        assert 'name="code"' in text
        assert 'name="state" value="the state"' in text
        csp = (first_header(headers, b"content-security-policy") or b"").decode()
        assert csp_hash(SUBMIT_SCRIPT) in csp

    def test_login_hint_fills_username(self, provider: DevProvider) -> None:
        _, _, body = get(provider, authorization_target(login_hint="bob"))
        assert b'value="bob"' in body

    def test_authorization_error_sent_to_callback(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.authorization_error = "temporarily_unavailable"
        params = callback_params(get(provider, authorization_target()))
        assert params["error"] == "temporarily_unavailable"
        url = provider.log_in(ISSUER + authorization_target(), "alice")
        assert "error=temporarily_unavailable" in url

    def test_authorization_response_override_removes_issuer(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.authorization_response["iss"] = None
        url = provider.log_in(ISSUER + authorization_target(), "alice")
        assert "iss=" not in url

    def test_log_in_unknown_user_raises(self, provider: DevProvider) -> None:
        with pytest.raises(OAuthError, match="no user 'eve'"):
            provider.log_in(ISSUER + authorization_target(), "eve")


class TestCode:
    def test_redeem_returns_tokens_with_expected_claims(
        self, provider: DevProvider, clock: Clock
    ) -> None:
        tokens = tokens_of(redeem(provider, log_in(provider)))
        assert tokens["token_type"] == "Bearer"
        assert tokens["expires_in"] == 300
        header, claims = verify(provider, tokens["id_token"])
        assert header["alg"] == "RS256"
        half_hash = hashlib.sha256(tokens["access_token"].encode()).digest()[:16]
        at_hash = base64.urlsafe_b64encode(half_hash).rstrip(b"=").decode()
        assert claims == {
            "iss": ISSUER,
            "sub": claims["sub"],
            "aud": "authproxy",
            "azp": "authproxy",
            "iat": int(clock.now),
            "exp": int(clock.now) + 300,
            "auth_time": int(clock.now),
            "nonce": "the-nonce",
            "sid": claims["sid"],
            "typ": "ID",
            "at_hash": at_hash,
            "email": "alice@example.com",
            "email_verified": True,
            "preferred_username": "alice",
            "name": "Alice Example",
            "groups": ["admin", "staff"],
        }
        _, access = verify(provider, tokens["access_token"])
        assert access["aud"] == ["authproxy", "account"]
        assert access["realm_access"] == {"roles": ["admin"]}
        assert access["resource_access"] == {"authproxy": {"roles": ["editor"]}}
        assert access["sub"] == claims["sub"]

    def test_redeem_without_openid_scope_returns_no_id_token(
        self, provider: DevProvider
    ) -> None:
        tokens = tokens_of(redeem(provider, log_in(provider, scope="email")))
        assert "id_token" not in tokens

    def test_redeem_with_es256_signs_with_ec_key(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.signing_alg = "ES256"
        tokens = tokens_of(redeem(provider, log_in(provider)))
        assert verify(provider, tokens["id_token"])[0]["alg"] == "ES256"

    def test_reused_code_revokes_login(self, provider: DevProvider) -> None:
        code = log_in(provider)
        tokens = tokens_of(redeem(provider, code))
        assert error_of(redeem(provider, code)) == (400, "invalid_grant")
        assert error_of(refresh(provider, tokens["refresh_token"])) == (
            400,
            "invalid_grant",
        )
        bearer = (b"authorization", b"Bearer " + tokens["access_token"].encode())
        assert get(provider, "/userinfo", bearer)[0] == 401

    @pytest.mark.parametrize(("age", "status"), [(59.9, 200), (60.0, 400)])
    def test_code_expires_after_a_minute(
        self, provider: DevProvider, clock: Clock, age: float, status: int
    ) -> None:
        code = log_in(provider)
        clock.now += age
        assert redeem(provider, code)[0] == status

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"code_verifier": "w" * 43}, (400, "invalid_grant")),
            ({"code_verifier": "short"}, (400, "invalid_grant")),
            ({"code_verifier": None}, (400, "invalid_grant")),
            ({"redirect_uri": CALLBACK + "/"}, (400, "invalid_grant")),
            ({"redirect_uri": None}, (400, "invalid_grant")),
            ({"code": "unknown"}, (400, "invalid_grant")),
            ({"code": None}, (400, "invalid_request")),
            ({"client_secret": "wrong"}, (401, "invalid_client")),
            ({"client_secret": None}, (401, "invalid_client")),
            ({"client_id": "other"}, (401, "invalid_client")),
            ({"grant_type": "password"}, (400, "unsupported_grant_type")),
            ({"grant_type": None}, (400, "invalid_request")),
        ],
    )
    def test_redeem_invalid_request_rejected(
        self,
        provider: DevProvider,
        changes: dict[str, str | None],
        expected: tuple[int, str],
    ) -> None:
        response = redeem(provider, log_in(provider), **changes)
        assert error_of(response) == expected
        challenge = first_header(response[1], b"www-authenticate")
        assert (challenge is not None) == (expected[0] == 401)

    def test_wrong_verifier_consumes_code(self, provider: DevProvider) -> None:
        code = log_in(provider)
        redeem(provider, code, code_verifier="w" * 43)
        assert error_of(redeem(provider, code)) == (400, "invalid_grant")

    def test_plain_challenge_accepted(self, provider: DevProvider) -> None:
        for method in ("plain", None):
            code = log_in(
                provider, code_challenge="p" * 43, code_challenge_method=method
            )
            assert redeem(provider, code, code_verifier="p" * 43)[0] == 200

    def test_pkce_verifier_without_challenge_rejected(
        self, provider: DevProvider
    ) -> None:
        code = log_in(provider, code_challenge=None, code_challenge_method=None)
        assert error_of(redeem(provider, code)) == (400, "invalid_grant")
        code = log_in(provider, code_challenge=None, code_challenge_method=None)
        assert redeem(provider, code, code_verifier=None)[0] == 200

    def test_code_of_another_client_rejected(self, provider: DevProvider) -> None:
        other = Client(id="other", secret="other-secret")
        provider.config.clients = (Client(), other)
        code = log_in(provider)
        changes = {"client_id": "other", "client_secret": "other-secret"}
        assert error_of(redeem(provider, code, **changes)) == (400, "invalid_grant")

    def test_public_client_requires_pkce(self, provider: DevProvider) -> None:
        provider.config.clients = (Client(id="public", secret=""),)
        code = log_in(provider, client_id="public")
        response = redeem(provider, code, client_id="public", client_secret=None)
        assert response[0] == 200
        target = authorization_target(
            client_id="public", code_challenge=None, code_challenge_method=None
        )
        assert callback_params(get(provider, target))["error"] == "invalid_request"

    def test_token_request_requires_form(self, provider: DevProvider) -> None:
        response = provider.handle(b"POST", b"/token", (), b"{}")
        assert error_of(response) == (400, "invalid_request")
        assert get(provider, "/token")[0] == 405


class TestClientAuthentication:
    def redeem_with(
        self, provider: DevProvider, header: bytes, **more: str
    ) -> HttpResponse:
        form = {
            "grant_type": "authorization_code",
            "code": log_in(provider),
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            **more,
        }
        return post(provider, "/token", form, (b"authorization", header))

    def basic(self, text: str) -> bytes:
        return b"Basic " + base64.b64encode(text.encode())

    def test_basic_credentials_accepted(self, provider: DevProvider) -> None:
        assert self.redeem_with(provider, self.basic(f"authproxy:{SECRET}"))[0] == 200

    def test_basic_credentials_form_decoded(self, provider: DevProvider) -> None:
        provider.config.clients = (Client(secret="a b:c%"),)
        assert self.redeem_with(provider, self.basic("authproxy:a+b%3Ac%25"))[0] == 200

    @pytest.mark.parametrize(
        "header",
        [b"Basic !!!", b"Basic YWJj", b"Basic /w==", b"Bearer abc", b"Basic"],
    )
    def test_malformed_credentials_rejected(
        self, provider: DevProvider, header: bytes
    ) -> None:
        assert error_of(self.redeem_with(provider, header)) == (401, "invalid_client")

    def test_contradicting_credentials_rejected(self, provider: DevProvider) -> None:
        header = self.basic(f"authproxy:{SECRET}")
        for more in ({"client_id": "other"}, {"client_secret": SECRET}):
            response = self.redeem_with(provider, header, **more)
            assert error_of(response) == (400, "invalid_request")


class TestRefresh:
    def test_reused_refresh_token_revokes_login(self, provider: DevProvider) -> None:
        first = tokens_of(redeem(provider, log_in(provider)))["refresh_token"]
        tokens = tokens_of(refresh(provider, first))
        second = tokens["refresh_token"]
        assert second != first
        _, claims = verify(provider, tokens["id_token"])
        assert "nonce" not in claims
        assert error_of(refresh(provider, first)) == (400, "invalid_grant")
        # The whole family is revoked, because either token may be the stolen copy.
        assert error_of(refresh(provider, second)) == (400, "invalid_grant")

    def test_refresh_keeps_identity_claims(
        self, provider: DevProvider, clock: Clock
    ) -> None:
        before = tokens_of(redeem(provider, log_in(provider)))
        clock.now += 100
        after = tokens_of(refresh(provider, before["refresh_token"]))
        _, old = verify(provider, before["id_token"])
        _, new = verify(provider, after["id_token"])
        for name in ("sub", "sid", "auth_time", "iss", "aud"):
            assert new[name] == old[name]
        assert new["iat"] == old["iat"] + 100

    def test_refresh_without_rotation_returns_no_refresh_token(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.rotate_refresh_tokens = False
        config.id_token_on_refresh = False
        token = tokens_of(redeem(provider, log_in(provider)))["refresh_token"]
        for _ in range(2):
            tokens = tokens_of(refresh(provider, token))
            assert "refresh_token" not in tokens
            assert "id_token" not in tokens

    def test_refresh_token_expires(self, provider: DevProvider, clock: Clock) -> None:
        token = tokens_of(redeem(provider, log_in(provider)))["refresh_token"]
        clock.now += 1800
        assert error_of(refresh(provider, token)) == (400, "invalid_grant")

    def test_revoke_ends_logins_of_one_user(self, provider: DevProvider) -> None:
        alice = tokens_of(redeem(provider, log_in(provider)))["refresh_token"]
        bob = tokens_of(redeem(provider, log_in(provider, "bob")))["refresh_token"]
        provider.revoke("alice")
        assert error_of(refresh(provider, alice)) == (400, "invalid_grant")
        assert refresh(provider, bob)[0] == 200

    def test_refresh_with_larger_scope_rejected(self, provider: DevProvider) -> None:
        token = tokens_of(redeem(provider, log_in(provider)))["refresh_token"]
        assert error_of(refresh(provider, token, scope="openid groups")) == (
            400,
            "invalid_scope",
        )
        assert refresh(provider, token, scope="openid")[0] == 200

    def test_refresh_without_token_rejected(self, provider: DevProvider) -> None:
        assert error_of(refresh(provider, "")) == (400, "invalid_request")

    def test_refresh_token_not_issued_when_disabled(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.issue_refresh_token = False
        assert "refresh_token" not in tokens_of(redeem(provider, log_in(provider)))


class TestFaults:
    def id_claims(self, provider: DevProvider) -> dict[str, Any]:
        tokens = tokens_of(redeem(provider, log_in(provider)))
        return verify(provider, tokens["id_token"])[1]

    def test_claim_overrides_applied(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.id_token_claims = {"nonce": None, "iss": "x", "aud": ["other"]}
        config.access_token_claims = {"aud": ["account"]}
        tokens = tokens_of(redeem(provider, log_in(provider)))
        _, claims = verify(provider, tokens["id_token"])
        assert "nonce" not in claims
        assert (claims["iss"], claims["aud"]) == ("x", ["other"])
        _, access = verify(provider, tokens["access_token"])
        assert access["aud"] == ["account"]

    def test_clock_offset_changes_issued_at(
        self, provider: DevProvider, config: ProviderConfig, clock: Clock
    ) -> None:
        config.clock_offset = 3600
        assert self.id_claims(provider)["iat"] == int(clock.now) + 3600

    def test_padding_adds_filler_claim(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.padding = 4000
        assert len(self.id_claims(provider)["padding"]) == 4000

    def test_id_token_header_override_removes_kid(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.id_token_header["kid"] = None
        tokens = tokens_of(redeem(provider, log_in(provider)))
        head = tokens["id_token"].split(".")[0]
        assert json.loads(base64.urlsafe_b64decode(head + "==")) == {
            "alg": "RS256",
            "typ": "JWT",
        }

    def test_id_token_filter_and_response_override_applied(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        config.id_token_filter = lambda token: token[:10]
        config.token_response["refresh_token"] = None
        tokens = tokens_of(redeem(provider, log_in(provider)))
        assert len(tokens["id_token"]) == 10
        assert "refresh_token" not in tokens

    @pytest.mark.parametrize("keep_old", [True, False])
    def test_rotate_keys_signs_with_new_key(
        self, provider: DevProvider, keep_old: bool
    ) -> None:
        before = tokens_of(redeem(provider, log_in(provider)))["id_token"]
        kids = {key["kid"] for key in json.loads(get(provider, "/jwks")[2])["keys"]}
        provider.rotate_keys(keep_old=keep_old)
        after = tokens_of(redeem(provider, log_in(provider)))["id_token"]
        header, _ = verify(provider, after)
        assert header["kid"] not in kids
        published = {
            key["kid"] for key in json.loads(get(provider, "/jwks")[2])["keys"]
        }
        assert (kids <= published) is keep_old
        if keep_old:
            verify(provider, before)

    def test_user_without_verified_email_claims(self, provider: DevProvider) -> None:
        provider.config.users = (
            User(name="carol", password="x", email_verified=False),
            User(name="dave", password="x", email="", claims={"dept": 7}, sub="d"),
        )
        tokens = tokens_of(redeem(provider, log_in(provider, "carol")))
        _, claims = verify(provider, tokens["id_token"])
        assert claims["email_verified"] is False
        tokens = tokens_of(redeem(provider, log_in(provider, "dave")))
        _, claims = verify(provider, tokens["id_token"])
        assert "email" not in claims
        assert "email_verified" not in claims
        assert (claims["dept"], claims["sub"]) == (7, "d")

    def test_requests_recorded_by_endpoint(self, provider: DevProvider) -> None:
        get(provider, "/jwks")
        redeem(provider, log_in(provider))
        get(provider, "/nowhere")
        assert provider.count("jwks") == 1
        assert [(one.endpoint, one.method, one.path) for one in provider.requests] == [
            ("jwks", "GET", "/jwks"),
            ("token", "POST", "/token"),
            ("", "GET", "/nowhere"),
        ]
        assert provider.requests[1].form["grant_type"] == "authorization_code"


class TestUserinfo:
    def userinfo(self, provider: DevProvider, header: bytes) -> HttpResponse:
        return get(provider, "/userinfo", (b"authorization", header))

    def test_userinfo_returns_claims(
        self, provider: DevProvider, config: ProviderConfig
    ) -> None:
        token = tokens_of(redeem(provider, log_in(provider, "bob")))["access_token"]
        claims = json.loads(self.userinfo(provider, b"Bearer " + token.encode())[2])
        assert claims["preferred_username"] == "bob"
        assert claims["groups"] == ["staff"]
        config.userinfo_claims["sub"] = "another subject"
        claims = json.loads(self.userinfo(provider, b"bearer " + token.encode())[2])
        assert claims["sub"] == "another subject"

    @pytest.mark.parametrize("header", [b"Bearer abc", b"Bearer \xff", b"Bearer"])
    def test_userinfo_unknown_token_rejected(
        self, provider: DevProvider, header: bytes
    ) -> None:
        status, headers, _ = self.userinfo(provider, header)
        assert status == 401
        assert first_header(headers, b"www-authenticate") == (
            b'Bearer error="invalid_token"'
        )

    def test_userinfo_other_scheme_challenged(self, provider: DevProvider) -> None:
        status, headers, _ = self.userinfo(provider, b"Basic abc")
        assert (status, first_header(headers, b"www-authenticate")) == (401, b"Bearer")

    def test_userinfo_expired_token_rejected(
        self, provider: DevProvider, clock: Clock
    ) -> None:
        token = tokens_of(redeem(provider, log_in(provider)))["access_token"]
        clock.now += 300
        assert self.userinfo(provider, b"Bearer " + token.encode())[0] == 401


class TestEndSession:
    def test_end_session_revokes_login_and_redirects(
        self, provider: DevProvider
    ) -> None:
        tokens = tokens_of(redeem(provider, log_in(provider)))
        params = {
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": "http://localhost:4180/bye?a=1",
            "state": "s",
        }
        status, headers, _ = get(provider, f"/logout?{urlencode(params)}")
        assert status == 303
        location = first_header(headers, b"location")
        assert location == b"http://localhost:4180/bye?a=1&state=s"
        assert error_of(refresh(provider, tokens["refresh_token"])) == (
            400,
            "invalid_grant",
        )

    def test_end_session_without_redirect_shows_page(
        self, provider: DevProvider
    ) -> None:
        status, _, body = post(provider, "/logout", {"client_id": "authproxy"})
        assert status == 200
        assert b"signed out" in body

    @pytest.mark.parametrize(
        "params",
        [
            {"id_token_hint": "malformed"},
            {"post_logout_redirect_uri": "http://localhost/"},
            {"client_id": "other", "post_logout_redirect_uri": "http://localhost/"},
            {"client_id": "authproxy", "post_logout_redirect_uri": "https://evil.test"},
        ],
    )
    def test_end_session_invalid_request_rejected(
        self, provider: DevProvider, params: dict[str, str]
    ) -> None:
        status, headers, _ = get(provider, f"/logout?{urlencode(params)}")
        assert status == 400
        assert first_header(headers, b"location") is None

    def test_end_session_contradicting_client_rejected(
        self, provider: DevProvider
    ) -> None:
        token = tokens_of(redeem(provider, log_in(provider)))["id_token"]
        params = {"id_token_hint": token, "client_id": "other"}
        assert get(provider, f"/logout?{urlencode(params)}")[0] == 400


def test_fetch_returns_response_without_network(provider: DevProvider) -> None:
    response = provider.fetch(Fetch("GET", ISSUER + "/jwks?x=y"))
    assert response.status == 200
    assert "keys" in json.loads(response.body)


def not_found(*_request: object) -> HttpResponse:
    return 404, (), b""


class TestServer:
    @pytest.fixture
    def server(self) -> Iterator[RunningServer]:
        provider = DevProvider(ProviderConfig(users=example_users("secret")))
        with serve(provider) as server:
            yield server

    @pytest.fixture
    def connection(self, server: RunningServer) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        yield connection
        connection.close()

    def request(
        self, connection: http.client.HTTPConnection, *args: Any, **more: Any
    ) -> tuple[int, bytes]:
        connection.request(*args, **more)
        response = connection.getresponse()
        return response.status, response.read()

    def test_server_url_becomes_issuer(
        self, server: RunningServer, connection: http.client.HTTPConnection
    ) -> None:
        _, body = self.request(connection, "GET", "/.well-known/openid-configuration")
        assert json.loads(body)["issuer"] == server.url

    def test_server_url_prepended_to_issuer_path(self) -> None:
        provider = DevProvider(ProviderConfig(issuer="/realms/demo"))
        with serve(provider) as server:
            assert provider.config.issuer == server.url + "/realms/demo"

    def test_login_over_one_connection(
        self, server: RunningServer, connection: http.client.HTTPConnection
    ) -> None:
        target = authorization_target()
        assert self.request(connection, "HEAD", target) == (200, b"")
        form = urlencode({"username": "alice", "password": "secret"})
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", target, form, kind)
        response = connection.getresponse()
        response.read()
        location = urlsplit(response.headers["Location"])
        form = urlencode(
            {
                "grant_type": "authorization_code",
                "code": parse_qs(location.query)["code"][0],
                "redirect_uri": CALLBACK,
                "code_verifier": VERIFIER,
                "client_id": "authproxy",
                "client_secret": SECRET,
            }
        )
        status, body = self.request(connection, "POST", "/token", form, kind)
        assert status == 200
        assert "id_token" in json.loads(body)

    def test_expect_continue_sends_informational_response(
        self, server: RunningServer
    ) -> None:
        with socket.create_connection((server.host, server.port), 10) as client:
            client.sendall(
                b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                b"Expect: 100-continue\r\n\r\n"
            )
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
            client.sendall(b"a=")
            assert client.recv(4000).startswith(b"HTTP/1.1 400 ")

    def test_malformed_head_rejected_and_closed(self, server: RunningServer) -> None:
        with socket.create_connection((server.host, server.port), 10) as client:
            client.sendall(b"malformed\r\n\r\n")
            response = b"".join(iter(lambda: client.recv(4000), b""))
        assert response.startswith(b"HTTP/1.1 400 ")

    def test_body_above_limit_rejected(self, server: RunningServer) -> None:
        with socket.create_connection((server.host, server.port), 10) as client:
            client.sendall(
                b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n"
            )
            client.sendall(b"x" * ((1 << 20) + 1))
            assert client.recv(4000).startswith(b"HTTP/1.1 413 ")

    def test_early_disconnect_keeps_server_running(self, server: RunningServer) -> None:
        with socket.create_connection((server.host, server.port), 10) as client:
            client.sendall(
                b"POST /token HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
            )
        with socket.create_connection((server.host, server.port), 10) as client:
            client.sendall(b"GET /jwks HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4000).startswith(b"HTTP/1.1 200 ")

    def test_taken_port_raises(self, server: RunningServer) -> None:
        with pytest.raises(OSError, match="address already in use"):
            RunningServer(not_found, port=server.port)

    def test_close_is_idempotent_and_ends_thread(self) -> None:
        before = threading.active_count()
        server = RunningServer(not_found)
        server.close()
        server.close()
        assert threading.active_count() == before
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((server.host, server.port), 10)

    def test_failing_handler_returns_500(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        def failing(*_request: object) -> HttpResponse:
            raise RuntimeError("a bug")

        with RunningServer(failing) as server:
            connection = http.client.HTTPConnection(server.host, server.port)
            assert self.request(connection, "GET", "/")[0] == 500
            connection.close()
        assert "handler failed" in caplog.text
