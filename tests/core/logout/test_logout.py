"""Back-channel and front-channel logout."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from authproxy_core import (
    Add,
    Delete,
    Respond,
    SessionSettings,
)
from authproxy_core.errors import TokenError
from authproxy_core.oidc.jwt import ExpectedClaims, unverified_claims
from authproxy_core.oidc.logout_token import LOGOUT_EVENT, check_logout_token
from authproxy_core.settings.root import LogoutSettings
from support.fleet import Fleet, Process
from support.harness import (
    ISSUER,
    START,
    Harness,
    header,
    headers,
    keep_cookies,
    settings,
)

NAME = b"_oauth2_proxy"
FORM = (b"content-type", b"application/x-www-form-urlencoded")
CHANNELS = LogoutSettings(back_channel=True, front_channel=True)
KINDS = {
    "ticket": SessionSettings(shared=True, backend="store"),
    "cookie": SessionSettings(shared=True, revocable=True),
}


kinds = pytest.mark.parametrize("kind", list(KINDS))


class Scene:
    """Two processes with two sessions of alice and one of bob."""

    def __init__(self, kind: str, **changes: Any) -> None:
        self.configured = settings(sessions=KINDS[kind], logout=CHANNELS, **changes)
        self.fleet = Fleet(self.configured)
        self.idp = self.fleet.idp
        self.jars: dict[str, dict[bytes, bytes]] = {}
        self.sessions: dict[str, Any] = {}
        for name in ("alice", "alice-again", "bob"):
            jar: dict[bytes, bytes] = {}
            self.fleet.clock.now += 1
            self.fleet[0].log_in(name.partition("-")[0], jar)
            self.jars[name] = jar
            entry = self.fleet[0].proxy._sessions.parse_cookie(jar[NAME])
            loaded = self.fleet[0].run(self.fleet[0].proxy._sessions.load(entry))
            self.sessions[name] = loaded.session
        self.fleet.clock.now += 1

    def sid(self, name: str) -> str:
        sid: str = self.sessions[name].sid
        return sid

    def valid_sessions(self) -> set[str]:
        found = [
            {
                name
                for name, jar in self.jars.items()
                if process.get("/oauth2/auth", jar=dict(jar)).status == 202
            }
            for process in self.fleet.processes
        ]
        assert all(one == found[0] for one in found)
        return found[0]

    def post(self, body: bytes, *more: Any, number: int = 0) -> Respond:
        """Post *body* to the back-channel endpoint, as the provider does."""
        process = self.fleet[number]
        process.harness.body = body
        request = process.harness.request(
            "/oauth2/backchannel-logout", *(more or (FORM,)), method=b"POST", jar={}
        )
        response = process.run(process.proxy.handle(request))
        assert isinstance(response, Respond)
        assert header(response, b"cache-control") == b"no-store"
        return response

    def send(self, token: str, number: int = 0) -> Respond:
        return self.post(b"logout_token=" + token.encode(), number=number)


# -- back-channel logout


@kinds
def test_lo11_logout_token_with_sub_revokes_all_sessions(kind: str) -> None:
    scene = Scene(kind)
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}
    response = scene.send(scene.idp.logout_token("alice"))
    assert response.status == 200
    assert response.body == b""
    assert [event.kind for event in response.events] == ["logged_out_by_provider"]
    assert scene.valid_sessions() == {"bob"}


@kinds
def test_lo11_logout_token_with_sid_revokes_one_session(kind: str) -> None:
    scene = Scene(kind)
    token = scene.idp.logout_token("", sid=scene.sid("alice"))
    assert scene.send(token, number=1).status == 200
    assert scene.valid_sessions() == {"alice-again", "bob"}
    both = scene.idp.logout_token("bob", sid=scene.sid("bob"))
    assert scene.send(both).status == 200
    assert scene.valid_sessions() == {"alice-again"}


@kinds
def test_lo19_logout_token_with_sid_and_sub_requires_both(kind: str) -> None:
    scene = Scene(kind)
    token = scene.idp.logout_token("bob", sid=scene.sid("alice"))
    assert scene.send(token).status == 200
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


@kinds
def test_login_after_logout_token_creates_valid_session(kind: str) -> None:
    scene = Scene(kind)
    scene.send(scene.idp.logout_token("alice"))
    scene.fleet.clock.now += 1
    scene.fleet[0].log_in("alice", scene.jars["alice"])
    assert scene.valid_sessions() == {"alice", "bob"}


@kinds
def test_clock_set_back_keeps_sessions_until_they_are_revoked(kind: str) -> None:
    """Logins of a clock that was an hour ahead seem to be later than their revocation."""
    scene = Scene(kind)
    scene.fleet.clock.now -= 3600
    scene.fleet.processes[:] = [
        Process(scene.fleet, scene.configured, trusting=True) for _ in range(2)
    ]
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}
    assert scene.send(scene.idp.logout_token("alice")).status == 200
    assert scene.valid_sessions() == {"bob"}
    scene.fleet.clock.now += 1
    scene.fleet[0].log_in("alice", scene.jars["alice"])
    assert scene.valid_sessions() == {"alice", "bob"}


@kinds
def test_lo17_logout_token_replay_rejected(kind: str) -> None:
    scene = Scene(kind)
    token = scene.idp.logout_token("alice")
    assert scene.send(token).status == 200
    scene.fleet.clock.now += 1
    scene.fleet[0].log_in("alice", scene.jars["alice"])
    for number in (0, 1):
        response = scene.send(token, number=number)
        assert response.status == 400
        assert response.events[0].reason == "replay"
    assert scene.valid_sessions() == {"alice", "bob"}
    other = scene.idp.logout_token("alice", jti="x" * 257)
    assert scene.send(other).status == 400


BAD: dict[str, dict[str, Any]] = {
    "LO13 nonce": {"nonce": "n"},
    "LO14 no events": {"events": None},
    "LO14 other event": {"events": {"http://other": {}}},
    "LO14 no object": {"events": {LOGOUT_EVENT: True}},
    "LO14 text": {"events": LOGOUT_EVENT},
    "LO16 issuer": {"iss": "https://evil.example.com"},
    "LO16 no issuer": {"iss": None},
    "LO16 issuer of another kind": {"iss": [ISSUER]},
    "LO16 audience": {"aud": "other"},
    "LO16 no audience": {"aud": None},
    "LO16 expired": {"exp": int(START) - 100},
    "LO16 no exp": {"exp": None},
    "LO16 exp of another kind": {"exp": "never"},
    "LO16 no iat": {"iat": None},
    "LO16 old iat": {"iat": int(START) - 3600},
    "LO16 future iat": {"iat": int(START) + 3600},
    "LO17 no jti": {"jti": None},
    "neither sub nor sid": {"sub": None},
    "LO20 sub": {"sub": "x" * 10_000},
    "LO20 control": {"sub": "a\r\nb"},
    "sid of another kind": {"sid": 7},
}


@kinds
@pytest.mark.parametrize("name", list(BAD))
def test_lo13_lo14_lo16_lo17_lo20_invalid_logout_token_revokes_nothing(
    kind: str, name: str
) -> None:
    scene = Scene(kind)
    response = scene.send(scene.idp.logout_token("alice", **BAD[name]))
    assert response.status == 400
    assert header(response, b"content-type") == b"application/json"
    document = orjson.loads(response.body)
    assert document["error"] == "invalid_request"
    assert [event.kind for event in response.events] == ["logout_refused"]
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


@pytest.mark.parametrize("subject", ["*", "_oauth2_proxy-index:all", "all"])
def test_lo20_logout_token_subject_looked_up_verbatim(subject: str) -> None:
    scene = Scene("ticket")
    assert scene.send(scene.idp.logout_token("", sub=subject)).status == 200
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


def test_lo16_logout_token_signature_verified() -> None:
    scene = Scene("ticket")
    valid = scene.idp.logout_token("alice")
    head, body, signature = valid.split(".")
    none = "eyJhbGciOiJub25lIn0"
    for token in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-8]}AAAAAAAA",
        f"{head}.{body}.AAAA",
        valid + "x",
        "a.b.c",
        "",
    ):
        assert scene.send(token).status == 400
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


def test_id_token_as_logout_token_rejected() -> None:
    scene = Scene("cookie")
    assert scene.send(scene.sessions["alice"].id_token).status == 400
    assert scene.send(scene.sessions["alice"].access_token).status == 400


@pytest.mark.parametrize("typ", ["at+jwt", "secevent+jwt", "logout+jwt"])
def test_logout_token_with_other_type_rejected(typ: str) -> None:
    scene = Scene("ticket")
    claims = unverified_claims(scene.idp.logout_token("alice"))
    token = scene.idp.tokens.keys.sign(claims, "RS256", {"typ": typ})
    valid = typ == "logout+jwt"
    assert scene.send(token).status == (200 if valid else 400)
    assert ("alice" in scene.valid_sessions()) is not valid


def test_lo22_malformed_logout_token_causes_no_key_fetch() -> None:
    scene = Scene("ticket")
    scene.idp.requests.clear()
    scene.fleet.harness.clock.now += 60
    for _ in range(20):
        token = scene.idp.logout_token("alice", aud="other")
        assert scene.send(token).status == 400
    assert scene.idp.count("jwks") == 0
    scene.idp.rotate_keys(keep_old=False)
    other_provider = Harness(ready=False, new_keys=True).idp
    for _ in range(20):
        assert scene.send(other_provider.logout_token("alice")).status == 400
    assert scene.idp.count("jwks") <= 1


@kinds
@pytest.mark.parametrize("number", [0, 1])
def test_logout_token_of_another_algorithm_than_sessions_rejected(
    kind: str, number: int
) -> None:
    """Also in a process that has verified no ID token."""
    scene = Scene(kind)
    scene.idp.config.signing_alg = "ES256"
    response = scene.send(scene.idp.logout_token("alice"), number)
    assert response.status == 400
    [event] = response.events
    assert event.reason == "algorithm"
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}
    scene.idp.config.signing_alg = "RS256"
    assert scene.send(scene.idp.logout_token("alice"), number).status == 200
    assert scene.valid_sessions() == {"bob"}


@kinds
def test_logout_token_after_change_of_algorithm_accepted(kind: str) -> None:
    """The sessions have both algorithms then."""
    scene = Scene(kind)
    scene.idp.config.signing_alg = "ES256"
    scene.fleet[0].log_in("bob", scene.jars["bob"])
    scene.fleet.clock.now += 1
    assert scene.send(scene.idp.logout_token("alice"), 1).status == 200
    assert scene.valid_sessions() == {"bob"}


def test_logout_token_without_sessions_may_have_any_advertised_algorithm() -> None:
    fleet = Fleet(settings(sessions=KINDS["cookie"], logout=CHANNELS))
    fleet.idp.config.signing_alg = "ES256"
    fleet.harness.body = b"logout_token=" + fleet.idp.logout_token("alice").encode()
    request = fleet.harness.request("/oauth2/backchannel-logout", FORM, method=b"POST")
    assert fleet[0].run(fleet[0].proxy.handle(request)).status == 200


@kinds
def test_logout_token_configured_algorithms_count(kind: str) -> None:
    scene = Scene(kind, provider={"signing_algs": ("RS256", "ES256")})
    scene.idp.config.signing_alg = "ES256"
    assert scene.send(scene.idp.logout_token("alice"), 1).status == 200
    assert scene.valid_sessions() == {"bob"}


def test_algorithm_of_sessions_saved_once_per_period() -> None:
    """It outlives the sessions, and costs no store operation per login."""
    scene = Scene("cookie")
    adds = scene.fleet.store.count(Add)
    assert adds == 1
    scene.fleet[0].log_in("bob", {})
    assert scene.fleet.store.count(Add) == adds
    scene.fleet.clock.now += 7 * 86400
    scene.fleet[0].log_in("bob", {})
    assert scene.fleet.store.count(Add) == adds + 1


def test_forged_logout_tokens_cause_no_store_operation() -> None:
    scene = Scene("cookie")
    scene.fleet.store.seen.clear()
    token = scene.idp.logout_token("alice")
    for forged in ("a.b.c", token[:-8] + "AAAAAAAA"):
        assert scene.send(forged).status == 400
    assert not scene.fleet.store.seen


def test_logout_token_with_rotated_key_fetches_keys() -> None:
    scene = Scene("ticket")
    scene.idp.rotate_keys()
    scene.fleet.clock.now += 60
    assert scene.send(scene.idp.logout_token("alice")).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", FORM),
        (b"other=1", FORM),
        (b"logout_token=", FORM),
        (b"logout_token=a&logout_token=b", FORM),
        (b"logout_token=%ff", FORM),
        (b"logout_token=TOKEN", (b"content-type", b"application/json")),
        (b"logout_token=TOKEN", (b"content-type", b"")),
    ],
)
def test_back_channel_requires_posted_form(
    body: bytes, field: tuple[bytes, bytes]
) -> None:
    scene = Scene("ticket")
    token = scene.idp.logout_token("alice").encode()
    assert scene.post(body.replace(b"TOKEN", token), field).status == 400
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


def test_back_channel_other_methods_and_queries_rejected() -> None:
    scene = Scene("ticket")
    token = scene.idp.logout_token("alice")
    target = f"/oauth2/backchannel-logout?logout_token={token}"
    response = scene.fleet[0].get(target, jar={})
    assert response.status == 405
    assert header(response, b"allow") == b"POST"
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


@kinds
def test_back_channel_after_store_failure_can_be_retried(kind: str) -> None:
    scene = Scene(kind)
    token = scene.idp.logout_token("alice")
    scene.fleet.store.away = True
    response = scene.send(token)
    assert response.status == 400
    assert orjson.loads(response.body)["error"] == "logout_failed"
    scene.fleet.store.away = False
    scene.fleet.store.failing = lambda effect: type(effect) in (Delete, Add)
    scene.send(token)
    scene.fleet.store.failing = lambda effect: False
    if kind == "ticket":
        assert scene.send(token).status == 200
    assert scene.valid_sessions() == {"bob"}


def test_back_channel_before_discovery_unavailable() -> None:
    configured = settings(sessions=KINDS["ticket"], logout=CHANNELS)
    harness = Harness(configured, ready=False)
    harness.body = b"logout_token=" + harness.idp.logout_token("alice").encode()
    response = harness.get("/oauth2/backchannel-logout", FORM, method=b"POST")
    assert response.status == 503
    assert response.events[0].reason == "keys_unavailable"


def test_logout_endpoints_disabled_by_default() -> None:
    harness = Harness(settings(sessions=KINDS["ticket"]))
    for path in ("/oauth2/backchannel-logout", "/oauth2/frontchannel-logout"):
        response = harness.get(path, FORM, method=b"POST")
        assert response.status == 403  # the sign-in page


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = ("iss", "aud", "iat", "exp", "sub", "sid", "jti", "events", "nonce")


@given(st.dictionaries(st.sampled_from(NAMES), json))
@budget(max_examples=200)
def test_logout_token_with_any_claims_handled(changes: dict[str, Any]) -> None:
    valid = {
        "iss": ISSUER,
        "aud": "web",
        "iat": START,
        "exp": START + 60,
        "sub": "s",
        "jti": "j",
        "events": {LOGOUT_EVENT: {}},
    }
    expected = ExpectedClaims(issuer=ISSUER, client_id="web")
    try:
        found = check_logout_token(valid | changes, expected, START)
    except TokenError:
        return
    assert found.subject or found.sid
    assert found.jti


# -- front-channel logout


def load_front_channel(
    scene: Scene, name: str, query: str, *fields: Any, method: bytes = b"GET"
) -> Respond:
    process, jar = scene.fleet[0], scene.jars[name]
    request = process.harness.request(
        f"/oauth2/frontchannel-logout?{query}", *fields, method=method, jar=jar
    )
    response = process.run(process.proxy.handle(request))
    assert isinstance(response, Respond)
    keep_cookies(jar, response)
    return response


IFRAME = (b"sec-fetch-dest", b"iframe")


@kinds
@pytest.mark.parametrize("fields", [(), (IFRAME,)])
def test_front_channel_without_iss_and_sid_ends_session_of_cookie(
    kind: str, fields: Any
) -> None:
    """A provider may leave out both (Front-Channel Logout §3)."""
    scene = Scene(kind)
    copy = dict(scene.jars["alice"])
    response = load_front_channel(scene, "alice", "", *fields)
    assert response.status == 200
    assert [event.kind for event in response.events] == ["logged_out"]
    assert not scene.jars["alice"]
    scene.jars["alice"] = copy
    assert scene.valid_sessions() == {"alice-again", "bob"}


@kinds
@pytest.mark.parametrize(
    ("destination", "method"),
    [
        (b"image", b"GET"),
        (b"script", b"GET"),
        (b"empty", b"GET"),
        (b"document", b"GET"),
        (b"iframe", b"POST"),
        (b"iframe", b"HEAD"),
    ],
)
def test_front_channel_without_iss_and_sid_needs_iframe(
    kind: str, destination: bytes, method: bytes
) -> None:
    """An image in a page of another site must not end sessions."""
    scene = Scene(kind)
    field = (b"sec-fetch-dest", destination)
    response = load_front_channel(scene, "alice", "x=1", field, method=method)
    assert response.status == 400
    assert not headers(response, b"set-cookie")
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


def test_front_channel_without_iss_and_sid_ends_twin_sessions() -> None:
    scene = Scene("cookie")
    jars = [scene.jars[name] for name in ("alice", "alice-again")]
    both = b"; ".join(NAME + b"=" + jar[NAME] for jar in jars)
    process = scene.fleet[0]
    request = process.harness.request(
        "/oauth2/frontchannel-logout", (b"cookie", both), jar={}
    )
    response = process.run(process.proxy.handle(request))
    assert response.status == 200
    assert scene.valid_sessions() == {"bob"}


@kinds
def test_front_channel_revokes_session_of_browser(kind: str) -> None:
    scene = Scene(kind)
    copy = dict(scene.jars["alice"])
    response = load_front_channel(
        scene, "alice", f"iss={ISSUER}&sid={scene.sid('alice')}"
    )
    assert response.status == 200
    assert not scene.jars["alice"]
    policy = header(response, b"content-security-policy")
    assert policy == b"default-src 'none'; frame-ancestors https://idp.example.com"
    assert not headers(response, b"x-frame-options")
    assert b"no-store" in header(response, b"cache-control")
    scene.jars["alice"] = copy
    assert scene.valid_sessions() == {"alice-again", "bob"}


@kinds
@pytest.mark.parametrize(
    "query",
    [
        "iss=",
        "iss=ISS",
        "sid=SID",
        "iss=ISS&sid=other",
        "iss=https://evil.example.com&sid=SID",
        "iss=ISS&sid=BOB",
        "iss=ISS&sid=",
    ],
)
def test_front_channel_with_other_session_rejected(kind: str, query: str) -> None:
    scene = Scene(kind)
    query = query.replace("ISS", ISSUER).replace("SID", scene.sid("alice"))
    query = query.replace("BOB", scene.sid("bob"))
    response = load_front_channel(scene, "alice", query)
    assert response.status == 400
    assert not headers(response, b"set-cookie")
    assert scene.valid_sessions() == {"alice", "alice-again", "bob"}


def test_front_channel_without_session_rejected() -> None:
    scene = Scene("ticket")
    scene.jars["carol"] = {}
    query = f"iss={ISSUER}&sid={scene.sid('alice')}"
    assert load_front_channel(scene, "carol", query).status == 400
    scene.fleet.store.values.clear()
    scene.fleet[0].proxy.store_changed(None)
    assert load_front_channel(scene, "alice", query).status == 400


def test_front_channel_before_discovery_forbids_framing() -> None:
    configured = settings(sessions=KINDS["ticket"], logout=CHANNELS)
    response = Harness(configured, ready=False).get("/oauth2/frontchannel-logout")
    policy = header(response, b"content-security-policy")
    assert policy == b"default-src 'none'; frame-ancestors 'none'"
