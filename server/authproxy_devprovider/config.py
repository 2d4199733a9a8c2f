"""What the development provider knows and how it can be made to misbehave.

Everything here may be changed while the provider runs. Overrides are merged into the
finished object as the last step; the value None removes a member.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from authproxy_core.messages import Headers

Overrides: TypeAlias = dict[str, Any]
Answer: TypeAlias = tuple[int, Headers, bytes]
Endpoint: TypeAlias = Literal[
    "discovery", "jwks", "authorization", "token", "userinfo", "end_session"
]

# Members of a key set that no verifier of RS256 or ES256 can use; RFC 7517 §5 says
# that such keys are to be ignored. The last one has a usable type but lacks a part.
UNUSABLE_KEYS: tuple[Overrides, ...] = (
    {"kty": "LATTICE", "kid": "unknown-kty", "use": "sig", "alg": "ML-DSA-44"},
    {
        "kty": "EC",
        "kid": "unknown-crv",
        "use": "sig",
        "crv": "P-999",
        "x": "AAAA",
        "y": "AAAA",
    },
    {
        "kty": "oct",
        "kid": "symmetric",
        "use": "sig",
        "alg": "HS256",
        "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTMy",
    },
    {"kty": "RSA", "kid": "unknown-alg", "use": "enc", "alg": "RSA-OAEP", "e": "AQAB"},
)


class User(Struct, kw_only=True):
    """Someone who can log in; ``claims`` go into ID token, access token and userinfo.

    ``email`` None means ``NAME@example.com``, "" means no email claim at all.
    """

    name: str
    password: str
    email: str | None = None
    email_verified: bool = True
    full_name: str = ""
    sub: str = ""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()  # realm roles
    client_roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    claims: Overrides = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The configured ``sub``, or one that only depends on the name."""
        return self.sub or str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))

    @property
    def address(self) -> str:
        """The e-mail address, "" for none."""
        return f"{self.name}@example.com" if self.email is None else self.email


class Client(Struct, kw_only=True):
    """An application that may ask for logins.

    An empty ``secret`` makes it a public client, which must use PKCE. Redirect URIs
    are compared as whole strings; when none are given, any URI on this machine
    (127.0.0.1, [::1], localhost, \\*.localhost) is taken.
    """

    id: str = "authproxy"
    secret: str = "demo-client-secret"  # noqa: S105  # the demo makes a random one
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    require_pkce: bool = False


class ProviderConfig(Struct, kw_only=True):
    """People, clients, lifetimes (seconds), and the knobs for tests.

    ``issuer`` may be left empty: `provider.serve` puts its own URL there.
    ``failing`` maps an endpoint to a status or to a whole answer it gives instead of
    its work. ``authorization_error`` is sent back instead of showing the form.
    ``id_token_filter`` gets each finished ID token and returns what is sent instead.
    ``clock_offset`` (seconds) moves the provider's own clock. An unknown scope is
    refused, as Keycloak does; claims do not depend on scopes.
    """

    issuer: str = ""
    users: tuple[User, ...] = ()
    clients: tuple[Client, ...] = (Client(),)
    scopes: tuple[str, ...] = ("openid", "email", "profile", "groups", "roles")

    code_lifetime: float = 60.0
    id_token_lifetime: float = 300.0
    access_token_lifetime: float = 300.0
    refresh_token_lifetime: float = 1800.0
    issue_refresh_token: bool = True
    rotate_refresh_tokens: bool = True
    id_token_on_refresh: bool = True

    signing_alg: Literal["RS256", "ES256"] = "RS256"
    jwks_before: tuple[Overrides, ...] = ()
    jwks_after: tuple[Overrides, ...] = ()
    padding: int = 0  # bytes of a useless claim in ID and access token
    clock_offset: float = 0.0

    discovery: Overrides = field(default_factory=dict)
    authorization_response: Overrides = field(default_factory=dict)
    token_response: Overrides = field(default_factory=dict)
    id_token_header: Overrides = field(default_factory=dict)
    id_token_claims: Overrides = field(default_factory=dict)
    access_token_claims: Overrides = field(default_factory=dict)
    userinfo_claims: Overrides = field(default_factory=dict)
    id_token_filter: Callable[[str], str] | None = None

    failing: dict[Endpoint, int | Answer] = field(default_factory=dict)
    authorization_error: str = ""


def example_users(password: str) -> tuple[User, User]:
    """alice, who is an admin, and bob, who is not; both have the same password."""
    alice = User(
        name="alice",
        password=password,
        full_name="Alice Example",
        groups=("admin", "staff"),
        roles=("admin",),
        client_roles={"authproxy": ("editor",)},
    )
    bob = User(
        name="bob", password=password, full_name="Bob Example", groups=("staff",)
    )
    return alice, bob


def merged(base: Mapping[str, Any], changes: Overrides) -> dict[str, Any]:
    """*base* with *changes* laid over it; None removes a member."""
    return {
        name: value for name, value in {**base, **changes}.items() if value is not None
    }
