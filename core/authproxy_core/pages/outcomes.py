"""Outcomes: resolve them, map errors to responses, add headers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
from msgspec.structs import replace

from ..effects import Flow, Outcome
from ..errors import CredentialsRejected, EffectError, RequestError
from ..messages import Decision, Event, Headers, Respond
from ..session import Session
from . import challenge
from .pages import NO_CACHE


def resolve_outcome(outcome: Outcome) -> Flow[Decision]:
    """Return the decision of *outcome*, which is a decision or a flow."""
    if isinstance(outcome, Generator):
        return (yield from outcome)
    return outcome


def with_headers(response: Respond, headers: Headers) -> Respond:
    """Return *response* with *headers* appended."""
    if not headers:
        return response
    return Respond(
        response.status,
        (*response.headers, *headers),
        response.body,
        response.events,
        response.user,
        verdict=response.verdict,
        reason=response.reason,
    )


def allowed_response(
    status: int, headers: Headers, user: str, reason: str, reusable: bool = False
) -> Respond:
    """Return the response to an auth check that allows the request."""
    return Respond(
        status, headers, user=user, reusable=reusable, verdict="allowed", reason=reason
    )


def as_challenge(response: Respond) -> Respond:
    """Return *response* with the verdict "unauthenticated"."""
    return replace(response, verdict="unauthenticated", reason="no_session")


def with_error_handling(flow: Flow[Decision]) -> Flow[Decision]:
    """Run *flow*; an error that it raises becomes an error response."""
    try:
        return (yield from flow)
    except RequestError as error:
        return bad_request_response(error)
    except CredentialsRejected as error:
        return challenge.forbidden_response(challenge.BEARER, error.code)
    except EffectError as error:
        event = Event("effect_failed", reason=error.code, detail=str(error))
        retry_after: Headers = ()
        if error.status_hint == 503:
            retry_after = ((b"retry-after", b"1"),)
        response = challenge.plain_response(
            error.status_hint, b"request failed: try again\n", retry_after
        )
        return replace(response, events=(event,), verdict="failed", reason=error.code)


def bad_request_response(error: RequestError) -> Respond:
    """Return 400 for a malformed or ambiguous request."""
    response = challenge.plain_response(400, b"Bad Request\n")
    event = Event("bad_request", reason=error.code, detail=str(error))
    return Respond(400, response.headers, response.body, (event,))


def userinfo_response(session: Session, headers: Headers) -> Respond:
    """Return user, email, groups and claims of *session* as JSON; no tokens."""
    document: dict[str, Any] = {"user": session.user, "email": session.email}
    if session.groups:
        document["groups"] = session.groups
    if session.preferred_username:
        document["preferredUsername"] = session.preferred_username
    if session.claims:
        document["additionalClaims"] = session.claims
    return Respond(
        200,
        (*challenge.JSON_HEADERS, *NO_CACHE, *headers),
        orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE),
        user=session.name,
    )


def anonymous_userinfo_response(headers: Headers) -> Respond:
    """Return an empty JSON object: a rule allows the request without a session."""
    return Respond(200, (*challenge.JSON_HEADERS, *NO_CACHE, *headers), b"{}")
