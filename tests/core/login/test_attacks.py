"""Attacks on logins, tokens and who is let in that stand nowhere else; names are rows."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec
import pytest
from joserfc import jws

from authproxy_core import Respond, SettingsError
from authproxy_core.oidc.jwt import parse_key_set
from authproxy_core.settings.root import check
from support.harness import (
    ISSUER,
    Harness,
    OAuthError,
    header,
    headers,
    provider_settings,
    settings,
    target_of,
)

NAME = b"_oauth2_proxy"


def params_of(url: str) -> dict[str, str]:
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


def replaced(url: str, **changes: str) -> str:
    """*url* with other values in its query."""
    parts = urlsplit(url)
    query = urlencode(dict(parse_qsl(parts.query)) | changes)
    return urlunsplit(parts._replace(query=query))


def failed(harness: Harness, answer: Respond, reason: str = "") -> None:
    """The login came to nothing: a page says so, and no cookie is a session."""
    assert answer.status in (400, 403, 500), answer
    assert not reason or [event.reason for event in answer.events] == [reason]
    assert NAME not in harness.jar
    assert harness.get("/oauth2/auth").status == 401


# -- where a login leads


@pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
@pytest.mark.parametrize("evil", ["//evil.com", "https://evil.com/", "/\\evil.com"])
def test_or38_redirect_target_in_state_ignored(form: str, evil: str) -> None:
    harness = Harness(settings(cookie={"format": form}))
    callback = harness.idp.log_in(harness.start_login("/good"), "alice")
    state = params_of(callback)["state"].partition(":")[0]
    answer = harness.get(target_of(replaced(callback, state=f"{state}:{evil}")))
    # Our own logins have it sealed in the cookie; what the state says is nothing.
    home = b"/good" if form == "authproxy" else b"/"
    assert header(answer, b"location") == home


@pytest.mark.parametrize("name", ["error_uri", "redirect_uri", "rd", "redirect"])
def test_or43_error_page_has_safe_links(harness: Harness, name: str) -> None:
    state = params_of(harness.start_login())["state"]
    query = urlencode(
        {
            "error": "access_denied",
            "state": state,
            "iss": ISSUER,
            name: "https://evil.example/x",
        }
    )
    answer = harness.get(f"/oauth2/callback?{query}")
    assert answer.status == 403
    assert not headers(answer, b"location")
    assert b"evil.example" not in answer.body


def test_or46_spoofed_host_does_not_change_callback_url() -> None:
    """With the address configured, no Host and no forwarded one changes it."""
    harness = Harness(settings(redirect_url="https://app.example.com/oauth2/callback"))
    for fields in (
        ((b"host", b"evil.com"),),
        ((b"host", b"app.example.com"), (b"x-forwarded-host", b"evil.com")),
    ):
        answer = harness.get("/oauth2/start", *fields)
        params = params_of(header(answer, b"location").decode())
        assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"


def test_or46_callback_url_without_setting_has_request_host(harness: Harness) -> None:
    """Then the callback is the Host's, which the provider does not know."""
    answer = harness.get("/oauth2/start", (b"host", b"evil.com"))
    with pytest.raises(OAuthError, match="redirect_uri"):
        harness.idp.log_in(header(answer, b"location").decode(), "alice")
    before = harness.get("/oauth2/start", (b"x-forwarded-host", b"evil.com"))
    params = params_of(header(before, b"location").decode())
    assert params["redirect_uri"] == "https://app.example.com/oauth2/callback"


# -- logins


def test_lg28_stolen_code_rejected_in_other_login() -> None:
    """PKCE stops it; where the provider has none, the nonce does."""
    for offered in (True, False):
        victim, thief = Harness(ready=False), Harness(ready=False)
        if not offered:
            thief.config.discovery["code_challenge_methods_supported"] = None
        victim.idp = thief.idp
        for one in (victim, thief):
            one.on_fetch = thief.idp.fetch
            one.run(one.proxy.warm_up())
        stolen = params_of(thief.idp.log_in(victim.start_login(), "alice"))["code"]
        own = thief.idp.log_in(thief.start_login(), "bob")
        answer = thief.get(target_of(replaced(own, code=stolen)))
        failed(thief, answer, "invalid_grant" if offered else "nonce")


def test_lg37_redirects_change_method_to_get(harness: Harness) -> None:
    begun = harness.get("/oauth2/start")
    callback = harness.idp.log_in(header(begun, b"location").decode(), "alice")
    ended = harness.get(target_of(callback))
    out = harness.get("/oauth2/sign_out")
    harness.body = b"rd=%2F"
    form = (b"content-type", b"application/x-www-form-urlencoded")
    posted = harness.get("/oauth2/start", form, method=b"POST")
    assert {one.status for one in (begun, ended, out, posted)} <= {302, 303}


def test_lg38_lg40_pages_have_no_referrer_and_forbid_framing(
    harness: Harness,
) -> None:
    frame = (b"sec-fetch-dest", b"iframe")
    for answer in (
        harness.get("/oauth2/sign_in"),
        harness.get("/oauth2/sign_in", frame),
        harness.get("/oauth2/callback?code=secret-code&state=x", frame),
        harness.get("/page", frame),
    ):
        assert header(answer, b"referrer-policy") == b"no-referrer"
        assert header(answer, b"x-frame-options") == b"DENY"
        assert b"frame-ancestors 'none'" in header(answer, b"content-security-policy")
        assert b"secret-code" not in answer.body


