"""Error pages of logins and of requests that are denied."""

from __future__ import annotations

from msgspec.structs import replace

from ..messages import Event, Headers, Request, Respond
from ..pages import challenge
from ..pages.pages import NO_CACHE
from .context import Context
from .failures import DENIED, NO_ACCESS_FOR_USER, NOT_AVAILABLE, Failure

RETRY_AFTER: Headers = ((b"retry-after", b"5"),)  # seconds


def deny(context: Context, request: Request, event: Event, headers: Headers) -> Respond:
    """Return 403 for a denied request: JSON with force_json_errors, else a page."""
    if context.settings.force_json_errors:
        fields = (*challenge.JSON_HEADERS, *NO_CACHE, *headers)
        response = Respond(403, fields, b"{}", (event,))
        return replace(response, verdict="denied", reason=event.reason)
    target = context.redirect_target(request, {})
    return access_denied_page(context, request, event, headers, target)


def access_denied_page(
    context: Context,
    request: Request,
    event: Event,
    headers: Headers = (),
    redirect: str = "/",
) -> Respond:
    """Return the 403 page for a user without access, or a page that is denied to all."""
    page = context.pages.error(
        request,
        status=403,
        title=DENIED,
        message=NO_ACCESS_FOR_USER if event.user else NOT_AVAILABLE,
        values={"user": event.user},
        redirect=redirect,
        detail=event.detail,
        denied_user=event.user,
        headers=headers,
        events=(event,),
    )
    return replace(page, verdict="denied", reason=event.reason)


def login_failed_page(
    context: Context,
    request: Request,
    failure: Failure,
    rd: str,
    headers: Headers = (),
) -> Respond:
    """Return the page of a failed login; a 503 carries Retry-After."""
    if failure.status == 503:
        headers = (*headers, *RETRY_AFTER)
    return context.pages.error(
        request,
        status=failure.status,
        title=failure.title,
        message=failure.message,
        values=failure.values,
        redirect=rd,
        detail=failure.event.detail,
        headers=headers,
        events=(failure.event,),
    )
