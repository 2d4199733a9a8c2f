"""Protocols between the server's layers: clients, request tasks, upstreams, files.

The module is below every module that implements or uses one of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from authproxy_core.effects import Effect, Flow, Outcome
from authproxy_core.errors import StoreError
from authproxy_core.messages import Decision, Event, Forward, Headers, Request, Respond

from .http.request_head import RequestHead
from .http.simple_response import SimpleResponse
from .loop.write_coalescing import WriteCoalescer
from .net.dial import Stream
from .net.tunnel import Tunnel, UpgradedConnection

MODULE = "server"  # module name in the standard log
Perform = Callable[[Effect[Any]], Awaitable[Any]]
# Called with the values that were loaded, or an error. None: `Store.load_all` decides.
Loaded: TypeAlias = tuple[bytes | None, ...] | StoreError | None
OnLoaded = Callable[[Loaded], None]


class Application(Protocol):
    """The sans-IO core as the server uses it; implemented by `AuthProxy`."""

    def handle(self, request: Request) -> Outcome:
        """Return the decision about *request*, or the flow that leads to it."""

    def is_session_valid(self, request: Request, forward: Forward) -> Flow[bool]:
        """Return whether the tunnel opened by *request* may stay open."""

    def upstream_failed(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Return the error page for a failed upstream; *reason* is a reason code."""


class BodySource(Protocol):
    """The request body that the effect `ReadBody` reads."""

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        Raises `BodyTooLarge` above *limit* bytes, `ClientGone` if the client
        disconnects or stalls, `RequestError` if the body is malformed.
        """

    def unread(self, data: bytes) -> None:
        """Put *data*, the whole body, back, so that it can be read again."""


class Body(BodySource, Protocol):
    """A request body, iterated in chunks of bytes.

    ``length`` is its size in bytes: 0 without a body, None while it is unknown.
    ``malformed`` is set when decoding has failed. Iteration raises `ClientGone` if the
    client disconnects or stalls, and `RequestError` if the body is malformed.
    """

    length: int | None
    malformed: bool

    @property
    def trailers(self) -> Headers:
        """The forwardable trailers, available after the last chunk."""

    def decode_buffered(self) -> None:
        """Decode the bytes received so far; raises `RequestError` if malformed."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the chunks; none of them is empty."""


class BufferedBody(Body, Protocol):
    """A body that the fast path can send without waiting for the client."""

    @property
    def is_buffered(self) -> bool:
        """Return whether the whole body has been received and is small."""

    def take_all(self) -> bytes:
        """Return the whole body, which must be buffered."""


class DisconnectEvent(Protocol):
    """An event that is set when the client disconnects."""

    def is_set(self) -> bool:
        """Return whether the client has disconnected."""

    async def wait(self) -> object:
        """Wait until the client disconnects."""


class WatchableDisconnect(DisconnectEvent, Protocol):
    """A disconnect event that also calls ``watcher``, once."""

    watcher: Callable[[], None] | None


class StandardLog(Protocol):
    """The standard log; implemented by `Logs`."""

    def info(self, module: str, message: str, request_id: str = "") -> None:
        """Log *message* for information."""

    def error(self, module: str, message: str, request_id: str = "") -> None:
        """Log *message*, on which the operator has to act."""

    def exception(self, module: str, message: str, error: BaseException) -> None:
        """Log *message* with the traceback of *error*."""


class EffectPerformer(Protocol):
    """Performs the effects of flows; implemented by `Performer`."""

    def bound_to(self, body: BodySource) -> Perform:
        """Return the function that performs the effects of one request's flow."""

    def start_load(self, effect: Effect[Any], on_loaded: OnLoaded) -> bool:
        """Start a read of the store without a task; False if *effect* needs one.

        *on_loaded* is called later, as by `Store.start_load`.
        """


class WorkerServices(Protocol):
    """Shared parts of a worker; implemented by `WorkerContext`.

    ``application`` is the current one: a reload replaces it.
    """

    application: Application

    @property
    def performer(self) -> EffectPerformer:
        """Performs the effects of flows."""

    @property
    def forwarder(self) -> Forwarder | None:
        """Forwards requests to upstreams; None if nothing is forwarded."""

    @property
    def logs(self) -> StandardLog:
        """The standard log."""

    @property
    def writes(self) -> WriteCoalescer:
        """Coalesces the writes of one event-loop iteration."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* as a task; keep a reference to it and log its failure."""


