"""Edge cases of small modules that tests of whole logins do not cover."""

from __future__ import annotations

from typing import Any

import lz4.block
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OKPKey, RSAKey

from authproxy_core import AuthProxyError, Response, Session
from authproxy_core.access.membership import Constraints, EmailRule, email_domain
from authproxy_core.encoding import b64url
from authproxy_core.errors import ProviderError, SealError, SettingsError
from authproxy_core.identity.claims import (
    claim_bool,
    claim_list,
    claim_text,
    find_claim,
)
from authproxy_core.identity.headers import (
    MAX_CACHED_SESSIONS,
    HeaderInjector,
    claim_values,
)
from authproxy_core.login.context import encode_location
from authproxy_core.login.failures import DEFAULT, login_failure
from authproxy_core.login.state import LoginState
from authproxy_core.oidc.jwt import parse_key_set
from authproxy_core.oidc.protocol import Tokens, parse_tokens, with_query
from authproxy_core.request.forms import parse_form
from authproxy_core.sessions import session_cache
from authproxy_core.sessions.codec import decode_session, encode_session
from authproxy_core.sessions.cookies import read_cookies
from authproxy_core.sessions.lifetimes import SessionDeadlines
from authproxy_core.sessions.session_cache import SessionCache, SessionEntry
from authproxy_core.settings.root import check
from support.harness import Harness, header, rule, settings

# -- email rules


@pytest.mark.parametrize(
    ("domains", "email", "permitted"),
    [
        (("*",), "anyone@anywhere.example", True),
        (("*",), "", False),
        (("company.com",), "x@company.com", True),
        (("company.com",), "x@COMPANY.com", True),
        (("Company.com",), "x@company.com", True),
        (("company.com",), "x@sub.company.com", False),  # AZ04
        (("company.com",), "x@badcompany.com", False),
        ((".company.com",), "x@sub.company.com", True),
        (("*.company.com",), "x@sub.company.com", True),
        ((".company.com",), "x@company.com", False),
        ((".company.com",), "x@badcompany.com", False),
        (("company.com",), "attacker@evil.com@company.com", False),
        (("company.com",), '"x@company.com"@evil.com', False),  # AZ02
        (("company.com",), '"x y"@company.com', False),
        (("company.com",), "x@evil.com\n@company.com", False),
        (("company.com",), "x@company.com%00@evil.com", False),
        (("company.com",), "x@company.com ", False),
        (("company.com",), "x@company.com.", False),
        (("company.com",), "x@company.com\n", False),
        (("company.com",), "x@", False),
        (("company.com",), "@company.com", False),
        (("company.com",), "x", False),
        (("company.com",), "x@\uff43ompany.com", False),
        (("company.com",), "x@compan\u0131.com", False),
        # KELVIN SIGN, whose lower case is the letter k.
        (("kompany.com",), "x@\u212aompany.com", False),
        ((".company.com",), "attacker@evil.com@x.company.com", False),
        (("company.com",), "x\n@company.com", False),
        (("company.com",), "x\u202e@company.com", False),
        ((), "x@company.com", False),
        (("", "company.com"), "x@evil.com", False),
    ],
)
def test_az01_to_az05_email_domains(
    domains: tuple[str, ...], email: str, permitted: bool
) -> None:
    assert EmailRule(settings(email_domains=domains)).permits(email) is permitted


def test_email_domains_empty_entry_refused() -> None:
    with pytest.raises(SettingsError, match="email_domains: got an empty entry"):
        check(settings(email_domains=("company.com", "")))


def test_authenticated_emails_allow_besides_domains() -> None:
    listed = EmailRule(
        settings(
            email_domains=("company.com",),
            authenticated_emails=frozenset({"Guest@other.example"}),
        )
    )
    assert listed.permits("guest@OTHER.example")
    assert listed.permits("x@company.com")
    assert not listed.permits("x@other.example")


def test_constraints_with_invalid_email() -> None:
    session = Session(email="a b@c", groups=("g",))
    assert Constraints().unmet(session) == ""
    assert Constraints(email_domains=()).unmet(session) == "allowed_email_domains"
    assert email_domain("a b@c") is None


# -- claims


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", 1),
        ("a.b", None),
        ("deep.er.x", "y"),
        ("https://x.example/c", [1]),
        ("null", None),
        ("none.at.all", None),
    ],
)
def test_find_claim_nested_and_literal_names(name: str, expected: Any) -> None:
    claims = {
        "a": 1,
        "deep": {"er": {"x": "y"}},
        "https://x.example/c": [1],
        "null": None,
    }
    assert find_claim(claims, name) == expected


