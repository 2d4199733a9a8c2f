"""Attacks on login, tokens and access that other files do not cover."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.jwk import RSAKey

from authproxy_core import Respond, SettingsError
from authproxy_core.encoding import b64url
from authproxy_core.oidc.jwt import parse_key_set
from authproxy_core.settings.root import check
from support.harness import (
    ISSUER,
    Harness,
    OAuthError,
    header,
    headers,
    provider_settings,
    query_params,
    settings,
    target_of,
)

NAME = b"_oauth2_proxy"


def replace_query(url: str, **changes: str) -> str:
    """Return *url* with query parameters replaced."""
    parts = urlsplit(url)
    query = urlencode(dict(parse_qsl(parts.query)) | changes)
    return urlunsplit(parts._replace(query=query))


def assert_login_failed(harness: Harness, response: Respond, reason: str = "") -> None:
    """Assert that the login failed with a page and created no session."""
    assert response.status in (400, 403, 500), response
    assert not reason or [event.reason for event in response.events] == [reason]
    assert NAME not in harness.jar
    assert harness.get("/oauth2/auth").status == 401


# -- redirect targets


@pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
@pytest.mark.parametrize("evil", ["//evil.com", "https://evil.com/", "/\\evil.com"])
def test_or38_redirect_target_in_state_ignored(form: str, evil: str) -> None:
    harness = Harness(settings(cookie={"format": form}))
    callback = harness.idp.log_in(harness.start_login("/good"), "alice")
    state = query_params(callback)["state"].partition(":")[0]
    response = harness.get(target_of(replace_query(callback, state=f"{state}:{evil}")))
    # authproxy's login cookie contains the target; that in the state is ignored.
    expected = b"/good" if form == "authproxy" else b"/"
    assert header(response, b"location") == expected


@pytest.mark.parametrize("name", ["error_uri", "redirect_uri", "rd", "redirect"])
def test_or43_error_callback_ignores_foreign_urls(harness: Harness, name: str) -> None:
    state = query_params(harness.start_login())["state"]
    query = urlencode(
        {
            "error": "access_denied",
            "state": state,
            "iss": ISSUER,
            name: "https://evil.example/x",
        }
    )
    response = harness.get(f"/oauth2/callback?{query}")
    assert response.status == 403
    assert not headers(response, b"location")
    assert b"evil.example" not in response.body


def test_or46_spoofed_host_does_not_change_callback_url() -> None:
    """With redirect_url set, neither Host nor X-Forwarded-Host changes it."""
    harness = Harness(settings(redirect_url="https://app.example.com/oauth2/callback"))
    for fields in (
        ((b"host", b"evil.com"),),
        ((b"host", b"app.example.com"), (b"x-forwarded-host", b"evil.com")),
    ):
        response = harness.get("/oauth2/start", *fields)
        params = query_params(header(response, b"location").decode())
        assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"


def test_or46_callback_url_of_unknown_host_rejected_by_provider(
    harness: Harness,
) -> None:
    """Without redirect_url the callback is on the request's host."""
    response = harness.get("/oauth2/start", (b"host", b"evil.com"))
    with pytest.raises(OAuthError, match="redirect_uri"):
        harness.idp.log_in(header(response, b"location").decode(), "alice")
    before = harness.get("/oauth2/start", (b"x-forwarded-host", b"evil.com"))
    params = query_params(header(before, b"location").decode())
    assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"


# -- logins


def test_lg28_stolen_code_rejected_in_other_login() -> None:
    """PKCE prevents it, or the nonce if the provider does not support PKCE."""
    for offered in (True, False):
        victim, thief = Harness(ready=False), Harness(ready=False)
        if not offered:
            thief.config.discovery["code_challenge_methods_supported"] = None
        victim.idp = thief.idp
        for one in (victim, thief):
            one.on_fetch = thief.idp.fetch
            one.run(one.proxy.warm_up())
        stolen = query_params(thief.idp.log_in(victim.start_login(), "alice"))["code"]
        own = thief.idp.log_in(thief.start_login(), "bob")
        response = thief.get(target_of(replace_query(own, code=stolen)))
        assert_login_failed(thief, response, "invalid_grant" if offered else "nonce")