class ExchangeProtocol(Protocol):
    """A request and its response, over either version of HTTP.

    A response is sent whole (`respond`) or streamed: `send_informational` for 1xx,
    then `start`, `write` and `finish`, which wait for the client and raise
    `ClientGone`. ``disconnected`` is set when the client disconnects, ``forwarded_at``
    (monotonic seconds) when the request is forwarded.
    """

    head: RequestHead
    request: Request
    application: Application
    started: bool
    finished: bool
    forwarded_at: float

    @property
    def worker(self) -> WorkerServices:
        """The worker that serves the request."""

    @property
    def disconnected(self) -> DisconnectEvent:
        """Set when the client disconnects."""

    @property
    def body(self) -> Body:
        """The body of the request."""

    def switch_protocols(self, headers: Headers) -> UpgradedConnection:
        """Send 101 and detach the connection (HTTP/1.1); raises `ClientGone`."""

    def attach_tunnel(self, tunnel: Tunnel) -> None:
        """After `switch_protocols`: log the request when *tunnel* closes."""

    async def send_informational(self, status: int, headers: Headers) -> None:
        """Send a 1xx response if the client can take it."""

    async def start(self, status: int, headers: Headers, *, length: int | None) -> None:
        """Send the final head; *length* is the body size in bytes, None if unknown."""

    async def write(self, data: bytes) -> None:
        """Send bytes of the body."""

    async def finish(self, trailers: Headers = ()) -> None:
        """End the body, with *trailers* if the framing can carry them."""

    def abort(self) -> None:
        """Abort the response: the client sees an incomplete one."""

    def respond(self, respond: Respond, *, last: bool = False) -> None:
        """Send a complete response; *last* closes an HTTP/1.1 connection after it."""

    def end(self, decision: Decision, events: tuple[Event, ...]) -> None:
        """Log the request and release the connection for the next one.

        *events* are those of the decision and of an error page sent instead.
        """


class FastPathExchange(ExchangeProtocol, Protocol):
    """An exchange that can be forwarded without a task (HTTP/1.1)."""

    @property
    def disconnected(self) -> WatchableDisconnect:
        """Set when the client disconnects."""

    @property
    def body(self) -> BufferedBody:
        """The body of the request."""

    def relay(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        length: int | None,
        trailers: Headers = (),
    ) -> None:
        """Send a complete upstream response; *length* is its Content-Length."""

    def relay_simple(self, response: SimpleResponse, added: Headers) -> None:
        """Send *response* with the reused fields *added* before its fields."""


class SentRequest(Struct):
    """A forwarded request that the fast path has sent but can't complete.

    The response goes on with the bytes *received* from *stream*. Without a stream the
    upstream has failed for the reason code *failure*.
    """

    stream: Stream | None = None
    received: bytes = b""
    failure: str = ""

    def take_received(self) -> bytes:
        """Return the received bytes, and keep no reference to them."""
        received, self.received = self.received, b""
        return received


class Forwarder(Protocol):
    """Forwards requests to upstreams; implemented by `upstream.forwarder.Forwarder`."""

    def try_fast_path(self, exchange: FastPathExchange, forward: Forward) -> bool:
        """Forward without a task; return False, with no effect, if that can't be."""

    async def forward(
        self,
        exchange: ExchangeProtocol,
        forward: Forward,
        sent: SentRequest | None = None,
    ) -> None:
        """Forward the request, or complete the *sent* one.

        Raises `UpstreamError` if the upstream fails before the response is started.
        """


class ClientConnection(Protocol):
    """An open client connection as the worker manages it."""

    transport: asyncio.Transport

    @property
    def idle(self) -> bool:
        """Return whether no request is being received or answered."""

    @property
    def evictable(self) -> bool:
        """Return whether it may be closed to make room for another client."""

    @property
    def eviction_order(self) -> tuple[float, int]:
        """Sort key for eviction: the longest-waiting connection is the first."""

    def check_timeouts(self, now: float) -> None:
        """Apply the timeouts; called about once per second."""
