"""Regression tests for defects that a second code review found."""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

import pytest

from authproxy_core import Forward, SessionSettings, UpstreamSettings
from authproxy_core.sessions.index import SessionIndex
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.root import LogoutSettings, Secret
from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings
from support.fleet import Fleet
from support.harness import (
    Harness,
    keep_cookies,
    provider_settings,
    settings,
    target_of,
    with_changes,
)

FORM = (b"content-type", b"application/x-www-form-urlencoded")
HASH = Secret(b"{SHA}" + base64.b64encode(hashlib.sha1(b"pw").digest()))
APP = UpstreamSettings(id="app", path="/", uri="http://up:80")
API = UpstreamSettings(
    id="api", path="^/api/(.*)$", uri="http://up:80", rewrite_target="/$1"
)


def guarded(**when: Any) -> RuleSettings:
    """A rule for /api/admin/ that requires a group without members."""
    condition = Condition(groups=("no-such-group",), **when)
    return RuleSettings(
        rules=(AccessRule(name="admin", paths=("/api/admin/",), when=condition),)
    )


@pytest.mark.parametrize(
    "path",
    [
        "/api/admin",
        "/api/admin/x",
        "/api/admin%3F",
        "/api/admin%3Fx=1",
        "/api/admin%253Fx",
        "/api/admin%23x",
        "/api/admin%00x",
        "/api%EF%BC%8Fadmin/x",
    ],
)
def test_access_rule_matches_rewritten_path(path: str) -> None:
    harness = Harness(settings(access=guarded(), upstreams=(API, APP)))
    harness.log_in("bob")
    assert not isinstance(harness.send(path), Forward)


@pytest.mark.parametrize("method", [b"POST", b"post", b"Post"])
def test_access_rule_method_is_case_insensitive(method: bytes) -> None:
    harness = Harness(settings(access=guarded(methods=("POST",)), reverse_proxy=True))
    harness.log_in("bob")
    response = harness.get(
        "/oauth2/auth",
        (b"x-forwarded-method", method),
        (b"x-forwarded-uri", b"/api/admin/x"),
        (b"x-forwarded-proto", b"https"),
        peer="10.0.0.1",
    )
    assert response.status == 403


@pytest.mark.parametrize("kind", ["cookie", "store"])
@pytest.mark.parametrize("name", ["ann", "alice", "alice@example.com"])
def test_revoke_by_any_name_of_user(kind: str, name: str) -> None:
    life = SessionSettings(shared=True, backend=kind, revocable=kind == "cookie")
    given = settings(sessions=life, credentials=CredentialSettings(users={"ann": HASH}))
    fleet = Fleet(given)
    fleet.clock.now += 1
    jar: dict[bytes, bytes] = {}
    if name == "ann":
        fleet.harness.body = b"username=ann&password=pw"
        form = fleet.harness.request("/oauth2/sign_in", FORM, method=b"POST", jar={})
        keep_cookies(jar, fleet[0].run(fleet[0].proxy.handle(form)))
    else:
        fleet[0].log_in("alice", jar)
    assert fleet[1].get("/oauth2/auth", jar=dict(jar)).status == 202
    fleet.clock.now += 1
    index = SessionIndex(
        given, clock=fleet.clock, random_bytes=random.Random(5).randbytes
    )
    fleet[1].run(index.revoke(user=name))
    for process in fleet.processes:
        assert process.get("/oauth2/auth", jar=dict(jar)).status == 401


@pytest.mark.parametrize("reverse", [False, True])
def test_logout_token_checked_against_named_client(reverse: bool) -> None:
    providers = [
        provider_settings(id="other", client_id="other-client"),
        provider_settings(id="keycloak"),
    ]
    given = with_changes(
        settings(
            sessions=SessionSettings(shared=True, backend="store"),
            logout=LogoutSettings(back_channel=True),
        ),
        providers=tuple(reversed(providers) if reverse else providers),
    )
    fleet = Fleet(given)
    fleet.harness.body = b"logout_token=" + fleet.idp.logout_token("alice").encode()
    request = fleet.harness.request(
        "/oauth2/backchannel-logout", FORM, method=b"POST", jar={}
    )
    assert fleet[0].run(fleet[0].proxy.handle(request)).status == 200


@pytest.mark.parametrize("kind", ["cookie", "store"])
def test_evicted_entries_are_not_tracked(kind: str) -> None:
    life = SessionSettings(shared=True, backend=kind, revocable=True)
    fleet = Fleet(settings(sessions=life, session_cache_bytes=100_000))
    for _ in range(60):
        jar: dict[bytes, bytes] = {}
        fleet[0].log_in("alice", jar)
        for _ in range(2):
            assert fleet[0].get("/oauth2/auth", jar=jar).status == 202
    tracker = fleet[0].proxy._sessions._invalidation
    sizes = [len(group.members) for group in tracker._dependents.values()]
    assert max(sizes) <= len(fleet[0].proxy._sessions._cache) < 30


def test_signed_request_strips_forged_gap_fields() -> None:
    harness = Harness(
        settings(
            upstreams=(APP,),
            signature_key=Secret(b"sha256:key"),
            strip_identity_headers=False,
        )
    )
    harness.log_in()
    forged = (
        (b"gap-auth", b"admin"),
        (b"gap_auth", b"admin"),
        (b"gap-signature", b"z"),
    )
    decision = harness.send("/", *forged)
    assert isinstance(decision, Forward)
    values = [
        v for n, v in decision.headers if n.replace(b"_", b"-").startswith(b"gap-")
    ]
    assert len(values) == 2
    assert values[0] == b"alice@example.com"


def test_identify_rejected_credentials_returns_none() -> None:
    given = CredentialSettings(jwt_bearer_tokens=True, bearer_login_fallback=False)
    harness = Harness(settings(credentials=given))
    request = harness.request("/", (b"authorization", b"Bearer nope"))
    assert harness.run(harness.proxy.identify(request)) is None


def test_callback_in_new_process_waits_for_provider() -> None:
    harness = Harness()
    url = harness.idp.log_in(harness.start_login("/deep"), "alice")
    harness.proxy = harness.new_proxy(harness.settings)
    assert not harness.proxy.ready
    response = harness.get(target_of(url))
    assert response.status == 302
    assert harness.get("/oauth2/auth").status == 202


def test_public_websocket_with_ended_session_stays_open() -> None:
    public = AuthBypassSettings(skip_auth_routes=("^/pub/",))
    harness = Harness(settings(auth_bypass=public, upstreams=(APP,)))
    harness.jar[b"_oauth2_proxy"] = b"of-an-ended-session"
    request = harness.request(
        "/pub/ws", (b"upgrade", b"websocket"), (b"connection", b"upgrade")
    )
    decision = harness.decide(harness.proxy.handle(request))
    assert isinstance(decision, Forward)
    assert harness.run(harness.proxy.is_session_valid(request, decision))
