"""Configuration of the development provider, including deliberate faults.

All fields may be changed while the provider runs. Overrides are merged into the
finished object as the last step; a value of None removes the member.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from msgspec import Struct, field

from authproxy_core.messages import Headers

Overrides: TypeAlias = dict[str, Any]
HttpResponse: TypeAlias = tuple[int, Headers, bytes]  # status, headers, body
Endpoint: TypeAlias = Literal[
    "discovery", "jwks", "authorization", "token", "userinfo", "end_session"
]

# Members of a key set that cannot verify RS256 or ES256 (RFC 7517 §5: ignore them). The
# last one has a supported type but lacks its modulus.
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
    """A user; ``claims`` are added to ID token, access token and userinfo.

    An ``email`` of None means ``NAME@example.com``, "" no email claim.
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
        """The configured ``sub``, else a UUID derived from the name."""
        return self.sub or str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name))

    @property
    def address(self) -> str:
        """The email address, "" for none."""
        return f"{self.name}@example.com" if self.email is None else self.email


class Client(Struct, kw_only=True):
    """A registered client.

    A client with an empty ``secret`` is public and must use PKCE. Redirect URIs are
    compared as strings. Without any, all loopback URIs (127.0.0.1, [::1], localhost,
    \\*.localhost) are allowed.
    """

    id: str = "authproxy"
    secret: str = "demo-client-secret"  # noqa: S105  # the demo makes a random one
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    require_pkce: bool = False


class ProviderConfig(Struct, kw_only=True):
    """Users, clients, lifetimes (seconds), and faults for tests.

    An empty ``issuer`` is set to the server's URL by `provider.serve`. ``failing`` maps
    an endpoint to the status or the whole response that it sends instead of its own.
    ``authorization_error`` is sent to the redirect URI instead of the sign-in form.
    ``id_token_filter`` replaces each signed ID token by its result. ``clock_offset``
    (seconds) is added to the provider's clock. Unknown scopes are rejected, as by
    Keycloak; claims do not depend on scopes.
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
    padding: int = 0  # bytes of a filler claim in ID and access tokens
    clock_offset: float = 0.0

    discovery: Overrides = field(default_factory=dict)
    authorization_response: Overrides = field(default_factory=dict)
    token_response: Overrides = field(default_factory=dict)
    id_token_header: Overrides = field(default_factory=dict)
    id_token_claims: Overrides = field(default_factory=dict)
    access_token_claims: Overrides = field(default_factory=dict)
    userinfo_claims: Overrides = field(default_factory=dict)
    id_token_filter: Callable[[str], str] | None = None

    failing: dict[Endpoint, int | HttpResponse] = field(default_factory=dict)
    authorization_error: str = ""


def example_users(password: str) -> tuple[User, User]:
    """Return alice, an administrator, and bob; both have *password*."""
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


def merge(base: Mapping[str, Any], changes: Overrides) -> dict[str, Any]:
    """Return *base* updated by *changes*; a value of None removes the member."""
    return {
        name: value for name, value in {**base, **changes}.items() if value is not None
    }
