"""Targets that read what browsers send: cookies, sealed values, forms, forwarded fields."""

from __future__ import annotations

import contextlib
import hmac
import math
from urllib.parse import urlencode, urlsplit

import lz4.block
import lz4.frame
import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authproxy_core.encoding import b64url, b64url_padded, is_token
from authproxy_core.errors import LoginStateError, RequestError, SealError
from authproxy_core.login.redirects import RedirectPolicy
from authproxy_core.login.state import LoginStates
from authproxy_core.messages import Header, Request
from authproxy_core.oidc.jwt import hash_nonce
from authproxy_core.request.authorization import Basic, Bearer, basic_of, bearer_of
from authproxy_core.request.forms import (
    constraints,
    parameter_names,
    parse_form,
    parse_query,
)
from authproxy_core.request.hosts import listed_hosts
from authproxy_core.request.original import TrustedProxies, parse_address
from authproxy_core.session import Session
from authproxy_core.sessions.codec import decode_session, encode_session
from authproxy_core.sessions.cookies import (
    MAX_CANDIDATES,
    MAX_COOKIES,
    candidate_values,
    first_cookie_value,
    join_cookie_parts,
    login_cookie_name,
    read_cookies,
)
from authproxy_core.sessions.formats import SessionFormats
from authproxy_core.sessions.oauth2_proxy_format import (
    OAuth2ProxyFormat,
    Ticket,
    read_stored_session,
    write_stored_session,
)
from authproxy_core.sessions.sealing import Sealer
from support.harness import SECRET, START, Clock, settings

from .target import Target

NAME = b"_oauth2_proxy"
NONCE = bytes(12)
SETTINGS = settings(
    reverse_proxy=True,
    real_client_ip_header="X-Forwarded-For",
    whitelist_domains=(".example.org", "other.example:8443", "[2001:db8::1]:*"),
)
SESSION = Session(
    provider="keycloak",
    created_at=START,
    login_at=START,
    expires_at=START + 300.5,
    access_token="eyJh.eyJi.c2ln",
    id_token="eyJh.eyJi.c2ln",
    refresh_token="refresh",
    nonce=b"n" * 32,
    user="alice",
    email="alice@example.com",
    groups=("admins", "staff"),
    preferred_username="alice",
    claims={"roles": ["admin"], "n": {"a": 1.5}},
    sid="sid",
)
RECORD = encode_session(SESSION)
TICKET = Ticket("_oauth2_proxy-" + "0" * 32, bytes(32))
STORED = write_stored_session(TICKET, SESSION, nonce=NONCE)
MAP = AESGCM(TICKET.secret).decrypt(STORED[:12], STORED[12:], None)
_clock = Clock()
_formats = SessionFormats(SETTINGS, clock=_clock, random_bytes=bytes)
_oauth2_proxy = OAuth2ProxyFormat((SECRET,), NAME.decode())
_sealer = Sealer((SECRET,))


def cookies(data: bytes) -> None:
    """Read Cookie fields, one a line, and join the parts of the session cookie."""
    headers = [(b"cookie", line) for line in data.split(b"\n")]
    pairs = read_cookies(headers)
    assert len(pairs) <= MAX_COOKIES
    for name, value in pairs:
        assert is_token(name), name
        assert b";" not in value, value
        login_cookie_name(name)
    candidates = candidate_values(pairs, NAME, 10)
    assert len(candidates) <= MAX_CANDIDATES
    joined = join_cookie_parts(pairs, NAME, 10)
    assert joined is None or joined in candidates
    first_cookie_value(headers, NAME + b"=")


def sealed_value(data: bytes) -> None:
    """Read a session cookie and a stored value; only the seeds are valid."""
    for read in (
        lambda: _formats.read(data),
        lambda: _formats.unseal_stored(TICKET, data),
        lambda: _formats.unseal_record("key", data),
    ):
        try:
            read()
        except SealError:
            continue
        assert data in SEALED, data


def session_record(data: bytes) -> None:
    """Read a record under a valid seal; a second encoding reads alike."""
    for record in (data, lz4.block.compress(data)):
        try:
            session = decode_session(record)
        except SealError:
            continue
        again = decode_session(encode_session(session))
        assert repr(msgspec.to_builtins(again)) == repr(msgspec.to_builtins(session))


