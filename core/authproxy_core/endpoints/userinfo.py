"""The userinfo endpoint: the session's user as JSON, without tokens."""

from __future__ import annotations

from ..access.auth_bypass import AuthBypass
from ..access.credentials import Credentials, authenticate, with_rejection
from ..effects import Flow
from ..login.context import Context
from ..messages import Decision, Headers, Request, Respond
from ..pages import challenge
from ..pages.outcomes import anonymous_userinfo_response, userinfo_response
from ..session import Session


def userinfo(
    context: Context,
    credentials: Credentials | None,
    bypass: AuthBypass | None,
    request: Request,
) -> Flow[Decision]:
    """Return the user's identity; 401 without a session, 403 if it is not authorized.

    If a *bypass* option applies to the request, both get 200.
    """
    session, headers, rejected = yield from authenticate(context, credentials, request)
    response = _respond(context, bypass, request, session, headers)
    return with_rejection(response, rejected)


def _respond(
    context: Context,
    bypass: AuthBypass | None,
    request: Request,
    session: Session | None,
    headers: Headers,
) -> Respond:
    if bypass and bypass.applies(request, context.trusted_proxies.original(request)):
        if session is None:
            return anonymous_userinfo_response(headers)
        return userinfo_response(session, headers)
    if session is None:
        return challenge.unauthorized_response(headers)
    if reason := context.denial_reason(session):
        return challenge.forbidden_response(headers, reason)
    return userinfo_response(session, headers)
