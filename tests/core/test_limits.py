"""Limits of sizes, counts and times: the largest accepted value and the next one."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
from joserfc.jwk import RSAKey

from authproxy_core import Respond, Response, Session
from authproxy_core.encoding import b64url
from authproxy_core.errors import ProviderError, RequestError, SealError, TokenError
from authproxy_core.identity.claims import (
    MAX_DEPTH,
    MAX_SID,
    claim_sid,
    serializable_claims,
)
from authproxy_core.login.redirects import MAX_TARGET_BYTES, RedirectPolicy
from authproxy_core.login.state import HASH_LENGTH, MAX_STATE_LENGTH
from authproxy_core.messages import Request
from authproxy_core.oidc.algorithms import MAX_TOKEN_BYTES, MIN_RSA_BITS
from authproxy_core.oidc.jwt import (
    MAX_KEYS,
    MAX_SUBJECT_LENGTH,
    ExpectedClaims,
    parse_key_set,
    unverified_claims,
)
from authproxy_core.oidc.logout_token import (
    LOGOUT_EVENT,
    MAX_ID_LENGTH,
    MAX_TOKEN_AGE,
    check_logout_token,
)
from authproxy_core.providers.adapters.graph import fetch_groups
from authproxy_core.providers.api import MAX_PAGES
from authproxy_core.request.authorization import (
    MAX_CREDENTIALS,
    MAX_PASSWORD,
    Basic,
    Bearer,
    Unusable,
    basic,
    bearer_of,
)
from authproxy_core.request.original import (
    MAX_HOP,
    MAX_HOPS,
    MAX_HOST,
    MAX_URI,
    TrustedProxies,
)
from authproxy_core.sessions.cookies import MAX_CLEARED_PARTS, CookieWriter
from authproxy_core.sessions.formats import (
    MAX_STORED_BYTES,
    MIN_NONCE_SIZE,
    SessionFormats,
    session_identity,
)
from authproxy_core.sessions.oauth2_proxy_format import (
    MAX_CLAIM_DEPTH,
    MAX_RECORD_BYTES,
    MAX_VALUE_BYTES,
    OAuth2ProxyFormat,
    Ticket,
    read_stored_session,
    write_stored_session,
)
from authproxy_core.sessions.sealing import MAX_SEALED_BYTES, Sealer
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import CookieSettings, Settings
from support.harness import SECRET, START, Harness, header, settings, target_of

more = pytest.mark.parametrize("more", [0, 1])


# Sealed values


def test_sealed_value_max_length() -> None:
    sealer = Sealer([SECRET])

    def sealed(length: int) -> bytes:
        size = length * 3 // 4 - 13 - 12 - 16
        text = sealer.seal(b"p", bytes(size), issued_at=START, nonce=bytes(12))
        assert len(text) == length
        return text

    longest = sealed(MAX_SEALED_BYTES)
    assert sealer.unseal(b"p", longest, now=START, lifetime=0).issued_at == START
    with pytest.raises(SealError, match="not a sealed value"):
        sealer.unseal(b"p", sealed(MAX_SEALED_BYTES + 2), now=START, lifetime=0)


def test_stored_session_max_length() -> None:
    given = settings(cookie={"read_oauth2_proxy": False})
    formats = SessionFormats(given, clock=lambda: START, random_bytes=bytes)
    ticket = formats.new_ticket()
    # It is rejected unread, so its content does not matter.
    for size, match in (
        (MAX_STORED_BYTES, "not a sealed value"),
        (MAX_STORED_BYTES + 1, "too large"),
    ):
        with pytest.raises(SealError, match=match):
            formats.unseal_stored(ticket, bytes(size))


@pytest.mark.parametrize("ticket", [True, False])
def test_oauth2_proxy_cookie_max_age(ticket: bool) -> None:
    given = settings(cookie={"format": "oauth2-proxy"})
    now = START
    formats = SessionFormats(given, clock=lambda: now, random_bytes=bytes)
    if ticket:
        value = formats.write_ticket(formats.new_ticket(), START)
    else:
        value = formats.write_session(Session(created_at=START))
    now = START + given.cookie.expire - 1
    assert formats.read(value)
    now += 1
    with pytest.raises(SealError, match="older"):
        formats.read(value)


def test_oauth2_proxy_value_max_length() -> None:
    interop = OAuth2ProxyFormat([SECRET], "_oauth2_proxy")
    # Rejected unread; a shorter value would be rejected for its signature.
    rest = b"|1700000000|"
    for size, match in (
        (MAX_VALUE_BYTES, "modified"),
        (MAX_VALUE_BYTES + 1, "three fields"),
    ):
        value = b"A" * (size - len(rest)) + rest
        with pytest.raises(SealError, match=match):
            interop.read_cookie(value, now=START, lifetime=0)


def test_oauth2_proxy_stored_session_max_length() -> None:
    interop = OAuth2ProxyFormat([SECRET], "_oauth2_proxy")
    ticket = Ticket("_oauth2_proxy-1", bytes(16))

    def session(size: int) -> Session:
        return Session(created_at=START, user="x" * size)

    def stored(size: int) -> bytes:
        return write_stored_session(ticket, session(size), nonce=bytes(12))

    around = 12 + 16  # bytes, of the nonce and the tag
    overhead = len(stored(100_000)) - around - 100_000
    longest = MAX_RECORD_BYTES - overhead
    value = interop.write_session(session(longest), iv=bytes(16))
    found = interop.read_cookie(value, now=START, lifetime=0)[0]
    assert found.user == "x" * longest
    value = interop.write_session(session(longest + 1), iv=bytes(16))
    with pytest.raises(SealError, match="size limit"):
        interop.read_cookie(value, now=START, lifetime=0)
    longest -= around
    found = read_stored_session(ticket, stored(longest), created_at=0.0)
    assert found.user == "x" * longest
    with pytest.raises(SealError, match="too large"):
        read_stored_session(ticket, stored(longest + 1), created_at=0.0)


def test_nonce_min_length() -> None:
    def same(nonce: bytes) -> bool:
        session = Session(created_at=START, nonce=nonce)
        return session_identity(session, b"one") == session_identity(session, b"two")

    assert same(bytes(MIN_NONCE_SIZE))
    assert not same(bytes(MIN_NONCE_SIZE - 1))


# Logins


def callback(state: str, harness: Harness) -> Respond:
    """Return the response to a login's callback with another *state*."""
    url = harness.idp.log_in(harness.start_login("/deep"), "alice")
    own = target_of(url).partition("state=")[2].partition("&")[0]
    assert len(own) == HASH_LENGTH
    return harness.get(target_of(url).replace(own, own + state))