def _signed(payload: bytes) -> bytes:
    """Return a cookie of oauth2-proxy with a valid signature."""
    text, digits = b64url_padded(payload), b"%010d" % int(START)
    digest = hmac.digest(SECRET.value, NAME + text + digits, "sha256")
    return b"|".join((text, digits, b64url_padded(digest)))


def oauth2_proxy_record(data: bytes) -> None:
    """Read tickets, frames and maps under a valid seal; a written map reads alike."""
    for payload in (data, bytes(16) + data):
        with contextlib.suppress(SealError):
            _formats.read(_signed(payload))
    sealed = NONCE + AESGCM(TICKET.secret).encrypt(NONCE, data, None)
    session = read_stored_session(TICKET, sealed, created_at=0.0)
    assert math.isfinite(session.created_at)
    assert math.isfinite(session.expires_at)
    stored = write_stored_session(TICKET, session, nonce=NONCE)
    assert read_stored_session(TICKET, stored, created_at=0.0).user == session.user


def login_state(data: bytes) -> None:
    """Consume login states: foreign bytes as parameter, as cookie, and sealed in it."""
    state = hash_nonce(b"s" * 32)
    name = NAME + b"_" + state[:8] + b"_csrf"
    sealed = _sealer.seal(b"login:" + name, data, issued_at=START, nonce=NONCE)
    text = data.decode("utf-8", "replace")
    for value, parameter in (
        (sealed, state.decode()),
        (data, state.decode()),
        (data, text),
    ):
        states = LoginStates(
            SETTINGS, provider_ids=("keycloak",), clock=_clock, random_bytes=bytes
        )
        states.restart_target(parameter)
        try:
            states.consume([(b"cookie", name + b"=" + value)], parameter, host="a")
        except LoginStateError:
            continue
        assert b"s" * 32 in data or value in SEALED


def form(data: bytes) -> None:
    """Parse a query and a form; the accepted pairs survive an encoding."""
    constraints(data, ("allowed_groups", "a"))
    parameter_names(data)
    pairs = parse_query(data)
    assert parse_query(urlencode(pairs).encode()) == pairs
    query, _, body = data.partition(b"\n")
    parse_form(query, body)


_policy = RedirectPolicy(SETTINGS)
_listed = listed_hosts(SETTINGS.whitelist_domains)


def redirect_target(data: bytes) -> None:
    """Check a redirect target; browsers must find an allowed host in it."""
    target = data.decode("utf-8", "surrogateescape")
    host = "app.example.com"
    if _policy.allows(target, host):
        _check_host(target)
    request = Request(
        b"GET", b"/", [(b"host", host.encode()), (b"x-auth-request-redirect", data)], ""
    )
    original = _trust.original(request)
    _check_host(_policy.choose(request, original, {"rd": target}))
    listed_hosts([target])


def _check_host(target: str) -> None:
    """Assert that *target*, read as WHATWG URL does, leads to no other host."""
    text = target.translate({9: None, 10: None, 13: None}).replace("\\", "/")
    if text.startswith("/"):
        assert not text.startswith("//"), target
        return
    parts = urlsplit(text)
    assert parts.scheme in ("http", "https"), target
    assert "@" not in parts.netloc, target
    name = parts.hostname or ""
    name = f"[{name}]" if ":" in name else name
    port = parts.netloc.lower().removeprefix(name).removeprefix(":")
    assert any(one.matches(name, port) for one in _listed), target


_trust = TrustedProxies(SETTINGS)


def forwarded_fields(data: bytes) -> None:
    """Read the original request of header lines; the target is the first line."""
    target, *lines = data.split(b"\n")
    headers: list[Header] = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value))
    request = Request(b"GET", target, headers, "10.0.0.1")
    for address in (_trust.client(request), _trust.client_for_rules(request)):
        assert not address or parse_address(address) is not None, address
    _trust.host(request)
    for original in (_trust.original(request), _trust.original_for_auth(request)):
        assert original.uri[:1] == b"/", original.uri
        assert is_token(original.method), original.method
        assert original.host.isascii(), original.host
        _trust.is_contradicted(request, original)


def authorization(data: bytes) -> None:
    """Read the Authorization field."""
    found = basic_of(data)
    if isinstance(found, Basic):
        assert found.user.isprintable(), found.user
    bearer = bearer_of(data)
    if isinstance(bearer, Bearer):
        assert bearer.token.count(".") == 2, bearer.token