def test_lg37_redirects_change_method_to_get(harness: Harness) -> None:
    started = harness.get("/oauth2/start")
    callback = harness.idp.log_in(header(started, b"location").decode(), "alice")
    finished = harness.get(target_of(callback))
    signed_out = harness.get("/oauth2/sign_out")
    harness.body = b"rd=%2F"
    form = (b"content-type", b"application/x-www-form-urlencoded")
    posted = harness.get("/oauth2/start", form, method=b"POST")
    assert {one.status for one in (started, finished, signed_out, posted)} <= {302, 303}


def test_lg38_lg40_pages_have_no_referrer_and_forbid_framing(
    harness: Harness,
) -> None:
    frame = (b"sec-fetch-dest", b"iframe")
    for response in (
        harness.get("/oauth2/sign_in"),
        harness.get("/oauth2/sign_in", frame),
        harness.get("/oauth2/callback?code=secret-code&state=x", frame),
        harness.get("/page", frame),
    ):
        assert header(response, b"referrer-policy") == b"no-referrer"
        assert header(response, b"x-frame-options") == b"DENY"
        assert b"frame-ancestors 'none'" in header(response, b"content-security-policy")
        assert b"secret-code" not in response.body


def test_lg43_third_party_login_to_unknown_issuer_or_target_refused(
    harness: Harness,
) -> None:
    query = {"login_hint": "victim", "target_link_uri": "//evil.example"}
    hostile = urlencode({**query, "iss": "https://evil.example"})
    response = harness.get(f"/oauth2/start?{hostile}")
    assert response.status == 400
    assert b"evil" not in response.body
    response = harness.get(f"/oauth2/start?{urlencode({**query, 'iss': ISSUER})}")
    location = header(response, b"location").decode()
    assert location.startswith(ISSUER)
    assert "evil" not in location
    assert header(harness.finish_login(location), b"location") == b"/"


# -- tokens


def public_key(harness: Harness) -> RSAKey:
    """Return the provider's key of RS256."""
    key: RSAKey = harness.idp.tokens.keys._current()["RS256"]
    return key


def public_key_spellings(key: RSAKey) -> Iterator[bytes]:
    """Yield what an attacker could take for the secret of an HMAC."""
    der = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for text in (
        key.as_pem(private=False),
        msgspec.json.encode(key.as_dict(private=False)),
        key.as_dict(private=False)["n"].encode(),
    ):
        yield text
        yield text.rstrip(b"\n")
        yield text.rstrip(b"\n") + b"\n"
    yield der


def test_jw02_hmac_with_public_key_rejected(harness: Harness) -> None:
    for secret in public_key_spellings(public_key(harness)):
        for kid in (public_key(harness).kid, None):

            def forge(token: str) -> str:
                head = b64url(msgspec.json.encode({"alg": "HS256", "kid": kid}))  # noqa: B023
                text = f"{head.decode()}.{token.split('.')[1]}"
                digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()  # noqa: B023
                return f"{text}.{b64url(digest).decode()}"

            harness.jar.clear()
            harness.config.id_token_filter = forge
            assert_login_failed(harness, harness.log_in(), "algorithm")