def test_claim_text_list_and_bool() -> None:
    assert claim_text(True) == "true"
    assert claim_text(1.5) == "1.5"
    assert claim_text(None) == ""
    assert claim_text({"b": [1], "a": None}) == '{"a":null,"b":[1]}'
    assert claim_list("one") == ("one",)
    assert claim_list(None) == ()
    assert claim_list([1, "x"]) == ("1", "x")
    assert claim_list([None, "x"]) == ("x",)
    assert [claim_bool(v) for v in (True, 1, "true", "t", 0, "no", [], None)] == [
        True, True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_header_injector_without_session_sets_empty_values() -> None:
    injector = HeaderInjector((rule("X-User", "user"),))
    assert injector.headers(None) == ((b"x-user", b""),)
    assert claim_values(Session(), "created_at") == ()


# -- tokens and keys


def public(key: Any) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


RSA = public(RSAKey.generate_key(2048))


@pytest.mark.parametrize(
    ("data", "usable"),
    [
        (RSA, True),
        ({**RSA, "alg": "RS256", "use": "sig", "kid": "k"}, True),
        ({**RSA, "key_ops": ["verify"], "x5c": "malformed", "kid": 7}, True),
        ({**RSA, "use": "enc"}, False),
        ({**RSA, "key_ops": ["encrypt"]}, False),
        ({**RSA, "key_ops": "verify"}, False),
        ({**RSA, "alg": "RSA-OAEP"}, False),
        ({**RSA, "alg": "ES256"}, False),
        ({**RSA, "e": "AQ"}, False),
        ({**RSA, "n": "!"}, False),
        ({**RSA, "n": None}, False),
        ({**RSA, "n": RSA["n"][:172]}, False),
        ({**RSA, "n": b64url(b"\x01" + bytes(254) + b"\x01").decode()}, False),
        (public(ECKey.generate_key("P-256")), True),
        (public(ECKey.generate_key("P-521")), True),
        (public(ECKey.generate_key("secp256k1")), False),
        ({**public(ECKey.generate_key("P-256")), "y": "AAAA"}, False),
        (public(OKPKey.generate_key("Ed25519")), True),
        (public(OKPKey.generate_key("X25519")), False),
        ({"kty": "oct", "k": "c2VjcmV0"}, False),
        ({"kty": "LATTICE"}, False),
        ({}, False),
        ("text", False),
        (None, False),
    ],
)
def test_jw05_jw07_parse_key_set_skips_unusable_keys(data: Any, usable: bool) -> None:
    keys = parse_key_set(msgspec.json.encode({"keys": [data]}))
    assert (len(keys.keys), keys.unusable) == (int(usable), int(not usable))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"7"])
def test_jw28_parse_key_set_invalid_document_raises(body: bytes) -> None:
    with pytest.raises(ProviderError):
        parse_key_set(body)


def test_jw28_key_set_without_usable_keys_not_ready() -> None:
    harness = Harness(ready=False)
    original = harness.idp.fetch
    harness.on_fetch = lambda effect: (
        Response(200, (), b'{"keys": [{"kty": "oct"}]}')
        if effect.url.endswith("/jwks")
        else original(effect)
    )
    flow = harness.proxy.warm_up()
    response: Any = None
    while type(effect := flow.send(response)).__name__ != "Sleep":
        response = harness.perform(effect)
    assert harness.events[-1].reason == "jwks_empty"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(300, 300.0), ("300", 300.0), (None, 0.0), (True, 0.0), ("x", 0.0), (-5, 0.0)],
)
def test_parse_tokens_expires_in(value: Any, seconds: float) -> None:
    body = msgspec.json.encode({"access_token": "a", "expires_in": value})
    tokens = parse_tokens(Response(200, (), body))
    assert tokens.expires_in == seconds
    assert "access_token" not in repr(tokens)
    assert repr(Tokens("secret")) == "Tokens(expires_in=0.0)"


def test_with_query_adds_parameters() -> None:
    assert with_query("https://x/a", []) == "https://x/a"
    assert with_query("https://x/a?b=1", [("c", "d e")]) == "https://x/a?b=1&c=d+e"


# -- sessions


SESSIONS = st.builds(
    Session,
    provider=st.text(),
    created_at=st.floats(0, 1e10),
    access_token=st.text(max_size=50)
    | st.sampled_from(["aGVq.eyJ9.c2ln", "aGVq.eyJ9.c2lnx", "a.b", "..", "AAAA.AAAA"]),
    id_token=st.text(max_size=50),
    nonce=st.binary(max_size=40),
    user=st.text(),
    groups=st.lists(st.text()).map(tuple),
    claims=st.dictionaries(
        st.text(), st.none() | st.text() | st.lists(st.integers(0, 9))
    ),
)