def _seal(purpose: bytes, payload: bytes, secret: bytes = b"") -> bytes:
    return _sealer.seal(purpose, payload, issued_at=START, nonce=NONCE, secret=secret)


SEALED = (
    _formats.write_session(SESSION),
    _formats.write_ticket(TICKET, START),
    _oauth2_proxy.write_session(SESSION, iv=bytes(16)),
    _oauth2_proxy.write_ticket(TICKET, created_at=START),
    _formats.seal_stored(TICKET, SESSION),
    STORED,
    _formats.seal_record("key", b"note"),
)
LOGIN = msgspec.msgpack.encode(
    ((b"s" * 32, b"n" * 32, "verifier", "keycloak", "/rd", "", False, None), b"")
)
COMPRESSED_LOGIN = msgspec.msgpack.encode(
    (
        (b"s" * 32, b"n" * 32, "verifier", "keycloak", "", "", False, None),
        lz4.block.compress(b"/" + b"a" * 2000),
    )
)

TARGETS = (
    Target(
        "cookies",
        cookies,
        (),
        (
            b'a=b; _oauth2_proxy=x|1|y; c="d"',
            b"_oauth2_proxy_0=a; _oauth2_proxy_1=b;_oauth2_proxy_0=c\n_oauth2_proxy_2=d",
            b"_oauth2_proxy_abcdefgh_csrf_0=a; =b; c; d=\x80; e=,",
        ),
    ),
    Target("sealed_value", sealed_value, (), SEALED),
    Target(
        "session_record",
        session_record,
        (SealError,),
        (RECORD, lz4.block.decompress(RECORD)),
    ),
    Target(
        "oauth2_proxy_record",
        oauth2_proxy_record,
        (SealError,),
        (
            MAP,
            lz4.frame.compress(MAP),
            b"v2." + b64url(TICKET.id.encode()) + b"." + b64url(bytes(32)),
            b"\x82\xa2ca\xc7\x0c\xff" + bytes(12) + b"\xa2eo\xd6\xff\0\0\0\1",
            b"\x81\xa2eo\xc7\x0c\xff" + bytes(4) + b"\x7f" + b"\xff" * 7,
            b"\x82\xa1g\x92\xc4\x01a\xc0\xa2ac\x81\xa1n\x91\x01",
        ),
    ),
    Target(
        "login_state", login_state, (), (LOGIN, COMPRESSED_LOGIN, hash_nonce(b"s" * 32))
    ),
    Target(
        "form",
        form,
        (RequestError,),
        (
            b"rd=%2Fa%3Fb&x=1;allowed_groups=a,b",
            b"code=a+b&state=c\nusername=alice&password=%C3%A4",
            b"%61llowed_groups=&&=a&a",
        ),
    ),
    Target(
        "redirect_target",
        redirect_target,
        (RequestError,),
        (
            b"/a/../b?c=https://evil.example/#d",
            b"https://www.example.org/x",
            b"https://other.example:8443/",
            b"http://[2001:db8::1]:80/",
            b"/%2f%2e%2e/%252fevil.example\\",
            b"/oauth2/start?rd=%2Foauth2%2Fsign_in%3Frd%3D%252Fa",
            b"https://app.example.com/\t/evil.example",
        ),
    ),
    Target(
        "forwarded_fields",
        forwarded_fields,
        (RequestError,),
        (
            b"/oauth2/auth\nHost:a\nX-Forwarded-Host:app.example.com:443\n"
            b"X-Forwarded-Uri:/x?y\nX-Forwarded-Proto:https\nX-Forwarded-Method:PUT",
            b"/a\nhost:[::1]:80\nX-Forwarded-For: 192.0.2.1:80, [2001:db8::1]:1, 10.0.0.2",
            b"/a?b\nhost:a\nX-Original-Url:https://app.example.com/b?c\n"
            b"X-Original-Method:GET\nX-Envoy-Original-Path:/b?c",
        ),
    ),
    Target(
        "authorization",
        authorization,
        (),
        (
            b"Basic YWxpY2U6cHc=",
            b"Bearer eyJh.eyJi.c2ln",
            b"Basic ZXlKaC5leUppLmMybG46eC1vYXV0aC1iYXNpYw==",
        ),
    ),
)
