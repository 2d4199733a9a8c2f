"""Small things around outcomes: settling, guarding, changing answers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import orjson
from msgspec.structs import replace

from ..effects import Flow, Outcome
from ..errors import CredentialsRefused, EffectError, RequestError
from ..messages import Decision, Event, Headers, Respond
from ..session import Session
from . import challenge
from .pages import NO_CACHE


def resolve_outcome(outcome: Outcome) -> Flow[Decision]:
    """The decision of an outcome, be it one already or a flow."""
    if isinstance(outcome, Generator):
        return (yield from outcome)
    return outcome


def with_headers(answer: Respond, headers: Headers) -> Respond:
    """*answer* with further *headers*; itself when there are none."""
    if not headers:
        return answer
    return Respond(
        answer.status,
        (*answer.headers, *headers),
        answer.body,
        answer.events,
        answer.user,
        verdict=answer.verdict,
        reason=answer.reason,
    )


def allowed_response(
    status: int, headers: Headers, user: str, reason: str, kept: bool = False
) -> Respond:
    """The answer to a gateway that asks about a request which may pass."""
    return Respond(
        status, headers, user=user, reusable=kept, verdict="allowed", reason=reason
    )


def as_challenge(answer: Respond) -> Respond:
    """*answer*, which is what somebody gets instead of what was asked for."""
    return replace(answer, verdict="unauthenticated", reason="no_session")


def with_error_handling(flow: Flow[Decision]) -> Flow[Decision]:
    """The outer guard: what a flow left over becomes a denial."""
    try:
        return (yield from flow)
    except RequestError as error:
        return bad_request_response(error)
    except CredentialsRefused as error:
        return challenge.forbidden_response((), error.code)
    except EffectError as error:
        event = Event("effect_failed", reason=error.code, detail=str(error))
        again: Headers = ()
        if error.status_hint == 503:
            again = ((b"retry-after", b"1"),)
        answer = challenge.plain_response(
            error.status_hint, b"the request could not be answered\n", again
        )
        return replace(answer, events=(event,), verdict="failed", reason=error.code)


def bad_request_response(error: RequestError) -> Respond:
    answer = challenge.plain_response(400, b"Bad Request\n")
    event = Event("bad_request", reason=error.code, detail=str(error))
    return Respond(400, answer.headers, answer.body, (event,))


def userinfo_response(session: Session, headers: Headers) -> Respond:
    """Who is logged in, as JSON; no tokens."""
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
    """The same where a rule lets a request without a session pass."""
    return Respond(200, (*challenge.JSON_HEADERS, *NO_CACHE, *headers), b"{}")
