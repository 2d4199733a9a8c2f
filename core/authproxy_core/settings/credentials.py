"""Settings of credentials in requests: bearer JWTs, user names and passwords."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .secret import Secret
from .validation import ValidatedStruct

HTPASSWD = "htpasswd"  # provider id in sessions of users from the file
_HASH = re.compile(
    rb"\{SHA\}[A-Za-z0-9+/]{27}=|\$2[abxy]\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}"
)


class JwtIssuer(ValidatedStruct, frozen=True):
    """An additional issuer of bearer JWTs and the audience that its tokens must have."""

    issuer: str
    audience: str


class CredentialSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Credentials accepted in the Authorization field and in the sign-in form.

    ``jwt_authorized_parties`` are clients (``azp``) whose tokens are accepted besides
    those of authproxy's client; "*" accepts any. ``users`` maps user names to bcrypt or
    ``{SHA}`` hashes; None: no htpasswd file, an empty mapping: no valid user.
    """

    jwt_bearer_tokens: bool = False
    bearer_login_fallback: bool = True
    jwt_issuers: tuple[JwtIssuer, ...] = ()
    jwt_authorized_parties: tuple[str, ...] = ()
    users: Mapping[str, Secret] | None = None
    user_groups: tuple[str, ...] = ()
    display_form: bool = True
    email_is_user: bool = False

    @property
    def is_active(self) -> bool:
        """Whether the Authorization field is evaluated."""
        return self.jwt_bearer_tokens or self.users is not None


def is_hash(text: bytes) -> bool:
    """Return whether *text* is a bcrypt hash or a SHA-1 hash of an htpasswd file."""
    return _HASH.fullmatch(text) is not None


def credential_problems(
    settings: CredentialSettings, provider_ids: tuple[str, ...]
) -> list[str]:
    """Return the problems of *settings*, one line each, starting with the option."""
    problems = [
        f"extra_jwt_issuers: got {entry.issuer!r}, expected ISSUER=AUDIENCE with an "
        "issuer that starts with https://"
        for entry in settings.jwt_issuers
        if not entry.issuer.startswith(("https://", "http://")) or not entry.audience
    ]
    if settings.users is not None and HTPASSWD in provider_ids:
        problems.append(
            f"provider: the id {HTPASSWD!r} is reserved for the users of htpasswd_file"
        )
    problems += [
        f"htpasswd_file: the hash of {name!r} is neither bcrypt nor {{SHA}}"
        for name, hashed in (settings.users or {}).items()
        if not is_hash(hashed.value)
    ]
    return problems