@more
def test_state_max_length(more: int) -> None:
    response = callback(
        ":" + "x" * (MAX_STATE_LENGTH - HASH_LENGTH - 1 + more), Harness()
    )
    if more:
        assert response.status == 403
        assert [event.kind for event in response.events] == ["login_failed"]
    else:
        assert (response.status, header(response, b"location")) == (302, b"/deep")


@more
@pytest.mark.parametrize("form", ["authproxy", "oauth2-proxy"])
def test_redirect_target_kept_whole_up_to_limit(form: str, more: int) -> None:
    harness = Harness(settings(cookie={"format": form}))
    noise = random.Random(5).choices("abcdefghijklmnopqrstuvwxyz012345", k=1 << 14)
    rd = "/a?" + "".join(noise)[: MAX_TARGET_BYTES - 3 + more]
    if more:
        response = harness.get(f"/oauth2/start?rd={rd}")
        assert response.status == 414
        assert b"Sign in first" in response.body
        assert [event.reason for event in response.events] == ["target_too_long"]
    else:
        assert header(harness.log_in(rd=rd), b"location").decode() == rd


def test_redirect_max_length() -> None:
    policy = RedirectPolicy(Settings())
    assert policy.is_safe("/" + "a" * (MAX_TARGET_BYTES - 1))
    assert not policy.is_safe("/" + "a" * MAX_TARGET_BYTES)


def test_redirect_max_port() -> None:
    policy = RedirectPolicy(Settings(whitelist_domains=("any.test:*",)))
    assert policy.is_safe("https://any.test:65535/")
    assert not policy.is_safe("https://any.test:65536/")


def test_redirect_triple_encoding_stays_on_host() -> None:
    policy = RedirectPolicy(Settings())
    for target in ("/%2Fevil.com", "/%252Fevil.com"):
        assert not policy.is_safe(target)
    assert policy.is_safe("/%25252Fevil.com")


def test_redirect_control_character_after_slash_rejected() -> None:
    policy = RedirectPolicy(Settings())
    for target in ("/%09evil.com", "/%a0evil.com", "/\u200bevil.com", "/ evil.com"):
        assert not policy.is_safe(target)
    assert policy.is_safe("/a%20b")


