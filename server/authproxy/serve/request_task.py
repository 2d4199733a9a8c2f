"""The task that serves a request: from the outcome to a decision to the response.

A flow runs to its end even if the client disconnects: a redeemed code or a rotated
refresh token must not be lost. Every failure denies access.
"""

from __future__ import annotations

from authproxy_core.drive import decide
from authproxy_core.effects import Outcome
from authproxy_core.errors import AuthProxyError, ClientGone, RequestError
from authproxy_core.messages import Decision, Event, Forward, Respond, ServeFile

from ..contract import MODULE, ExchangeProtocol, SentRequest
from ..http.response_encoder import error_response
from ..http.upstream_response import UpstreamError
from ..static.static_files import serve_file

UNDECIDED = error_response(500)  # logged if the flow fails


async def serve_exchange(
    exchange: ExchangeProtocol, outcome: Outcome, sent: SentRequest | None = None
) -> None:
    """Run *outcome* to its decision, respond, log, and release the exchange.

    With *sent*, *outcome* is a `Forward` that the fast path has already sent.
    """
    worker = exchange.worker
    decision: Decision = UNDECIDED
    events: tuple[Event, ...] = ()
    try:
        decision = await decide(outcome, worker.performer.bound_to(exchange.body))
        events = decision.events
        if exchange.body.malformed:  # even if the decision did not need the body
            raise RequestError("malformed body")
        match decision:
            case Respond():
                exchange.respond(decision)
            case ServeFile():
                await serve_file(exchange, decision)
            case Forward():
                events += await _forward(exchange, decision, sent)
    except ClientGone:
        exchange.abort()
    except Exception as error:  # noqa: BLE001 - denies access
        _respond_error(exchange, error)
    finally:
        exchange.end(decision, events)


async def _forward(
    exchange: ExchangeProtocol, forward: Forward, sent: SentRequest | None
) -> tuple[Event, ...]:
    """Forward the request; return the events of the error page sent instead, if any."""
    forwarder = exchange.worker.forwarder
    try:
        if forwarder is None:
            raise UpstreamError("no_forwarder")
        exchange.body.decode_buffered()
        await forwarder.forward(exchange, forward, sent)
    except UpstreamError as error:
        page = exchange.application.upstream_failed(
            exchange.request, forward, error.reason
        )
        exchange.respond(page)
        return page.events
    return ()


def _respond_error(exchange: ExchangeProtocol, error: Exception) -> None:
    status = error.status_hint if isinstance(error, AuthProxyError) else 500
    logs, event = exchange.worker.logs, f"request {exchange.request.id} failed"
    if status < 500:  # a client error: no traceback
        logs.info(MODULE, f"{event}: {error}")
    else:
        logs.exception(MODULE, event, error)
    if exchange.started:
        exchange.abort()
    else:
        exchange.respond(error_response(status), last=True)
