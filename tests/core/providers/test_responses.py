"""Robustness: any response of a provider leads to a decision, never to a crash."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authproxy_core.messages import Response
from authproxy_core.oidc.protocol import parse_tokens
from authproxy_core.providers.adapters.cidaas import Cidaas
from authproxy_core.providers.adapters.gitlab import access_level
from authproxy_core.providers.api import is_transient, objects_in, string_at, strings_in
from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.providers import (
    BitbucketSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
)
from authproxy_core.settings.root import Secret
from support.endpoints import (
    FORM_TYPE,
    ISSUER,
    Endpoints,
    Turns,
    discovery,
    json,
    jwks,
    signing_key,
)

# Field names that the readers use, so generated documents resemble valid ones.
NAMES = st.sampled_from(
    [
        "account", "address", "data", "elements", "email", "email_verified", "groupId",
        "groups", "handle~", "id", "is_primary", "login", "mail", "me", "name", "next",
        "nickname", "ocs", "organization", "otherMails", "permissions", "primary", "push",
        "roles", "slug", "sub", "username", "userPrincipalName", "value", "values",
        "verified", "@odata.nextLink", "nextPageToken", "isMember", "status",
    ]
)  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from(["alice", "alice@example.com", "https://evil.example/", "true"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=20,
)
BODIES = DOCUMENTS.map(orjson.dumps) | st.binary(max_size=40)
OWN: dict[str, dict[str, Any]] = {
    "github": {"github": GithubSettings(org="a", team="b", repo="")},
    "bitbucket": {"bitbucket": BitbucketSettings(workspace="a", repository="a/b")},
    "gitlab": {"gitlab": GitlabSettings(projects=("a/b",))},
    "google": {"google": GoogleSettings()},
}


class Anything(Endpoints):
    """Endpoints that return the current *body* and *status*."""

    body: Callable[[], bytes] = staticmethod(lambda: b"")
    status = 200

    def _respond(self, fetch: Any) -> Response:
        try:
            return super()._respond(fetch)
        except KeyError:
            return Response(self.status, FORM_TYPE, self.body())


def anything(kind: str) -> Anything:
    own = dict(OWN.get(kind, {}))
    if kind == "login.gov":
        pem = Secret(signing_key().as_pem(private=True))
        own["login_gov"] = LoginGovSettings(jwt_key=pem)
    types = PROVIDER_TYPES[kind]
    if types.required_options:
        own |= {name: f"{ISSUER}/{name}" for name in types.required_options}
    if types.discovers:
        own["issuer"] = ISSUER
    keys = types.jwks_url or f"{ISSUER}/jwks"
    idp = Anything(
        kind,
        {
            f"GET {ISSUER}/.well-known/openid-configuration": discovery(),
            f"GET {keys}": jwks(),
        },
        claims={
            "iss": types.issuer or ISSUER,
            "email": "a@b.c",
            "email_verified": True,
        },
        **own,
    )
    token = (
        types.redeem_url or f"{ISSUER}/{'token' if types.discovers else 'redeem_url'}"
    )
    idp.responses[f"POST {token}"] = idp.tokens()
    return idp


@pytest.mark.parametrize("kind", sorted(PROVIDER_TYPES))
def test_any_endpoint_response_leads_to_decision(kind: str) -> None:
    idp = anything(kind)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(BODIES, min_size=1, max_size=4), st.sampled_from([200, 200, 404, 500])
    )
    def play(bodies: list[bytes], status: int) -> None:
        left = list(bodies)
        idp.body = lambda: left.pop(0) if len(left) > 1 else left[0]
        idp.status = status
        idp.harness.jar.clear()
        response = idp.log_in()
        assert response.status in (302, 403, 429, 500, 502)
        session = idp.auth_check()
        assert session.status == (202 if response.status == 302 else 401)

    play()


@pytest.mark.parametrize("kind", ["github", "oidc"])
@settings(max_examples=50, deadline=None)
@given(body=BODIES, status=st.sampled_from([200, 400, 500]))
def test_any_token_response_leads_to_decision(
    kind: str, body: bytes, status: int
) -> None:
    idp = anything(kind)
    token = PROVIDER_TYPES[kind].redeem_url or f"{ISSUER}/token"
    idp.responses[f"POST {token}"] = Response(status, FORM_TYPE, body)
    response = idp.log_in()
    assert response.status in ((403, 500) if status == 400 else (500, 502))


@given(BODIES, st.floats(0, 2e9))
def test_parse_tokens_returns_or_raises(body: bytes, now: float) -> None:
    from authproxy_core.errors import ProviderError

    for kind in (FORM_TYPE, ()):
        try:
            tokens = parse_tokens(Response(200, kind, body), now)
        except ProviderError:
            continue
        assert tokens.access_token
        assert tokens.expires_in >= 0


@given(DOCUMENTS)
def test_json_readers_accept_any_document(document: Any) -> None:
    assert isinstance(string_at(document, "a", "email"), str)
    assert all(isinstance(item, dict) for item in objects_in(document))
    assert all(strings_in(document))
    assert isinstance(access_level(document), int)
    claims = {"groups": document, "roles": document}
    groups = Cidaas.read_groups(
        anything("cidaas").harness.proxy._providers["cidaas"], claims
    )
    assert all(isinstance(group, str) and ":" in group for group in groups)
    assert is_transient(json(document, 503))


def test_turns_repeat_last_response() -> None:
    turns = Turns(1, 2)
    assert [turns.next() for _ in range(3)] == [1, 2, 2]