def test_redirect_dot_segments_count_in_path_only() -> None:
    policy = RedirectPolicy(Settings())
    for target in ("/?/..//other.example", "/a?b=/../..//c", "/a#/../..//c"):
        assert policy.is_safe(target)
    assert not policy.is_safe("/a/../..//other.example?b")


# Tokens


def accepting() -> Harness:
    accepted = CredentialSettings(jwt_bearer_tokens=True)
    return Harness(settings(credentials=accepted))


@more
def test_subject_max_length(more: int) -> None:
    harness = accepting()
    token = harness.token(sub="s" * (MAX_SUBJECT_LENGTH + more))
    field = (b"authorization", f"Bearer {token}".encode())
    assert harness.get("/oauth2/auth", field).status == (401 if more else 202)


def test_token_max_length() -> None:
    head = b64url(b'{"alg":"none"}').decode()
    body = b64url(b'{"a":1 }').decode()
    fixed = len(head) + len(body) + 2

    def token(length: int) -> str:
        return f"{head}.{body}.{'A' * (length - fixed)}"

    assert unverified_claims(token(MAX_TOKEN_BYTES)) == {"a": 1}
    for length in range(MAX_TOKEN_BYTES + 1, MAX_TOKEN_BYTES + 5):
        with pytest.raises(TokenError, match="compact"):
            unverified_claims(token(length))


KEY = RSAKey.generate_key(2048).as_dict(private=False)


def key_set(*keys: Any) -> Any:
    return parse_key_set(orjson.dumps({"keys": keys}))


def test_jwks_max_keys() -> None:
    assert len(key_set(*[KEY] * MAX_KEYS).keys) == MAX_KEYS
    found = key_set(*[KEY] * (MAX_KEYS + 1))
    assert (len(found.keys), found.unusable) == (MAX_KEYS, 1)