@given(SESSIONS)
def test_session_record_round_trips(session: Session) -> None:
    assert decode_session(encode_session(session)) == session


@given(st.binary())
def test_decode_session_any_bytes_rejected(data: bytes) -> None:
    with pytest.raises(SealError):
        decode_session(data)


def test_ck13_decode_session_decompressed_size_limited() -> None:
    bomb = lz4.block.compress(b"\0" * (2 << 20))
    with pytest.raises(SealError, match="too large"):
        decode_session(bomb)
    with pytest.raises(SealError, match="layout"):
        decode_session(lz4.block.compress(msgspec.msgpack.encode([1, 2])))
    with pytest.raises(SealError):
        decode_session(lz4.block.compress(b"\x91" * 100_000))


def entry(name: bytes) -> SessionEntry:
    return SessionEntry(
        Session(user=name.decode()), name, SessionDeadlines(1.0, 1.0, 1.0, 1.0), 1.0
    )


def test_session_cache_bounded_and_keeps_used_entries() -> None:
    size = entry(b"0").size
    cache = SessionCache(6 * size)
    for number in range(20):
        cache.put(entry(b"%d" % number))
        assert len(cache) <= 6
        cache.get(b"0")
    assert cache.get(b"0") is not None
    assert cache.get(b"1") is None
    assert cache.get(b"19") is not None


def test_session_cache_admits_value_seen_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = SessionCache(1 << 20)
    cache.admit(entry(b"a"))
    assert cache.get(b"a") is None
    again = entry(b"a")
    cache.admit(again)
    assert cache.get(b"a") is again
    assert again.cached
    monkeypatch.setattr(session_cache, "MAX_CANDIDATES", 2)
    for name in (b"b", b"c", b"d"):  # the first two are evicted
        cache.admit(entry(name))
    cache.admit(entry(b"b"))
    assert cache.get(b"b") is None


def test_session_cache_drop_and_oversized_entry() -> None:
    cache = SessionCache(1 << 20)
    cache.put(entry(b"a"))
    cache.drop(b"a")
    cache.drop(b"unknown")
    assert cache.get(b"a") is None
    small = SessionCache(10)
    small.put(entry(b"a"))
    assert len(small) == 0


def test_login_state_repr_contains_no_secrets() -> None:
    state = LoginState(b"STATE", b"NONCE", "VERIFIER", "kc", "/rd", "https://x")
    assert repr(state) == "LoginState(provider='kc')"


def test_login_failure_of_unknown_error_has_default_message() -> None:
    failure = login_failure(AuthProxyError("something"))
    assert (failure.status, failure.message) == (500, DEFAULT)
    assert failure.event.reason == "internal_error"


@given(st.text())
def test_ou19_location_contains_no_control_characters(location: str) -> None:
    try:
        encoded = encode_location(location)
    except UnicodeEncodeError:
        return
    assert all(0x20 < byte < 0x7F for byte in encoded)


def test_redirect_target_with_space_encoded(harness: Harness) -> None:
    response = harness.log_in(rd="/a%20b")
    assert header(response, b"location") == b"/a%20b"


def test_sign_out_redirects_to_sign_in_page(harness: Harness) -> None:
    response = harness.get("/oauth2/sign_out?rd=/oauth2/sign_in%3Frd=/x")
    assert header(response, b"location") == b"/oauth2/sign_in?rd=/x"


def test_callback_with_too_long_state_rejected(harness: Harness) -> None:
    harness.start_login()
    long_state = "A" * (17 << 10)
    assert harness.get(f"/oauth2/callback?code=x&state={long_state}").status == 403


def test_read_cookies_and_parse_form_of_one_pair() -> None:
    assert read_cookies(((b"cookie", b"a=1"),)) == [(b"a", b"1")]
    assert parse_form(b"a=1") == {"a": "1"}


def test_header_injector_cache_bounded() -> None:
    injector = HeaderInjector((rule("X-User", "user"),))
    sessions = [Session(user=f"u{number}") for number in range(MAX_CACHED_SESSIONS + 2)]
    for _ in range(2):
        for session in sessions:
            assert injector.headers(session) == ((b"x-user", session.user.encode()),)
    assert injector.headers(sessions[-1]) is injector.headers(sessions[-1])
