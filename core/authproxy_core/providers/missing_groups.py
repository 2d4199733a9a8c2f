"""Why a session has no groups or roles: a text for the operator."""

from __future__ import annotations

from ..identity.claims import find_claim
from ..oidc.jwt import unverified_claims
from ..session import Session
from .base import Provider


def explain_missing_groups(provider: Provider, session: Session) -> str:
    """Return why *session*, of a new login, lacks groups or roles; "" if it does not."""
    texts = [_missing_claim(provider, session), provider.missing_roles(session)]
    return "; ".join(filter(None, texts))


def _missing_claim(provider: Provider, session: Session) -> str:
    name = provider.settings.groups_claim
    if session.groups or not session.id_token:
        return ""
    if find_claim(unverified_claims(session.id_token), name) is not None:
        return ""
    if provider.settings.skip_claims_from_profile_url:
        return (
            f"the ID token has no claim {name!r}, and skip_claims_from_profile_url skips "
            "userinfo"
        )
    return f"neither the ID token nor userinfo has the claim {name!r} for the user"
