"""What the connections of one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from authproxy_core.effects import Effect, Flow, Outcome
from authproxy_core.messages import Decision, Event, Forward, Headers, Request, Respond

from ..logs.formatter import RequestRecord
from ..logs.logger import Logs
from ..metrics.metrics import Metrics
from ..net.clock import Clock
from ..net.tunnel import Tunnel, UpgradedConnection
from ..net.write_coalescing import WriteCoalescer
from ..server_settings import Limits
from .field_cache import FieldCache
from .request_ids import RequestIds
from .response_head_cache import ResponseHeadCache

if TYPE_CHECKING:
    from ..downstream.h1_exchange import Exchange
    from ..http.request_head import RequestHead

MODULE = "server"
Perform = Callable[[Effect[Any]], Awaitable[Any]]


class Application(Protocol):
    """What decides; `authproxy_core.proxy.AuthProxy` is one."""

    def handle(self, request: Request) -> Outcome:
        """The decision about *request*, or the flow that leads to it."""

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Whether what *request* began, and goes on, may go on."""

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """The answer when the upstream of *forward* could not give one."""


class BodySource(Protocol):
    """Where the effect ReadBody finds the body of its request."""

    async def read_all(self, limit: int) -> bytes:
        """The whole body, at most *limit* bytes."""

    def unread(self, data: bytes) -> None:
        """Put *data*, the whole body, back: it will be read again."""


class Body(BodySource, Protocol):
    """The body of a request, pulled piece by piece.

    ``length`` is its size in bytes, 0 without one and None when only its end tells.
    ``trailers`` are the fields behind it that may go on (`trailers.passable`), known
    when it is over.
    Raises `ClientGone` when the client leaves or stalls, `RequestError` when it is
    malformed.
    """

    length: int | None
    malformed: bool

    @property
    def trailers(self) -> Headers:
        """What came behind it, once it is complete."""

    def decode_buffered(self) -> None:
        """Look at what has come already; raises `RequestError` when it is malformed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces, none of them empty."""


class DisconnectEvent(Protocol):
    """Whether somebody has left; an `asyncio.Event` is one."""

    def is_set(self) -> bool:
        """Whether it has happened."""

    async def wait(self) -> object:
        """Wait for it."""


class ExchangeProtocol(Protocol):
    """One request being answered by a task, over whatever version of HTTP.

    The answer is either whole (`respond`) or streamed: `inform` for interim ones,
    then `start`, `write`, `finish`, which wait for the client and raise `ClientGone`.
    ``gone`` is set when the client has left, ``passed_on_at`` (monotonic seconds) when
    the request goes to an upstream.
    """

    hub: WorkerContext
    head: RequestHead
    request: Request
    application: Application
    started: bool
    finished: bool
    forwarded_at: float

    @property
    def gone(self) -> DisconnectEvent:
        """Set when the client has left."""

    @property
    def body(self) -> Body:
        """The body of the request."""

    def switch(self, headers: Headers) -> UpgradedConnection:
        """Send 101 and give the connection away; only with HTTP/1.1."""

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """After `switch`: the request lasts as long as *tunnel*."""

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Pass on an interim answer."""

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body's size in bytes, None if unknown."""

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""

    async def finish(self, trailers: Headers = ()) -> None:
        """The body is complete; *trailers* follow it where the client can take them."""

    def abort(self) -> None:
        """Break off: the client sees an incomplete answer."""

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete answer, the *last* one of the connection if so."""

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Write the log lines, and let the next request come.

        *decision* is the core's, *events* are its own and those of an answer that was
        given instead.
        """


class ClientConnection(Protocol):
    """What the worker does with an open connection."""

    transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""

    @property
    def evictable(self) -> bool:
        """Whether it may be closed to make room for another client."""

    @property
    def waiting(self) -> tuple[float, int]:
        """Sorts connections by how long they have waited, the longest first."""

    def check(self, now: float) -> None:
        """Apply the time limits; about once a second."""


class EffectPerformer(Protocol):
    """What performs the effects of flows; `perform.Performer` is one."""

    def bound_to(self, body: BodySource) -> Perform:
        """The function that performs the effects of the flow of one request."""


class ForwardHandler(Protocol):
    """A way to stream a request to its upstream and the answer back."""

    async def __call__(self, exchange: ExchangeProtocol, forward: Forward) -> None:
        """Raises `UpstreamFailed` when no answer has begun."""


class Forwarder(Protocol):
    """What forwards requests; `upstream.Forwarder` is one."""

    async def forward(self, exchange: ExchangeProtocol, forward: Forward) -> None:
        """Carry one request; raises `UpstreamFailed` when no answer has begun."""

    def begin(self, exchange: Exchange, forward: Forward) -> bool:
        """Carry it without a task, if that can be; False leaves it as it was."""


class WorkerContext:
    """The shared parts of one worker, and its open connections and running tasks.

    ``application`` may be replaced by a reload; a request keeps the one that it began
    with. ``stopping`` makes every further answer the last one of its connection.
    """

    def __init__(
        self,
        application: Application,
        performer: EffectPerformer,
        forwarder: Forwarder | None,
        logs: Logs,
        clock: Clock,
        limits: Limits,
        request_id_header: str,
        metrics: Metrics | None = None,
    ) -> None:
        self.application = application
        self.performer = performer
        self.forwarder = forwarder
        self.logs = logs
        self.clock = clock
        self.limits = limits
        self.request_id_header = request_id_header.lower().encode()
        self.request_ids = RequestIds()
        self.metrics = metrics or Metrics()
        self.connections: set[ClientConnection] = set()
        self.stopping = False
        self.answers = ResponseHeadCache()
        self.fields = FieldCache()
        self.outbox = WriteCoalescer()
        self.on_connection_lost: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._joined = 0

    def join(self, connection: ClientConnection) -> int:
        """Take a new connection; returns its number, counting up."""
        self.connections.add(connection)
        self.metrics.connection_opened()
        self._joined += 1
        return self._joined

    def leave(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.metrics.connection_closed()

    def record_response(self, entry: RequestRecord, events: tuple[Event, ...]) -> None:
        """Log and count an answered request, and what its decision told."""
        metrics = self.metrics
        if metrics.enabled:
            request = entry.request
            metrics.record_response(
                request.target,
                request.method,
                entry.status,
                entry.seconds,
                entry.verdict,
                entry.reason,
            )
            if entry.upstream_seconds is not None:
                metrics.record_upstream_response(entry.upstream_seconds)
        for event in events:
            metrics.count_event(event)
        self.logs.record_response(entry, events)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* as a task that is held, and whose failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The tasks that are still running."""
        return frozenset(self._tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.logs.exception(MODULE, "a task failed", error)
