"""Readers for providers with a single profile endpoint."""

from __future__ import annotations

from typing import Any

import orjson

from ...effects import Fetch, Flow
from ...errors import ProviderError
from ...oidc.protocol import with_query
from ...session import Session
from ..api import (
    check_email_verified,
    fetch_json,
    objects_in,
    string_at,
    strings_in,
    unique_strings,
)
from .profile import ProfileProvider, with_identity

SOURCEHUT_QUERY = orjson.dumps({"query": "{ me { username, email } }"})


def read_digitalocean(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """DigitalOcean: ``account.email``."""
    document = yield from provider.fetch(session, provider.profile_url, "the account")
    account = document.get("account") if isinstance(document, dict) else None
    if isinstance(account, dict) and not provider.settings.allow_unverified_email:
        check_email_verified(account, "email_verified")
    return with_identity(session, email=string_at(account, "email"))


def read_facebook(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Facebook: ``email``, which is present only if confirmed."""
    url = with_query(provider.profile_url, [("fields", "name,email")])
    document = yield from provider.fetch(session, url, "the profile")
    return with_identity(session, email=string_at(document, "email"))


def read_linkedin(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """LinkedIn: the first email address of the member."""
    joint = "&" if "?" in provider.profile_url else "?"
    # with_query would percent-encode the punctuation of LinkedIn's projection.
    query = "q=members&projection=(elements*(handle~))"
    url = f"{provider.profile_url}{joint}{query}"
    document = yield from provider.fetch(session, url, "the email address")
    elements = objects_in(
        document.get("elements") if isinstance(document, dict) else None
    )
    first = elements[0] if elements else None
    return with_identity(session, email=string_at(first, "handle~", "emailAddress"))


def read_keycloak(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Keycloak as a plain OAuth 2.0 provider: its userinfo."""
    url = provider.profile_url or provider.validate_url
    document = yield from provider.fetch(session, url, "userinfo")
    _check_object(document, "userinfo")
    if not provider.settings.allow_unverified_email:
        check_email_verified(document, "email_verified")
    preferred = string_at(document, "preferred_username")
    return with_identity(
        session,
        email=string_at(document, "email"),
        user=string_at(document, "user") or preferred,
        groups=unique_strings(*strings_in(document.get("groups"))),
        preferred_username=preferred,
    )


def read_nextcloud(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """Nextcloud: the user object of the OCS API."""
    url = provider.profile_url or provider.validate_url
    document = yield from provider.fetch(session, url, "the user")
    data: Any = document
    for name in ("ocs", "data"):
        data = data.get(name) if isinstance(data, dict) else None
    _check_object(data, "the user")
    user = string_at(data, "id")
    if not user:
        raise ProviderError("the user has no id", reason="profile_invalid")
    return with_identity(
        session,
        email=string_at(data, "email"),
        user=user,
        groups=unique_strings(*strings_in(data.get("groups"))),
    )


def read_sourcehut(provider: ProfileProvider, session: Session) -> Flow[Session]:
    """SourceHut: a GraphQL query."""
    headers = (
        *provider.api_headers(session),
        (b"content-type", b"application/json"),
    )
    document = yield from fetch_json(
        Fetch(
            "POST", provider.profile_url, headers, SOURCEHUT_QUERY, purpose="profile"
        ),
        "the profile",
    )
    user = string_at(document, "data", "me", "username")
    if not user:
        raise ProviderError("the profile has no username", reason="profile_invalid")
    return with_identity(
        session,
        email=string_at(document, "data", "me", "email"),
        user=user,
        preferred_username=user,
    )


def _check_object(document: Any, what: str) -> None:
    if not isinstance(document, dict):
        raise ProviderError(f"{what} is not a JSON object", reason="profile_invalid")
