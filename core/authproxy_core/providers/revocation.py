"""Telling a provider that a session's tokens will not be used any more (RFC 7009)."""

from __future__ import annotations

from msgspec.structs import replace

from ..effects import Flow
from ..errors import AuthProxyError
from ..session import Session
from .base import Provider

TIMEOUT = 5.0  # seconds; the user waits


def revoke(provider: Provider, session: Session) -> Flow[str]:
    """Revoke the refresh token, and with it what was made of it (RFC 7009 §2.1).

    "" when that is done or there is nothing to do, else what went wrong.
    """
    endpoint = provider.metadata.revocation_endpoint if provider.metadata else ""
    if not endpoint or not session.refresh_token:
        return ""
    params = [("token", session.refresh_token), ("token_type_hint", "refresh_token")]
    try:
        request = yield from provider.client_request(params)
        response = yield from replace(
            request, url=endpoint, timeout=TIMEOUT, purpose="revocation"
        )
    except AuthProxyError as error:
        return str(error)
    if response.status == 200:
        return ""
    return f"the revocation endpoint answered with status {response.status}"
