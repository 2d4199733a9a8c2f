"""The realm of ``authproxy keycloak-realm``, as Keycloak 26 imports it.

The keys are those of Keycloak's RealmRepresentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

GROUPS = "groups"  # a client scope and its claim
REALM_ROLE = "editor"
CLIENT_ROLE = "operator"
OFFLINE = "offline_access"
ACCESS = ("access", "introspection")  # tokens that contain a claim
TOKENS = (*ACCESS, "id", "userinfo")


class RealmUser(NamedTuple):
    """A user; a temporary password has to be changed at the first login."""

    name: str
    groups: tuple[str, ...]
    has_roles: bool
    password: str
    is_temporary: bool


class RealmSettings(NamedTuple):
    """The variable parts of a realm; *origins* are those of the applications."""

    name: str
    origins: tuple[str, ...]
    proxy_prefix: str
    client_id: str
    client_secret: str
    backchannel_url: str
    users: tuple[RealmUser, ...]


def realm_representation(settings: RealmSettings) -> dict[str, Any]:
    """Return the realm with its client, scopes, roles, groups and users."""
    scopes = _scopes()
    default = [name for name in scopes if name != OFFLINE]
    groups = {group for user in settings.users for group in user.groups}
    return {
        "realm": settings.name,
        "enabled": True,
        "sslRequired": "external",
        "bruteForceProtected": True,
        "roles": {
            "realm": [{"name": REALM_ROLE}],
            "client": {settings.client_id: [{"name": CLIENT_ROLE}]},
        },
        "groups": [{"name": name} for name in sorted(groups)],
        "clientScopes": list(scopes.values()),
        "defaultDefaultClientScopes": [name for name in default if name != GROUPS],
        "defaultOptionalClientScopes": [OFFLINE],
        "clients": [_client(settings, default)],
        "users": [_user(user, settings) for user in settings.users],
    }


def _client(settings: RealmSettings, scopes: Sequence[str]) -> dict[str, Any]:
    """Return a confidential client that uses only the authorization code flow."""
    callback = f"{settings.proxy_prefix}/callback"
    audience = {"included.client.audience": settings.client_id}
    return {
        "clientId": settings.client_id,
        "secret": settings.client_secret,
        "publicClient": False,
        "standardFlowEnabled": True,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "serviceAccountsEnabled": False,
        "redirectUris": [f"{origin}{callback}" for origin in settings.origins],
        "webOrigins": list(settings.origins),
        "frontchannelLogout": False,  # true would disable the back-channel logout
        "attributes": {
            "pkce.code.challenge.method": "S256",
            "post.logout.redirect.uris": "##".join(
                f"{origin}/*" for origin in settings.origins
            ),
            "backchannel.logout.url": settings.backchannel_url,
            "backchannel.logout.session.required": "true",
        },
        "protocolMappers": [
            _mapper("audience", "oidc-audience-mapper", (*ACCESS, "id"), audience)
        ],
        "defaultClientScopes": list(scopes),
        "optionalClientScopes": [OFFLINE],
    }


def _user(user: RealmUser, settings: RealmSettings) -> dict[str, Any]:
    roles = [f"default-roles-{settings.name.lower()}"]
    password = {"value": user.password, "temporary": user.is_temporary}
    return {
        "username": user.name,
        "email": f"{user.name}@example.com",
        "emailVerified": True,
        "firstName": user.name.title(),
        "lastName": "Example",
        "enabled": True,
        "credentials": [{"type": "password", **password}],
        # Keycloak's import ignores the mark of the password.
        "requiredActions": ["UPDATE_PASSWORD"] if user.is_temporary else [],
        "groups": list(user.groups),
        "realmRoles": [*roles, REALM_ROLE] if user.has_roles else roles,
        "clientRoles": {settings.client_id: [CLIENT_ROLE]} if user.has_roles else {},
    }


def _scopes() -> dict[str, dict[str, Any]]:
    """Return client scopes by name: those of a new realm that logins use, and `GROUPS`.

    Keycloak creates its own scopes only if a realm is imported without any.
    """
    note = {"user.session.note": "AUTH_TIME"}
    names = {"claim.name": GROUPS, "full.path": "false"}  # allowed_groups = "admin"
    return {
        "acr": _scope("acr", _mapper("acr", "oidc-acr-mapper", (*ACCESS, "id"))),
        "basic": _scope(
            "basic",
            _mapper("sub", "oidc-sub-mapper", ACCESS),
            _claim_mapper(
                "auth_time", "oidc-usersessionmodel-note-mapper", note, "long"
            ),
        ),
        "email": _scope(
            "email",
            _attribute_mapper("email", "email"),
            _claim_mapper(
                "email_verified",
                "oidc-usermodel-property-mapper",
                {"user.attribute": "emailVerified"},
                "boolean",
            ),
        ),
        OFFLINE: _scope(OFFLINE),
        "profile": _scope(
            "profile",
            _mapper("full name", "oidc-full-name-mapper", TOKENS),
            _attribute_mapper("preferred_username", "username"),
            _attribute_mapper("given_name", "firstName"),
            _attribute_mapper("family_name", "lastName"),
        ),
        "roles": _scope(
            "roles",
            _role_mapper("realm_access.roles", "oidc-usermodel-realm-role-mapper"),
            _role_mapper(
                "resource_access.${client_id}.roles",
                "oidc-usermodel-client-role-mapper",
            ),
        ),
        "web-origins": _scope(
            "web-origins",
            _mapper("web origins", "oidc-allowed-origins-mapper", ACCESS),
        ),
        GROUPS: _scope(
            GROUPS, _mapper(GROUPS, "oidc-group-membership-mapper", TOKENS, names)
        ),
    }


def _scope(name: str, *mappers: dict[str, Any]) -> dict[str, Any]:
    is_requested = name in ("email", "profile", OFFLINE, GROUPS)
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": str(is_requested).lower()},
        "protocolMappers": list(mappers),
    }


def _attribute_mapper(claim: str, attribute: str) -> dict[str, Any]:
    config = {"user.attribute": attribute}
    return _claim_mapper(claim, "oidc-usermodel-attribute-mapper", config)


def _role_mapper(claim: str, kind: str) -> dict[str, Any]:
    config = {
        "claim.name": claim,
        "jsonType.label": "String",
        "multivalued": "true",
    }
    return _mapper(claim.partition(".")[0], kind, ACCESS, config)


def _claim_mapper(
    claim: str, kind: str, config: dict[str, str], json_type: str = "String"
) -> dict[str, Any]:
    more = {"claim.name": claim, "jsonType.label": json_type}
    return _mapper(claim, kind, TOKENS, config | more)


def _mapper(
    name: str, kind: str, tokens: Sequence[str], config: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return a protocol mapper whose claim is in *tokens*."""
    return {
        "name": name,
        "protocol": "openid-connect",
        "protocolMapper": kind,
        "config": {
            **(config or {}),
            **{f"{one}.token.claim": "true" for one in tokens},
        },
    }