@pytest.mark.parametrize(
    ("named", "used"),
    [("RS512", "RS512"), ("PS256", "PS256"), ("RS256", "PS256"), ("RS256", "RS512")],
)
@pytest.mark.parametrize("key_alg", [None, "RS512", "PS256"])
def test_jw04_jw05_valid_signature_of_other_algorithm_rejected(
    harness: Harness, named: str, used: str, key_alg: str | None
) -> None:
    """The same key signs; the header, or the key set too, names the algorithm."""

    def sign(token: str) -> str:
        head = b64url(
            msgspec.json.encode({"alg": named, "kid": public_key(harness).kid})
        )
        text = f"{head.decode()}.{token.split('.')[1]}"
        algorithm = SHA512() if used == "RS512" else SHA256()
        padding = PSS(MGF1(algorithm), 32) if used == "PS256" else PKCS1v15()
        private = public_key(harness).private_key
        signature = private.sign(text.encode(), padding, algorithm)
        return f"{text}.{b64url(signature).decode()}"

    if key_alg:
        keys = harness.idp.tokens.keys.public_keys()
        harness.config.jwks_before = tuple(key | {"alg": key_alg} for key in keys)
        harness = Harness(ready=False)
        harness.config.jwks_before = tuple(key | {"alg": key_alg} for key in keys)
        harness.run(harness.proxy.warm_up())
    harness.config.id_token_filter = sign
    assert_login_failed(harness, harness.log_in())


@pytest.mark.parametrize("alg", ["None", "nOnE", "NONE", "", None, 7, ["RS256"], {}])
def test_jw01_other_spellings_of_none_rejected(harness: Harness, alg: Any) -> None:
    for end in ("", "AAAA"):

        def forge(token: str) -> str:
            head = b64url(msgspec.json.encode({} if alg is None else {"alg": alg}))
            return f"{head.decode()}.{token.split('.')[1]}.{end}"  # noqa: B023

        harness.config.id_token_filter = forge
        assert_login_failed(harness, harness.log_in())


def test_jw13_keys_with_same_id_selected_by_type() -> None:
    """RSA and EC keys share a key ID in either order; the token's type selects."""
    for alg in ("RS256", "ES256"):
        harness = Harness(ready=False)
        harness.config.signing_alg = alg  # type: ignore[assignment]
        harness.config.id_token_header["kid"] = "one"
        other = Harness(new_keys=True).idp.tokens.keys
        keys = [key | {"kid": "one"} for key in other.public_keys()]
        assert {key["kty"] for key in keys} == {"RSA", "EC"}
        own = [key | {"kid": "one"} for key in harness.idp.tokens.keys.public_keys()]
        harness.config.jwks_before = (*own, *reversed(own))
        harness.run(harness.proxy.warm_up())
        assert harness.log_in().status == 302
        other = Harness(ready=False)
        other.config.signing_alg = alg  # type: ignore[assignment]
        other.config.id_token_header["kid"] = "one"
        other.config.jwks_before = tuple(keys)
        other.run(other.proxy.warm_up())
        assert_login_failed(other, other.log_in())


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b'"text"',
        b"null",
        b"7",
        b"",
        b"\xef\xbb\xbf{}",
        b'{"iss": "\xff"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a": "' + b"x" * 5_000_000 + b'"}',
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_jw25_token_with_malformed_payload_rejected(
    harness: Harness, payload: bytes
) -> None:
    """Even a valid signature of the provider does not make it acceptable."""

    def sign_payload(token: str) -> str:
        key = harness.idp.tokens.keys._current()["RS256"]
        head = {"alg": "RS256", "kid": key.kid}
        return jws.serialize_compact(head, payload, key)

    harness.config.id_token_filter = sign_payload
    assert_login_failed(harness, harness.log_in())


@pytest.mark.parametrize("value", ["AAAA", "", 7, [], {}])
def test_jw32_at_hash_of_other_access_token_rejected(
    harness: Harness, value: Any
) -> None:
    harness.config.id_token_claims["at_hash"] = value
    assert_login_failed(harness, harness.log_in(), "at_hash")


@pytest.mark.parametrize("value", ["AAAA", "", 7, [], {}])
def test_c_hash_of_other_code_rejected(harness: Harness, value: Any) -> None:
    harness.config.id_token_claims["c_hash"] = value
    assert_login_failed(harness, harness.log_in(), "c_hash")