def test_lg43_cross_site_login_start_keeps_target_on_host(harness: Harness) -> None:
    """What OIDC Core §4 calls a third-party initiated login is not offered."""
    query = urlencode(
        {
            "iss": "https://evil.example",
            "login_hint": "victim",
            "target_link_uri": "//evil.example",
        }
    )
    answer = harness.get(f"/oauth2/start?{query}")
    location = header(answer, b"location").decode()
    assert location.startswith(ISSUER)
    assert "evil" not in location
    assert "victim" not in location
    assert header(harness.finish_login(location), b"location") == b"/"


# -- tokens


def test_jw13_keys_with_same_id_selected_by_type() -> None:
    """RSA and EC keys share a name, whichever comes first: a token meets its own kind."""
    for alg in ("RS256", "ES256"):
        harness = Harness(ready=False)
        harness.config.signing_alg = alg  # type: ignore[assignment]
        harness.config.id_token_header["kid"] = "one"
        keys = [key | {"kid": "one"} for key in Harness().idp.tokens.keys.public_keys()]
        assert {key["kty"] for key in keys} == {"RSA", "EC"}
        own = [key | {"kid": "one"} for key in harness.idp.tokens.keys.public_keys()]
        harness.config.jwks_before = (*own, *reversed(own))
        harness.run(harness.proxy.warm_up())
        assert harness.log_in().status == 302
        foreign = Harness(ready=False)
        foreign.config.signing_alg = alg  # type: ignore[assignment]
        foreign.config.id_token_header["kid"] = "one"
        foreign.config.jwks_before = tuple(keys)
        foreign.run(foreign.proxy.warm_up())
        failed(foreign, foreign.log_in())


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
    """Even a signature of the provider makes nothing of it."""

    def signed(token: str) -> str:
        key = harness.idp.tokens.keys._current()["RS256"]
        head = {"alg": "RS256", "kid": key.kid}
        return jws.serialize_compact(head, payload, key)

    harness.config.id_token_filter = signed
    failed(harness, harness.log_in())


@pytest.mark.parametrize("value", ["AAAA", "", 7, [], {}])
def test_jw32_at_hash_of_other_access_token_rejected(
    harness: Harness, value: Any
) -> None:
    harness.config.id_token_claims["at_hash"] = value
    failed(harness, harness.log_in(), "at_hash")


def test_jw28_jwks_with_too_many_keys_truncated() -> None:
    key, *_ = Harness().idp.tokens.keys.public_keys()
    found = parse_key_set(
        msgspec.json.encode({"keys": [key | {"kid": str(n)} for n in range(10_000)]})
    )
    assert len(found.keys) <= 100


# -- who is let in


def test_az08_allowed_group_does_not_bypass_email_domain() -> None:
    """``*`` for e-mail domains leaves the groups as they are."""
    strict = {"allowed_groups": ("admins",)}
    harness = Harness(settings(email_domains=("*",), provider=strict))
    assert harness.log_in("bob").status == 403
    assert harness.get("/oauth2/auth").status == 401
    assert harness.log_in("alice").status == 302
    for demand, status in (("allowed_groups=staff", 202), ("allowed_groups=x", 403)):
        assert harness.get(f"/oauth2/auth?{demand}").status == status


@pytest.mark.parametrize("groups", [("",), ("", ""), ("admins", "")])
def test_az10_empty_group_name_rejected_by_settings(
    groups: tuple[str, ...],
) -> None:
    given = settings(providers=(provider_settings(allowed_groups=groups),))
    with pytest.raises(SettingsError, match="allowed_groups"):
        check(given)


@pytest.mark.parametrize(
    ("claim", "admin"),
    [
        (["admins"], True),
        ("admins", True),  # one group as a text, as oauth2-proxy has it
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
    answer = harness.log_in("bob")
    if answer.status != 302:
        assert not admin
        return
    status = harness.get("/oauth2/auth?allowed_groups=admins").status
    assert status == (202 if admin else 403)


def test_az31_incomplete_login_is_no_session(harness: Harness) -> None:
    """No cookie from before the callback lets anybody in, under any name."""
    harness.start_login("/a")
    refused = harness.idp.log_in(harness.start_login("/b"), "alice")
    harness.get(target_of(replaced(refused, code="wrong")))
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
        answer = harness.log_in(user)
        failed(harness, answer, "subject" if claim == "sub" else "email_missing")


def test_az38_subject_injected_besides_username(
    harness: Harness,
) -> None:
    """A user may choose preferred_username at the provider, but not the subject."""
    harness.config.id_token_claims["preferred_username"] = "admin"
    harness.log_in("bob")
    answer = harness.get("/oauth2/auth")
    assert header(answer, b"x-auth-request-preferred-username") == b"admin"
    subject = header(answer, b"x-auth-request-user")
    assert subject not in (b"admin", b"bob", b"")
    harness.config.id_token_claims.clear()
    harness.jar.clear()
    harness.log_in("bob")
    assert header(harness.get("/oauth2/auth"), b"x-auth-request-user") == subject
