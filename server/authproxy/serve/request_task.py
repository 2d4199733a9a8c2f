"""The task that serves an exchange: outcome to decision to answer.

A flow runs to its end although the client has left: a redeemed code or a rotated
refresh token must not be lost. Whatever fails is a denial.
"""

from __future__ import annotations

from time import monotonic

from authproxy_core.drive import decide
from authproxy_core.effects import Outcome
from authproxy_core.errors import AuthProxyError, ClientGone, RequestError
from authproxy_core.messages import Decision, Event, Forward, Respond, ServeFile

from ..http.response_encoder import error_response
from ..http.upstream_response import UpstreamError
from ..static.static_files import serve_file
from .worker_context import ExchangeProtocol, ForwardHandler

MODULE = "server"
UNDECIDED = error_response(500)


async def serve_exchange(
    exchange: ExchangeProtocol, outcome: Outcome, carry: ForwardHandler | None = None
) -> None:
    """Answer one request; a `Forward` by *carry*, if that is another than usual."""
    hub = exchange.hub
    decision: Decision = UNDECIDED
    events: tuple[Event, ...] = ()
    try:
        decision = await decide(outcome, hub.performer.bound_to(exchange.body))
        events = decision.events
        stand_in = await _execute_decision(exchange, decision, carry)
        events += stand_in.events if stand_in is not None else ()
    except ClientGone:
        exchange.abort()
    except Exception as error:
        status = error.status_hint if isinstance(error, AuthProxyError) else 500
        what = f"request {exchange.request.id} failed"
        if status < 500:  # the client's doing: no traceback
            hub.logs.info(MODULE, f"{what}: {error}")
        else:
            hub.logs.exception(MODULE, what, error)
        if exchange.started:
            exchange.abort()
        else:
            exchange.respond(error_response(status), last=True)
    finally:
        exchange.end(decision, events)


async def _execute_decision(
    exchange: ExchangeProtocol, decision: Decision, carry: ForwardHandler | None
) -> Respond | None:
    """Answer by *decision*; the page that stands in for an upstream that failed."""
    if exchange.body.malformed:  # whatever was decided without the body
        raise RequestError("malformed body")
    match decision:
        case Respond():
            exchange.respond(decision)
        case ServeFile():
            await serve_file(exchange, decision)
        case Forward():
            return await _forwarded(exchange, decision, carry)
    return None


async def _forwarded(
    exchange: ExchangeProtocol, forward: Forward, carry: ForwardHandler | None
) -> Respond | None:
    forwarder = exchange.hub.forwarder
    try:
        if forwarder is None:
            raise UpstreamError("no_forwarder")
        exchange.body.decode_buffered()
        if carry is None:
            carry, exchange.forwarded_at = forwarder.forward, monotonic()
        await carry(exchange, forward)
    except UpstreamError as error:
        page = exchange.application.upstream_failed(
            exchange.request, forward, error.reason
        )
        exchange.respond(page)
        return page
    return None