def test_c_hash_of_redeemed_code_accepted(harness: Harness) -> None:
    url = harness.idp.log_in(harness.start_login(), "alice")
    digest = hashlib.sha256(query_params(url)["code"].encode()).digest()
    harness.config.id_token_claims["c_hash"] = b64url(digest[:16]).decode()
    assert harness.get(target_of(url)).status == 302


def test_jw28_jwks_with_too_many_keys_truncated() -> None:
    key, *_ = Harness().idp.tokens.keys.public_keys()
    found = parse_key_set(
        msgspec.json.encode({"keys": [key | {"kid": str(n)} for n in range(10_000)]})
    )
    assert len(found.keys) <= 100


# -- access


def test_az08_any_email_domain_does_not_bypass_groups() -> None:
    """``*`` in email_domains does not affect the group rules."""
    strict = {"allowed_groups": ("admins",)}
    harness = Harness(settings(email_domains=("*",), provider=strict))
    assert harness.log_in("bob").status == 403
    assert harness.get("/oauth2/auth").status == 401
    assert harness.log_in("alice").status == 302
    for constraint, status in (
        ("allowed_groups=staff", 202),
        ("allowed_groups=x", 403),
    ):
        assert harness.get(f"/oauth2/auth?{constraint}").status == status


@pytest.mark.parametrize("groups", [("",), ("", ""), ("admins", "")])
def test_az10_empty_group_name_rejected_by_settings(
    groups: tuple[str, ...],
) -> None:
    invalid = settings(providers=(provider_settings(allowed_groups=groups),))
    with pytest.raises(SettingsError, match="allowed_groups"):
        check(invalid)


@pytest.mark.parametrize(
    ("claim", "admin"),
    [
        (["admins"], True),
        ("admins", True),  # a string is one group, as in oauth2-proxy
        ("staff admins", False),
        ({"admins": True}, False),
        ([{"admins": True}], False),
        ([["admins"]], False),
        (7, False),
        (True, False),
    ],
)
def test_az16_malformed_groups_claim_handled(
    harness: Harness, claim: Any, admin: bool
) -> None:
    harness.config.id_token_claims["groups"] = claim
    harness.config.userinfo_claims["groups"] = claim
    response = harness.log_in("bob")
    if response.status != 302:
        assert not admin
        return
    status = harness.get("/oauth2/auth?allowed_groups=admins").status
    assert status == (202 if admin else 403)


def test_az31_incomplete_login_is_no_session(harness: Harness) -> None:
    """No cookie set before the callback is a session under any name."""
    harness.start_login("/a")
    callback = harness.idp.log_in(harness.start_login("/b"), "alice")
    harness.get(target_of(replace_query(callback, code="wrong")))
    values = [*harness.jar.values()]
    assert values
    for value in values:
        for name in (NAME, NAME + b"_0", *harness.jar):
            assert harness.get("/oauth2/auth", jar={name: value}).status == 401


@pytest.mark.parametrize("claim", ["sub", "email"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_az35_missing_identity_claim_fails_login(claim: str, value: Any) -> None:
    harness = Harness()
    harness.config.id_token_claims[claim] = value
    if claim == "email":
        harness.config.userinfo_claims[claim] = value
    for user in ("alice", "bob"):
        response = harness.log_in(user)
        assert_login_failed(
            harness, response, "subject" if claim == "sub" else "email_missing"
        )


def test_az38_subject_injected_besides_username(
    harness: Harness,
) -> None:
    """A user may choose preferred_username at the provider, but not the subject."""
    harness.config.id_token_claims["preferred_username"] = "admin"
    harness.log_in("bob")
    response = harness.get("/oauth2/auth")
    assert header(response, b"x-auth-request-preferred-username") == b"admin"
    subject = header(response, b"x-auth-request-user")
    assert subject not in (b"admin", b"bob", b"")
    harness.config.id_token_claims.clear()
    harness.jar.clear()
    harness.log_in("bob")
    assert header(harness.get("/oauth2/auth"), b"x-auth-request-user") == subject
