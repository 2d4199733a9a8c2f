"""The task that serves a request: from the outcome to a decision to the response.

A flow runs to its end even if the client disconnects: a redeemed code or a rotated
refresh token must not be lost. Every failure denies access.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from authproxy_core.drive import decide
from authproxy_core.effects import Effect, Flow, Outcome, Sleep
from authproxy_core.errors import AuthProxyError, ClientGone, RequestError, StoreError
from authproxy_core.messages import Decision, Event, Forward, Respond, ServeFile

from ..contract import MODULE, ExchangeProtocol, Loaded, SentRequest
from ..http.response_encoder import error_response
from ..http.upstream_response import UpstreamError
from ..static.static_files import serve_file

UNDECIDED = error_response(500)  # logged if the flow fails


def start_flow(exchange: ExchangeProtocol, flow: Flow[Decision]) -> bool:
    """Serve the result of *flow* to a request without a body.

    While it only reads the store, as the check of a stored session does, it runs in
    callbacks; then the result is True. A task does all other work.
    """
    try:
        effect = flow.send(None)
    except StopIteration as stop:
        exchange.worker.spawn(serve_exchange(exchange, stop.value))
    except Exception as error:  # noqa: BLE001 - the task reports it
        exchange.worker.spawn(serve_exchange(exchange, _fail(error)))
    else:
        return _perform(exchange, flow, effect)
    return False


def _perform(
    exchange: ExchangeProtocol, flow: Flow[Decision], effect: Effect[Any]
) -> bool:
    worker = exchange.worker
    if worker.performer.start_load(effect, partial(_resume, exchange, flow, effect)):
        return True
    worker.spawn(serve_exchange(exchange, _resume_from(flow, effect)))
    return False


def _resume(
    exchange: ExchangeProtocol,
    flow: Flow[Decision],
    effect: Effect[Any],
    loaded: Loaded,
) -> None:
    """Continue *flow* with the result of *effect*, which has been performed."""
    try:
        if loaded is None:
            exchange.worker.spawn(serve_exchange(exchange, _resume_from(flow, effect)))
        elif isinstance(loaded, StoreError):
            _perform(exchange, flow, flow.throw(loaded))
        else:
            _perform(exchange, flow, flow.send(loaded))
    except StopIteration as stop:
        decision = stop.value
        if type(decision) is Respond:
            exchange.respond(decision)
            exchange.end(decision, decision.events)
        else:
            exchange.worker.spawn(serve_exchange(exchange, decision))
    except Exception as error:  # noqa: BLE001 - denies access
        _respond_error(exchange, error)
        exchange.end(UNDECIDED, ())


def _resume_from(flow: Flow[Decision], effect: Effect[Any]) -> Flow[Decision]:
    """Return the rest of *flow*, which has yielded *effect*."""
    resume: Callable[[Any], Effect[Any]]
    while True:
        try:
            result = yield effect
        except Exception as error:  # noqa: BLE001 - the flow handles it
            resume, result = flow.throw, error
        else:
            resume = flow.send
        try:
            effect = resume(result)
        except StopIteration as stop:
            decision: Decision = stop.value
            return decision
        finally:
            result = None  # an error's traceback refers back to this frame


def _fail(error: Exception) -> Flow[Decision]:
    """Return a flow that raises *error*."""
    try:
        raise error
    finally:
        del error  # its traceback refers back to this frame
    yield from Sleep(0.0)


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
