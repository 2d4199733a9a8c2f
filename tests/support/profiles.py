"""Doubles of the providers without ID tokens, and their identities."""

from __future__ import annotations

from typing import Any

from support.endpoints import (
    Endpoints,
)

TOKEN = {"access_token": "access-1", "token_type": "bearer"}
IDP = "https://idp.example.com"
OWN = {
    "login_url": f"{IDP}/authorize",
    "redeem_url": f"{IDP}/token",
    "validate_url": f"{IDP}/me",
}
DIGITALOCEAN_ACCOUNT = {
    "account": {
        "droplet_limit": 25,
        "email": "alice@example.com",
        "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
        "email_verified": True,
        "status": "active",
    }
}
LINKEDIN_EMAIL = {
    "elements": [
        {
            "handle": "urn:li:emailAddress:3775708763",
            "handle~": {"emailAddress": "alice@example.com"},
        }
    ]
}
NEXTCLOUD_USER = {
    "ocs": {
        "meta": {"status": "ok", "statuscode": 100},
        "data": {
            "id": "alice",
            "enabled": True,
            "email": "alice@example.com",
            "groups": ["staff", "admin"],
        },
    }
}
KEYCLOAK_USER = {
    "sub": "1",
    "email": "alice@example.com",
    "email_verified": True,
    "preferred_username": "alice",
    "groups": ["staff", "", "admins", 7],
}
SOURCEHUT_USER = {"data": {"me": {"username": "alice", "email": "alice@example.com"}}}
BITBUCKET_EMAILS = {
    "values": [
        {"email": "old@example.com", "is_primary": False, "is_confirmed": True},
        {"email": "alice@example.com", "is_primary": True, "is_confirmed": True},
    ],
    "page": 1,
    "size": 2,
}


# Per type: settings, endpoints with their responses, and the expected identity.
TYPES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str, str, str]]] = {
    "digitalocean": (
        {},
        {
            "POST https://cloud.digitalocean.com/v1/oauth/token": TOKEN,
            "GET https://api.digitalocean.com/v2/account": DIGITALOCEAN_ACCOUNT,
        },
        ("", "alice@example.com", "", ""),
    ),
    "facebook": (
        {},
        {
            "POST https://graph.facebook.com/v2.5/oauth/access_token": TOKEN,
            "GET https://graph.facebook.com/v2.5/me": {
                "name": "Alice Example",
                "email": "alice@example.com",
                "id": "10203040506070809",
            },
        },
        ("", "alice@example.com", "", ""),
    ),
    "linkedin": (
        {},
        {
            "POST https://www.linkedin.com/uas/oauth2/accessToken": TOKEN,
            "GET https://api.linkedin.com/v2/emailAddress": LINKEDIN_EMAIL,
            "GET https://api.linkedin.com/v2/me": {"id": "REDACTED"},
        },
        ("", "alice@example.com", "", ""),
    ),
    "bitbucket": (
        {},
        {
            "POST https://bitbucket.org/site/oauth2/access_token": TOKEN,
            "GET https://api.bitbucket.org/2.0/user/emails": BITBUCKET_EMAILS,
        },
        ("", "alice@example.com", "", ""),
    ),
    "sourcehut": (
        {},
        {
            "POST https://meta.sr.ht/oauth2/access-token": TOKEN,
            "POST https://meta.sr.ht/query": SOURCEHUT_USER,
            "GET https://meta.sr.ht/profile": {},
        },
        ("alice", "alice@example.com", "", "alice"),
    ),
    "nextcloud": (
        OWN,
        {f"POST {IDP}/token": TOKEN, f"GET {IDP}/me": NEXTCLOUD_USER},
        ("alice", "alice@example.com", "staff,admin", ""),
    ),
    "keycloak": (
        OWN,
        {f"POST {IDP}/token": TOKEN, f"GET {IDP}/me": KEYCLOAK_USER},
        ("alice", "alice@example.com", "staff,admins", "alice"),
    ),
}


def endpoints(
    kind: str, responses: dict[str, Any] | None = None, **more: Any
) -> Endpoints:
    provider, standard, _ = TYPES[kind]
    return Endpoints(kind, {**standard, **(responses or {})}, **(provider | more))


def profile_of(kind: str) -> str:
    """Return the profile endpoint, which is listed after the token endpoint."""
    return list(TYPES[kind][1])[1]
