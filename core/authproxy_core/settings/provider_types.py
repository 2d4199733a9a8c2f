"""Provider types: names, default URLs and scopes, required options.

Settings are validated by this table; the protocol of each type is in ``providers/``. The
default URLs are those in the providers' documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from ..messages import Headers

OPENID = "openid email profile"


class ProviderType(Struct, frozen=True, kw_only=True):
    """One type of provider.

    ``scope`` is the default scope; ``groups_scope`` adds ``groups`` to it if there are
    allowed groups. ``discovers``: the issuer's metadata contains the endpoints; otherwise
    the URLs here are the defaults, and ``required_options`` have none. ``secret``: a
    client secret is required; ``in_body``: the first token request sends it in the body.
    ``pkce``: S256 is supported, although metadata does not list it. ``api_headers`` and
    ``token_scheme`` are for requests to the provider's API; with ``token_in_query``,
    ``validate_url`` takes the token as a query parameter. ``renews``: a session is
    continued by a refresh token, or by validating its access token.
    """

    name: str
    scope: str = OPENID
    groups_scope: bool = False
    discovers: bool = False
    login_url: str = ""
    redeem_url: str = ""
    profile_url: str = ""
    validate_url: str = ""
    jwks_url: str = ""
    required_options: tuple[str, ...] = ()
    secret: bool = True
    in_body: bool = False
    pkce: bool = False
    issuer: str = ""
    api_headers: Headers = ((b"accept", b"application/json"),)
    token_scheme: bytes = b"Bearer"
    token_in_query: bool = False
    renews: Literal["refresh", "ask"] = "refresh"


PROVIDER_TYPES: Mapping[str, ProviderType] = {
    "oidc": ProviderType(name="OpenID Connect", groups_scope=True, discovers=True),
    "keycloak-oidc": ProviderType(
        name="Keycloak OIDC", groups_scope=True, discovers=True
    ),
    "entra-id": ProviderType(
        name="Microsoft Entra ID", groups_scope=True, discovers=True, pkce=True
    ),
    "azure": ProviderType(
        name="Azure",
        scope="openid",
        discovers=True,
        in_body=True,
        pkce=True,
        profile_url="https://graph.microsoft.com/v1.0/me",
    ),
    "adfs": ProviderType(name="ADFS", discovers=True),
    "gitlab": ProviderType(name="GitLab", scope="openid email", discovers=True),
    "cidaas": ProviderType(
        name="CIDAAS", scope="openid email profile roles groups", discovers=True
    ),
    "google": ProviderType(
        name="Google",
        # oauth2-proxy omits openid and does not verify the ID token.
        scope="openid profile email",
        in_body=True,
        pkce=True,
        issuer="https://accounts.google.com",
        token_in_query=True,
        login_url="https://accounts.google.com/o/oauth2/auth?access_type=offline",
        redeem_url="https://www.googleapis.com/oauth2/v3/token",
        jwks_url="https://www.googleapis.com/oauth2/v3/certs",
    ),
    "login.gov": ProviderType(
        name="login.gov",
        scope="email openid",
        secret=False,
        renews="ask",
        issuer="https://secure.login.gov/",
        login_url="https://secure.login.gov/openid_connect/authorize",
        redeem_url="https://secure.login.gov/api/openid_connect/token",
        profile_url="https://secure.login.gov/api/openid_connect/userinfo",
        validate_url="https://secure.login.gov/api/openid_connect/userinfo",
        jwks_url="https://secure.login.gov/api/openid_connect/certs",
    ),
    "github": ProviderType(
        name="GitHub",
        scope="user:email read:org",
        in_body=True,
        renews="ask",
        pkce=True,
        login_url="https://github.com/login/oauth/authorize",
        redeem_url="https://github.com/login/oauth/access_token",
        validate_url="https://api.github.com/",
        api_headers=((b"accept", b"application/vnd.github.v3+json"),),
        token_scheme=b"token",
    ),
    "bitbucket": ProviderType(
        name="Bitbucket",
        scope="email",
        in_body=True,
        renews="ask",
        login_url="https://bitbucket.org/site/oauth2/authorize",
        redeem_url="https://bitbucket.org/site/oauth2/access_token",
        validate_url="https://api.bitbucket.org/2.0/user/emails",
    ),
    "digitalocean": ProviderType(
        name="DigitalOcean",
        scope="read",
        in_body=True,
        renews="ask",
        login_url="https://cloud.digitalocean.com/v1/oauth/authorize",
        redeem_url="https://cloud.digitalocean.com/v1/oauth/token",
        profile_url="https://api.digitalocean.com/v2/account",
        validate_url="https://api.digitalocean.com/v2/account",
    ),
    "facebook": ProviderType(
        name="Facebook",
        scope="public_profile email",
        in_body=True,
        renews="ask",
        login_url="https://www.facebook.com/v2.5/dialog/oauth",
        redeem_url="https://graph.facebook.com/v2.5/oauth/access_token",
        profile_url="https://graph.facebook.com/v2.5/me",
        validate_url="https://graph.facebook.com/v2.5/me",
    ),
    "linkedin": ProviderType(
        name="LinkedIn",
        scope="r_emailaddress r_liteprofile",
        in_body=True,
        renews="ask",
        login_url="https://www.linkedin.com/oauth/v2/authorization",
        redeem_url="https://www.linkedin.com/uas/oauth2/accessToken",
        profile_url="https://api.linkedin.com/v2/emailAddress",
        validate_url="https://api.linkedin.com/v2/me",
        api_headers=((b"accept", b"application/json"), (b"x-li-format", b"json")),
    ),
    "sourcehut": ProviderType(
        name="SourceHut",
        scope="meta.sr.ht/PROFILE:RO",
        in_body=True,
        renews="ask",
        login_url="https://meta.sr.ht/oauth2/authorize",
        redeem_url="https://meta.sr.ht/oauth2/access-token",
        profile_url="https://meta.sr.ht/query",
        validate_url="https://meta.sr.ht/profile",
    ),
    "keycloak": ProviderType(
        name="Keycloak",
        scope="api",
        in_body=True,
        renews="ask",
        required_options=("login_url", "redeem_url", "validate_url"),
    ),
    "nextcloud": ProviderType(
        name="Nextcloud",
        scope="",
        in_body=True,
        renews="ask",
        required_options=("login_url", "redeem_url", "validate_url"),
    ),
}
