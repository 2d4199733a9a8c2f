"""Bearer JWTs in place of a session: rows JW of the attack catalog."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import (
    Fetch,
    FetchError,
    Forward,
    Lock,
    Respond,
    Response,
    Settings,
    SettingsError,
    UpstreamSettings,
)
from authproxy_core.access.credentials import TOKEN_CACHE_TTL
from authproxy_core.encoding import b64url
from authproxy_core.oidc.jwt import parse_key_set
from authproxy_core.request.authorization import (
    Basic,
    Bearer,
    Unusable,
    basic_of,
    bearer_of,
)
from authproxy_core.settings.credentials import CredentialSettings, JwtIssuer
from authproxy_core.settings.root import check
from support.cycles import cyclic, without_collections
from support.harness import (
    ISSUER,
    Harness,
    header,
    headers,
    provider_settings,
    settings,
)

OTHER = "https://tokens.example.net"


def accepting_bearer(
    *, provider: dict[str, Any] | None = None, ready: bool = True, **changes: Any
) -> Harness:
    """A harness that accepts bearer JWTs."""
    names = set(CredentialSettings.__struct_fields__)
    given = {name: changes.pop(name) for name in [*changes] if name in names}
    credentials = CredentialSettings(**({"jwt_bearer_tokens": True} | given))
    values: dict[str, Any] = {"credentials": credentials, "provider": provider}
    return Harness(settings(**(values | changes)), ready=ready)


def bearer(token: str | bytes, scheme: bytes = b"Bearer") -> tuple[bytes, bytes]:
    raw = token.encode() if isinstance(token, str) else token
    return (b"authorization", scheme + b" " + raw)


def basic(user: str, password: str) -> tuple[bytes, bytes]:
    pair = base64.b64encode(f"{user}:{password}".encode())
    return bearer(pair, b"Basic")


def ask(harness: Harness, *fields: Any, target: str = "/oauth2/auth") -> Respond:
    return harness.get(target, *fields, jar={})


SHARED = accepting_bearer()


def is_rejected(token: str, harness: Harness = SHARED) -> bool:
    """Return whether *token* is rejected; a valid one must be accepted afterwards."""
    response = ask(harness, bearer(token))
    names = {name for name, _ in response.headers}
    assert response.status in (202, 401)
    assert response.status == 202 or not {b"gap-auth", b"authorization"} & names
    assert ask(harness, bearer(harness.token())).status == 202
    return response.status == 401


def test_bearer_token_replaces_session() -> None:
    token = SHARED.token(realm_access={"roles": ["robot"]})
    response = ask(SHARED, bearer(token))
    assert response.status == 202
    assert header(response, b"gap-auth") == b"service@example.com"
    assert header(response, b"x-auth-request-user") == b"service-1"
    assert header(response, b"x-auth-request-groups") == b"staff,role:robot"
    assert header(response, b"authorization") == b"Bearer " + token.encode()
    assert not headers(response, b"set-cookie")
    document = orjson.loads(ask(SHARED, bearer(token), target="/oauth2/userinfo").body)
    assert document["email"] == "service@example.com"
    assert ask(SHARED, bearer(token), target="/oauth2/forward_auth").status == 202


def test_bearer_token_ignored_without_option(harness: Harness) -> None:
    assert ask(harness, bearer(harness.token())).status == 401


def test_bearer_token_verified_once_and_expiry_checked_always() -> None:
    harness = accepting_bearer()
    field = bearer(harness.token())
    assert ask(harness, field).status == 202
    again = harness.proxy.check(harness.request("/oauth2/auth", field, jar={}))
    assert type(again) is Respond  # no flow: the signature is not verified again
    assert again.reusable
    harness.clock.now += 299
    assert ask(harness, field).status == 202
    harness.clock.now += 32  # past its expiry and the leeway
    assert ask(harness, field).status == 401
    assert [event.reason for event in harness.events[-1:]] == ["expired"]


def test_bearer_token_with_long_lifetime_verified_again() -> None:
    harness = accepting_bearer()
    field = bearer(harness.token(exp=int(harness.clock.now) + 10**6))
    assert ask(harness, field).status == 202
    harness.clock.now += TOKEN_CACHE_TTL + 1
    outcome = harness.proxy.check(harness.request("/oauth2/auth", field, jar={}))
    assert not isinstance(outcome, Respond)
    assert harness.decide(outcome).status == 202  # type: ignore[union-attr]


def test_bearer_cache_bounded() -> None:
    harness = accepting_bearer(session_cache_bytes=60_000)
    for number in range(40):
        assert ask(harness, bearer(harness.token(jti=str(number)))).status == 202
    credentials = harness.proxy._credentials
    assert credentials is not None
    assert len(credentials._verified) < 20
    tiny = accepting_bearer(session_cache_bytes=0)
    assert ask(tiny, bearer(tiny.token())).status == 202


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({}, 202),
        ({"aud": ["authproxy", "account"]}, 202),
        ({"azp": None}, 202),
        ({"email": None}, 202),  # a service account: the user replaces the email
        ({"email_verified": True}, 202),
        ({"iss": "https://other.example"}, 401),  # JW16
        ({"iss": ISSUER + "/"}, 401),
        ({"iss": ISSUER.upper()}, 401),
        ({"iss": None}, 401),
        ({"iss": [ISSUER]}, 401),
        ({"iss": ISSUER.replace("main", "other")}, 401),  # JW17
        ({"aud": "other"}, 401),  # JW38
        ({"aud": None}, 401),
        ({"aud": ["authproxy", "other"], "azp": None}, 401),  # JW19
        ({"azp": "other"}, 401),  # JW20
        ({"exp": None}, 401),
        ({"exp": "9999999999"}, 401),
        ({"exp": 1}, 401),
        ({"exp": 10**30}, 202),
        ({"nbf": 9_999_999_999}, 401),  # JW22
        ({"iat": 9_999_999_999}, 401),
        ({"iat": None}, 401),
        ({"sub": None}, 401),  # JW23
        ({"sub": ""}, 401),
        ({"sub": 7}, 401),
        ({"sub": "x" * 10_000}, 401),
        ({"sub": "a\r\nb"}, 401),
        ({"email_verified": False}, 401),  # AZ07
        ({"email_verified": "false"}, 401),
        ({"events": {"http://schemas.openid.net/event/backchannel-logout": {}}}, 401),
    ],
)
def test_jw_bearer_claims_validated(claims: Any, status: int) -> None:
    assert ask(SHARED, bearer(SHARED.token(**claims))).status == status
    assert ask(SHARED, bearer(SHARED.token())).status == 202


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
def test_bearer_access_token_types_accepted(typ: str) -> None:
    assert not is_rejected(SHARED.token({"typ": typ}))


@pytest.mark.parametrize(
    "more",
    [
        {"typ": "logout+jwt"},  # JW37
        {"typ": "Logout+JWT"},
        {"typ": "secevent+jwt"},
        {"crit": ["x"], "x": 1},
        {"crit": []},
    ],
)
def test_bearer_other_token_kind_with_valid_signature_rejected(
    more: dict[str, Any],
) -> None:
    head, payload, _ = SHARED.token().split(".")
    decoded = orjson.loads(base64.urlsafe_b64decode(head + "=="))
    key = SHARED.idp.tokens.keys._current()["RS256"].private_key

    def signed(head: dict[str, Any]) -> str:
        text = f"{b64url(orjson.dumps(head)).decode()}.{payload}"
        signature = key.sign(text.encode(), PKCS1v15(), SHA256())
        return f"{text}.{b64url(signature).decode()}"

    assert not is_rejected(signed(decoded | {"x": 1}))
    assert is_rejected(signed(decoded | more))


@pytest.mark.parametrize(
    "changed",
    [
        {"typ": "logout+jwt"},
        {"alg": "none"},  # JW01
        {"kid": 7},
        {"crit": ["x"], "x": 1},
    ],
)
def test_jw_bearer_header_validated(changed: dict[str, Any]) -> None:
    head, payload, signature = SHARED.token().split(".")
    decoded = orjson.loads(base64.urlsafe_b64decode(head + "=="))
    forged = b64url(orjson.dumps(decoded | changed)).decode()
    assert is_rejected(f"{forged}.{payload}.{signature}")


def test_bearer_key_accepted_for_its_algorithm_only() -> None:
    [key] = [one for one in SHARED.idp.tokens.keys.public_keys() if one["kty"] == "RSA"]
    for alg, fits in (("RS256", True), ("RS512", False), (None, True)):
        document = {"keys": [{**key, "alg": alg}]}
        keys = parse_key_set(orjson.dumps(document))
        assert bool(keys.candidates(None, "RS256")) is fits
        assert not keys.candidates("another", "RS256")
        assert not keys.candidates(None, "ES256")


@pytest.mark.parametrize(
    "damaged",
    [
        lambda token: token[:-4],  # JW08
        lambda token: token + "AAAA",
        lambda token: token + ".x",
        lambda token: token.rsplit(".", 1)[0] + ".",
        lambda token: token.rsplit(".", 1)[0] + ".AAAA",
        lambda token: "eyJ.eyJ.x",
        lambda token: token.replace("_", "/").replace("-", "+") + "=",  # JW26
        lambda token: token + "\n",
        lambda token: "ey" + "x" * 40_000 + ".ey.x",  # JW43
        lambda token: "e30." + token.split(".", 1)[1],
        lambda token: "eyJhIjoxfQ.eyJh.eyJh",
    ],
)
def test_jw_bearer_malformed_token_rejected(damaged: Any) -> None:
    assert is_rejected(damaged(SHARED.token()))


def test_jw02_bearer_symmetric_or_foreign_key_rejected() -> None:
    stranger = Harness(new_keys=True)
    assert is_rejected(stranger.token())
    alg = b64url(b'{"alg":"HS256","typ":"JWT"}').decode()
    assert is_rejected(f"{alg}.{SHARED.token().split('.')[1]}.c2lnbmF0dXJl")


def test_jw10_jw11_unknown_keys_limit_jwks_requests() -> None:
    harness = accepting_bearer()
    harness.clock.now += 60
    harness.fetched.clear()
    harness.locks.clear()
    for number in range(50):
        assert ask(harness, bearer(harness.token({"kid": str(number)}))).status == 401
    assert len(harness.fetched) == 1
    assert len(harness.locks) == 1  # the other requests did not wait for the lock
    assert ask(harness, bearer(harness.token())).status == 202


def test_jw29_rotated_key_fetched_once_for_concurrent_requests() -> None:
    harness = accepting_bearer()
    harness.clock.now += 60
    harness.idp.rotate_keys()
    field = bearer(harness.token())
    first = harness.proxy.handle(harness.request("/oauth2/auth", field, jar={}))
    second = harness.proxy.handle(harness.request("/oauth2/auth", field, jar={}))
    assert not isinstance(first, Respond)
    assert not isinstance(second, Respond)
    assert type(next(first)) is Lock  # type: ignore[call-overload]
    fetch = first.send(True)  # type: ignore[union-attr]
    assert type(fetch) is Fetch
    assert type(next(second)) is Lock  # type: ignore[call-overload]
    # The first flow gets its response; the second acquires the lock afterwards.
    assert result_of(first, harness.on_fetch(fetch), None).status == 202
    assert result_of(second, True, None).status == 202


def result_of(flow: Any, *results: Any) -> Any:
    """Return the result of a flow that ends after these results of its effects."""
    try:
        for response in results:
            flow.send(response)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the flow has not ended")


def test_jw41_authorization_field_precedes_cookie_without_mixing() -> None:
    harness = accepting_bearer()
    harness.log_in()
    field = bearer(harness.token())
    assert harness.get("/oauth2/auth", field).user == "service@example.com"
    assert harness.get("/oauth2/auth").user == "alice@example.com"
    # With an invalid token, the cookie counts.
    for bad in (bearer("opaque"), basic("a", "b"), bearer("x", b"Digest")):
        assert harness.get("/oauth2/auth", bad).user == "alice@example.com"
    two = (field, field)
    assert harness.get("/oauth2/auth", *two).user == "alice@example.com"
    assert ask(harness, *two).status == 401


@pytest.mark.parametrize(
    "target", ["/oauth2/auth", "/oauth2/forward_auth", "/oauth2/userinfo", "/page"]
)
def test_bearer_invalid_token_without_fallback_gets_403(target: str) -> None:
    harness = accepting_bearer(bearer_login_fallback=False)
    harness.log_in()
    for bad in (
        bearer("opaque"),
        bearer(harness.token(aud="other")),
        basic("a", "b"),
        bearer("x", b"Digest"),
        (b"authorization", b""),
    ):
        response = harness.get(target, bad)
        assert (response.status, response.body[:9]) == (403, b"Forbidden")
        assert header(response, b"www-authenticate") == b'Bearer error="invalid_token"'
    assert harness.get(target, bearer(harness.token())).status in (202, 200, 404)
    assert harness.get(target).status in (202, 200, 404)
    for own in ("/oauth2/sign_in", "/oauth2/start", "/ping", "/robots.txt"):
        assert harness.get(own, bearer("opaque")).status in (200, 302)


@pytest.mark.parametrize(
    ("field", "status"),
    [
        (lambda token: basic(token, ""), 202),  # JW40
        (lambda token: basic(token, "x-oauth-basic"), 202),
        (lambda token: basic("git", token), 202),
        (lambda token: basic(token, "other"), 401),
        (lambda token: basic("git", "other"), 401),
        (lambda token: bearer(token, b"bearer"), 401),
        (lambda token: bearer(token, b"Bearer "), 401),
        (lambda token: (b"authorization", token.encode()), 401),
        (lambda token: bearer("%%%", b"Basic"), 401),
        (lambda token: bearer(base64.b64encode(b"nocolon"), b"Basic"), 401),
    ],
)
def test_authorization_field_forms(field: Any, status: int) -> None:
    assert ask(SHARED, field(SHARED.token())).status == status


def test_bearer_user_must_be_authorized() -> None:
    strict = accepting_bearer(provider={"allowed_groups": ("staff",)})
    assert ask(strict, bearer(strict.token())).status == 202
    assert ask(strict, bearer(strict.token(groups=["none"]))).status == 403
    url = "/oauth2/auth?allowed_groups=admins"
    assert ask(strict, bearer(strict.token()), target=url).status == 403
    domains = accepting_bearer(email_domains=("example.com",))
    assert ask(domains, bearer(domains.token())).status == 202
    assert ask(domains, bearer(domains.token(email=None))).status == 403
    assert ask(domains, bearer(domains.token(email="a@b@example.com"))).status == 403


def test_bearer_authorized_parties_accepted() -> None:
    named = accepting_bearer(jwt_authorized_parties=("batch",))
    assert ask(named, bearer(named.token(azp="batch"))).status == 202
    assert ask(named, bearer(named.token(azp="other"))).status == 401
    assert "bearer_authorized_parties" in named.events[-1].detail
    any_client = accepting_bearer(jwt_authorized_parties=("*",))
    assert ask(any_client, bearer(any_client.token(azp="other"))).status == 202
    assert ask(any_client, bearer(any_client.token(aud="other"))).status == 401


def test_bearer_request_forwarded_and_identified() -> None:
    harness = accepting_bearer(
        upstreams=(UpstreamSettings(id="a", uri="http://10.0.0.9/"),)
    )
    field = bearer(harness.token())
    assert isinstance(harness.send("/page", field, jar={}), Forward)
    again = harness.proxy.handle(harness.request("/page", field, jar={}))
    assert isinstance(again, Forward)  # without a flow
    request = harness.request("/page", field, jar={})
    session = harness.run(harness.proxy.identify(request))
    assert session.email == "service@example.com"
    assert "service" not in repr(bearer_of(field[1]))
    unknown = harness.request("/page", bearer("opaque"), jar={})
    assert harness.run(harness.proxy.identify(unknown)) is None
    harness.log_in()
    assert harness.run(harness.proxy.identify(harness.request("/page"))) is not None


def test_bearer_accepted_by_plain_provider() -> None:
    plain = accepting_bearer(provider={"type": "oidc"})
    response = ask(plain, bearer(plain.token(realm_access={"roles": ["robot"]})))
    assert header(response, b"x-auth-request-groups") == b"staff"


def test_bearer_before_provider_is_ready_unavailable() -> None:
    harness = accepting_bearer(ready=False)
    assert ask(harness, bearer(harness.token())).status == 503
    harness.run(harness.proxy.warm_up())
    assert ask(harness, bearer(harness.token())).status == 202


# -- extra issuers


class ExtraIssuer:
    """An extra issuer with separate keys and URLs."""

    def __init__(self, harness: Harness, *, discovers: bool = True) -> None:
        self.keys = Harness(new_keys=True).idp.tokens.keys
        self.discovers = discovers
        self.unavailable = False
        self._world = harness
        self._fetch = harness.on_fetch
        harness.on_fetch = self.fetch

    def fetch(self, effect: Fetch) -> Response:
        if not effect.url.startswith(OTHER):
            return self._fetch(effect)
        if self.unavailable:
            raise FetchError("connection is_rejected")
        if effect.url.endswith("/openid-configuration"):
            document = {
                "issuer": OTHER,
                "authorization_endpoint": f"{OTHER}/a",
                "token_endpoint": f"{OTHER}/t",
                "jwks_uri": f"{OTHER}/keys",
                "id_token_signing_alg_values_supported": ["ES256", "RS256"],
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
            }
            if self.discovers:
                return Response(200, (), orjson.dumps(document))
            return Response(404)
        keys = {"keys": self.keys.public_keys()}
        wanted = "/keys" if self.discovers else "/.well-known/jwks.json"
        found = effect.url == OTHER + wanted
        return Response(200 if found else 404, (), orjson.dumps(keys))

    def token(self, alg: str = "RS256", **claims: Any) -> str:
        now = int(self._world.clock.now)
        values = {
            "iss": OTHER,
            "sub": "robot",
            "aud": "api",
            "azp": "client",
            "iat": now,
            "exp": now + 60,
        } | claims
        kept = {name: value for name, value in values.items() if value is not None}
        return self.keys.sign(kept, alg, {})


def with_extra_issuer(
    discovers: bool = True, **provider: Any
) -> tuple[Harness, ExtraIssuer]:
    harness = accepting_bearer(
        jwt_issuers=(JwtIssuer(OTHER, "api"),), provider=provider
    )
    return harness, ExtraIssuer(harness, discovers=discovers)


@pytest.mark.parametrize("discovers", [True, False])
def test_extra_issuer_token_accepted(discovers: bool) -> None:
    harness, extra = with_extra_issuer(discovers)
    response = ask(
        harness, bearer(extra.token(groups=["a", "b"], email="r@example.org"))
    )
    assert response.status == 202
    assert header(response, b"gap-auth") == b"r@example.org"
    assert header(response, b"x-auth-request-groups") == b"a,b"
    assert ask(harness, bearer(extra.token())).user == "robot"
    assert ask(harness, bearer(harness.token())).status == 202
    assert ask(harness, bearer(extra.token("ES256"))).status == (
        202 if discovers else 401
    )


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "authproxy"},
        {"iss": OTHER + "/"},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email": 7},
        {"preferred_username": ["x"]},
        {"groups": ["a", 7]},
        {"groups": ["a", None]},
        {"groups": [["a"]]},
        {"groups": {"a": "b"}},
        {"groups": 7},
        {"groups": True},
        {"exp": 1},
        {"sub": ""},
    ],
)
def test_extra_issuer_claims_validated(claims: Any) -> None:
    harness, extra = with_extra_issuer()
    assert ask(harness, bearer(extra.token(**claims))).status == 401
    assert ask(harness, bearer(extra.token(email_verified=True))).status == 202


@pytest.mark.parametrize(
    ("claims", "groups"),
    [
        ({"ADGroups": ["a", "b"]}, b"a,b"),
        ({"ADGroups": "x y"}, b"x y"),
        ({"ADGroups": ["a", ""], "groups": ["admins"]}, b"a"),
    ],
)
def test_extra_issuer_configured_groups_claim_read(claims: Any, groups: bytes) -> None:
    harness, extra = with_extra_issuer(groups_claim="ADGroups")
    response = ask(harness, bearer(extra.token(**claims)))
    assert header(response, b"x-auth-request-groups") == groups


@pytest.mark.parametrize(
    "groups", [{"a": 1}, 7, True, ["a", 7], ["a", ["b"]], [{"a": 1}], [None]]
)
def test_az40_extra_issuer_malformed_groups_rejected(groups: Any) -> None:
    """The token is not taken for one of a user without groups."""
    harness, extra = with_extra_issuer(groups_claim="ADGroups")
    assert ask(harness, bearer(extra.token(ADGroups=groups))).status == 401


@pytest.mark.parametrize(
    "claims", [{"groups": ["admins"]}, {"realm": {"roles": ["admins"]}}]
)
def test_extra_issuer_other_groups_claim_denied(claims: Any) -> None:
    for name in ("ADGroups", "realm.roles"):
        harness, extra = with_extra_issuer(
            groups_claim=name, allowed_groups=("admins",)
        )
        assert ask(harness, bearer(extra.token(**claims))).status == 403
        assert ask(harness, bearer(extra.token(**{name: "admins"}))).status == 202


def test_jw38_extra_issuer_cannot_sign_for_another_issuer() -> None:
    harness, extra = with_extra_issuer()
    assert ask(harness, bearer(extra.token(iss=ISSUER, aud="authproxy"))).status == 401
    forged = harness.token(iss=OTHER, aud="api")
    assert ask(harness, bearer(forged)).status == 401


def test_extra_issuer_unavailable_retried_later() -> None:
    harness, extra = with_extra_issuer()
    extra.unavailable = True
    assert ask(harness, bearer(extra.token())).status == 503
    harness.fetched.clear()
    assert ask(harness, bearer(extra.token())).status == 503
    assert not harness.fetched  # no retry yet
    extra.unavailable = False
    harness.clock.now += 2
    assert ask(harness, bearer(extra.token())).status == 202


def test_bearer_any_issuer_accepted_without_issuer_verification() -> None:
    harness = accepting_bearer(provider={"skip_issuer_verification": True})
    assert (
        ask(harness, bearer(harness.token(iss="https://alias.example"))).status == 202
    )


def test_bearer_provider_without_keys_rejects_tokens() -> None:
    github = provider_settings(id="github", type="github", issuer="")
    harness = accepting_bearer(providers=(github,), ready=False)
    assert ask(harness, bearer(harness.token())).status == 401


# -- settings


@pytest.mark.parametrize("issuer", [JwtIssuer("x", "y"), JwtIssuer(OTHER, "")])
def test_extra_issuer_invalid_setting_reported(issuer: JwtIssuer) -> None:
    bad = settings(credentials=CredentialSettings(jwt_issuers=(issuer,)))
    with pytest.raises(SettingsError, match="extra_jwt_issuers: got"):
        check(bad)


def test_credentials_inactive_by_default() -> None:
    assert not Settings().credentials.is_active
    assert CredentialSettings(jwt_bearer_tokens=True).is_active
    assert CredentialSettings(users={}).is_active


# -- arbitrary input


def test_basic_name_is_text_and_repr_hides_secrets() -> None:
    pair = base64.b64encode(b"\xff:secret")
    assert basic_of(b"Basic " + pair) == Unusable()
    assert "secret" not in repr(Basic("ann", b"secret"))


@given(st.binary(max_size=80))
def test_authorization_any_field_parsed(value: bytes) -> None:
    assert isinstance(bearer_of(value), Bearer | Unusable)
    assert isinstance(basic_of(value), Basic | Unusable)
    assert bearer_of(None) is None
    assert basic_of(None) is None


@given(
    st.one_of(
        st.binary(max_size=60),
        st.binary(max_size=60).map(lambda raw: b"Bearer " + raw),
        st.binary(max_size=60).map(lambda raw: b"Basic " + base64.b64encode(raw)),
        st.lists(st.binary(max_size=20), min_size=3, max_size=3).map(
            lambda parts: b"Bearer ey" + b".ey".join(map(b64url, parts))
        ),
    )
)
def test_authorization_arbitrary_field_never_allowed(value: bytes) -> None:
    response = ask(SHARED, (b"authorization", value))
    assert response.status == 401


@pytest.mark.parametrize(
    "pair",
    [b"a\n:pw", b"a\x00:pw", "a\u202e:pw".encode(), b"\xff:pw", b"no colon"],
)
def test_basic_invalid_name_rejected(pair: bytes) -> None:
    assert basic_of(b"Basic " + base64.b64encode(pair)) == Unusable()


@pytest.mark.parametrize(
    "text", [b"Y*TpwdzE=", b"YTpwdzE=\n", b"-YTpwdzE=", b"YTpwdzE"]
)
def test_basic_non_canonical_base64_rejected(text: bytes) -> None:
    assert basic_of(b"Basic YTpwdzE=") == Basic("a", b"pw1")
    assert basic_of(b"Basic " + text) == Unusable()


def test_bearer_cached_token_expires() -> None:
    harness = accepting_bearer()
    field = bearer(harness.token(exp=int(harness.clock.now) + 60))
    for _ in range(3):
        assert ask(harness, field).status == 202
    harness.clock.now += 60 + harness.settings.clock_skew - 1
    assert ask(harness, field).status == 202
    harness.clock.now += 1
    assert ask(harness, field).status == 401


def test_bearer_token_limited_to_hosts_of_provider() -> None:
    """A token cached for one host does not count on another."""
    harness = accepting_bearer(provider={"hosts": ("app.example.com",)})
    field = bearer(harness.token())
    for _ in range(3):
        assert ask(harness, field).status == 202
    assert ask(harness, field, (b"host", b"b.example.com")).status == 401
    assert ask(harness, field).status == 202


def test_bearer_rejected_tokens_are_freed_without_a_collection() -> None:
    harness = accepting_bearer()
    expired = harness.token(exp=int(harness.clock.now) - 1000)
    unknown = harness.token({"kid": "unknown"})
    with without_collections():
        assert ask(harness, bearer(expired)).status == 401
        harness.config.failing["jwks"] = 503
        for _ in range(2):  # the keys are not available
            assert ask(harness, bearer(unknown)).status == 503
        assert cyclic() == []