@more
def test_rsa_key_min_size(more: int) -> None:
    modulus = (1 << (MIN_RSA_BITS - more)) - 1
    n = b64url(modulus.to_bytes(MIN_RSA_BITS // 8, "big")).decode()
    assert len(key_set({**KEY, "n": n}).keys) == 1 - more


@more
@pytest.mark.parametrize("name", ["sid", "jti"])
def test_logout_token_claim_max_length(name: str, more: int) -> None:
    assert_logout_token_limit(more, **{name: "x" * (MAX_ID_LENGTH + more)})


@more
def test_logout_token_max_age(more: int) -> None:
    leeway = 30
    assert_logout_token_limit(more, iat=START - MAX_TOKEN_AGE - leeway - more)


def test_logout_token_of_another_issuer_rejected() -> None:
    assert_logout_token_limit(1, iss="other")
    assert_logout_token_limit(
        1, iss="accounts.google.com"
    )  # an alias of Google's issuer only
    assert_logout_token_limit(0, iss="i")


@more
def test_token_times_within_leeway(more: int) -> None:
    """The clocks of authproxy and the provider may differ by the leeway."""
    assert_logout_token_limit(more, iat=START + 30 + more)
    assert_logout_token_limit(more, exp=START - 30 + 1 - more)
    assert_logout_token_limit(more, nbf=START + 30 + more)


def assert_logout_token_limit(more: int, **changes: Any) -> None:
    """Check a logout token with *changes*; it must be rejected if *more* is set."""
    claims = {
        "iss": "i", "aud": "c", "iat": START, "exp": START + 60, "jti": "1",
        "sub": "s", "events": {LOGOUT_EVENT: {}},
    } | changes  # fmt: skip
    expected = ExpectedClaims(issuer="i", client_id="c", leeway=30.0)
    if not more:
        assert check_logout_token(claims, expected, START).subject == "s"
        return
    with pytest.raises(TokenError):
        check_logout_token(claims, expected, START)


def nested(depth: int) -> Any:
    value: Any = 1
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


def test_claims_max_depth() -> None:
    claims = {"c": nested(MAX_DEPTH)}
    assert serializable_claims(claims) == claims
    with pytest.raises(ProviderError, match="deeper"):
        serializable_claims({"c": nested(MAX_DEPTH + 1)})


def test_oauth2_proxy_claims_max_depth() -> None:
    interop = OAuth2ProxyFormat([SECRET], "_oauth2_proxy")

    def written(depth: int) -> bytes:
        session = Session(created_at=START, claims={"c": nested(depth)})
        return interop.write_session(session, iv=bytes(16))

    value = written(MAX_CLAIM_DEPTH)
    assert interop.read_cookie(value, now=START, lifetime=0)[0].claims
    with pytest.raises(ValueError, match="nested"):
        written(MAX_CLAIM_DEPTH + 1)


def test_sid_max_length() -> None:
    assert claim_sid({"sid": "s" * MAX_SID}) == "s" * MAX_SID
    assert claim_sid({"sid": "s" * (MAX_SID + 1)}) == ""


# The Authorization field


def test_credentials_max_length() -> None:
    start = b"Bearer eyA.eyA."
    longest = start + b"A" * (MAX_CREDENTIALS - len(start))
    assert isinstance(bearer_of(longest), Bearer)
    assert isinstance(bearer_of(longest + b"A"), Unusable)


def test_password_max_length() -> None:
    longest = b"x" * MAX_PASSWORD
    for user, password in ((longest, b"p"), (b"u", longest)):
        assert isinstance(basic(user, password), Basic)
    for user, password in ((longest + b"x", b"p"), (b"u", longest + b"x")):
        assert isinstance(basic(user, password), Unusable)


# Forwarded headers

TRUST = TrustedProxies(
    Settings(
        reverse_proxy=True,
        trusted_proxies=("10.0.0.0/8",),
        real_client_ip_header="x-forwarded-for",
    )
)


def original_of(
    *fields: tuple[bytes, bytes], host: bytes = b"a", target: bytes = b"/"
) -> Any:
    headers = ((b"host", host), *fields)
    return TRUST.original(Request(b"GET", target, headers, "10.0.0.1"))


def test_forwarded_for_max_hops() -> None:
    def client(hops: int) -> tuple[str, str]:
        chain = b",".join([b"192.0.2.1", *[b"10.0.0.2"] * hops])
        fields = ((b"host", b"a"), (b"x-forwarded-for", chain))
        request = Request(b"GET", b"/", fields, "10.0.0.1")
        return TRUST.client(request), TRUST.client_for_rules(request)

    assert client(MAX_HOPS - 1) == ("192.0.2.1", "192.0.2.1")
    # Beyond the limit the client is unknown: logs get the peer, rules get no address.
    assert client(MAX_HOPS) == ("10.0.0.1", "")


def test_forwarded_for_max_hop_length() -> None:
    def client(size: int) -> str:
        value = b"192.0.2.1".ljust(size)
        found: str = original_of((b"x-forwarded-for", value)).client
        return found

    assert client(MAX_HOP) == "192.0.2.1"
    assert client(MAX_HOP + 1) == "10.0.0.1"


def test_host_max_length() -> None:
    labels = b".".join([b"a" * 63] * 3)
    longest = labels + b"." + b"b" * (MAX_HOST - len(labels) - 1 - 6) + b":12345"
    assert len(longest) == MAX_HOST
    assert original_of(host=longest).host == longest.decode()
    with pytest.raises(RequestError):
        original_of(host=longest.replace(b".", b".c.", 1)[: MAX_HOST + 1])


def test_request_target_max_length() -> None:
    longest = b"/" + b"a" * (MAX_URI - 1)
    assert original_of(target=longest).uri == longest
    assert original_of((b"x-forwarded-uri", longest)).uri == longest
    for fields, target in (
        ((), longest + b"a"),
        (((b"x-forwarded-uri", longest + b"a"),), b"/"),
    ):
        with pytest.raises(RequestError):
            original_of(*fields, target=target)


# Other limits


def test_cleared_cookie_parts_limit() -> None:
    writer = CookieWriter("s", CookieSettings(secrets=(SECRET,)))
    for parts in (MAX_CLEARED_PARTS, MAX_CLEARED_PARTS + 5):
        names = [b"s", *[b"s_%d" % number for number in range(parts)]]
        cleared = writer.clear(host="a", present=names)
        assert len(cleared) == 1 + MAX_CLEARED_PARTS


@more
def test_group_pages_limit(more: int) -> None:
    flow = fetch_groups("https://graph.example/g", ())
    next(flow)
    for page in range(1, MAX_PAGES):
        link = f"https://graph.example/g?{page}"
        flow.send(
            graph_response({"value": [{"id": f"g{page}"}], "@odata.nextLink": link})
        )
    last = {"@odata.nextLink": "https://graph.example/g"} if more else {}
    with pytest.raises(ProviderError if more else StopIteration) as ended:
        flow.send(graph_response({"value": [{"id": "last"}], **last}))
    if isinstance(ended.value, StopIteration):
        assert len(ended.value.value) == MAX_PAGES


def graph_response(document: Any) -> Any:
    return Response(200, (), orjson.dumps(document))
