"""One connection to a Redis server, which carries many questions at once.

What is asked in one round of the event loop is sent together, and answers come in order:
no pool of connections, and few system calls under load. hiredis reads the protocol
(RESP 2 and 3); reading is bounded, and every question has a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias, cast

import hiredis

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress, RedisSettings
from .base import MAX_VALUE

CommandArgument: TypeAlias = bytes | str | int | float
MAX_REPLY = 8 * MAX_VALUE  # bytes of one answer, of which some hold several values
MAX_WAITING = 10_000  # questions
CLOSE_LIMIT = 1.0  # seconds
_INCOMPLETE = object()


class ConnectionLostError(StoreError):
    """The connection ended before the answer came; whether it was done is not known."""


class ReplyError(StoreError):
    """Redis answered with an error; ``word`` is its first word (NOAUTH, MOVED …)."""

    def __init__(self, text: str) -> None:
        super().__init__(f"redis: {text}")
        self.text = text
        self.word = text.partition(" ")[0]


class RedisConnection(asyncio.Protocol):
    """A connection; *on_push* gets what the server tells without being asked."""

    def __init__(
        self,
        address: RedisAddress,
        limit: float,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self.address = address
        self.lost = asyncio.Event()
        self._ended = asyncio.Event()
        self.used_at = 0.0  # loop's seconds, of the last question but heartbeats
        self.reason = ""
        self._limit = limit
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._unread = 0  # bytes of an answer that is not complete

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Hand answers to those who wait for them."""
        self._unread += len(data)
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._unread = 0
                if isinstance(reply, hiredis.PushNotification):
                    self._pushed(reply)
                else:
                    self._answered(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"no Redis: {error}")
        if self._unread > MAX_REPLY:
            self.abort(f"an answer is longer than {MAX_REPLY} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        """Everything that waits fails."""
        self.abort(str(error) if error else "the connection was closed")
        self._ended.set()

    def _pushed(self, message: list[Any]) -> None:
        if self._on_push is not None:
            self._on_push(message)

    def _answered(self, reply: Any) -> None:
        if not self._waiting:
            self.abort("an answer that nobody asked for")
            return
        future, _ = self._waiting.popleft()
        if not future.done():
            future.set_result(reply)

    # What its owner calls.

    def send(self, words: tuple[CommandArgument, ...]) -> asyncio.Future[Any]:
        """Ask; the answer comes as the future's result, an error of Redis included."""
        if self.lost.is_set():
            raise ConnectionLostError(self.reason)
        if len(self._waiting) >= MAX_WAITING:
            raise StoreError("too much waits for the session store")
        try:
            packed = hiredis.pack_command(words)  # type: ignore[arg-type] # its stub knows tuples of one
        except UnicodeError:
            raise StoreError("a key is no text that can be sent") from None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((future, self._loop.time()))
        if self._watch is None:
            self._look_later()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        return future

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _look_later(self) -> None:
        pause = self._limit / 4
        due = self._loop.time() + pause
        self._watch = self._loop.call_later(pause, self._look, due)

    def _look(self, due: float) -> None:
        """End the connection when an answer is late: what follows it would be, too.

        One timer for all questions; a timeout for each costs a third of the exchange.
        """
        self._watch = None
        if not self._waiting:
            return
        now = self._loop.time()
        _, asked_at = self._waiting[0]
        # When we were stopped ourselves, the answer is there and waits to be read.
        if now - asked_at >= self._limit and now - due < self._limit / 4:
            self._late(self._limit)
        else:
            self._look_later()

    def _late(self, limit: float) -> None:
        self.abort(f"no answer within {limit:g} s", StoreError)

    @staticmethod
    async def wait(future: asyncio.Future[Any]) -> Any:
        """The answer to what was sent. Raises `StoreError`."""
        reply = await future
        if isinstance(reply, hiredis.ReplyError):
            raise ReplyError(str(reply))
        return reply

    async def ask(self, *words: CommandArgument) -> Any:
        """The answer to a question, within the settings' limit. Raises `StoreError`."""
        return await self.wait(self.send(words))

    async def ping(self, limit: float) -> None:
        """Raise `StoreError` unless the server answers within *limit* seconds."""
        future = self.send(("PING",))
        try:
            async with asyncio.timeout(limit):
                await self.wait(future)
        except TimeoutError:
            self._late(limit)
            raise StoreError(self.reason) from None

    def abort(self, reason: str, error: type[StoreError] = ConnectionLostError) -> None:
        """End the connection at once; what waits for an answer fails with *error*."""
        if self.lost.is_set():
            return
        self.reason = f"{name_of(self.address)}: {reason}"
        self.lost.set()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(error(self.reason))
                future.exception()  # whoever waits has perhaps gone: no complaint
        self._waiting.clear()

    async def close(self) -> None:
        """End the connection, and wait until that is done."""
        self.abort("closed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._ended.wait()


def name_of(address: RedisAddress) -> str:
    """The address for messages."""
    return address.path or f"{address.host}:{address.port}"


class Dialer:
    """Opens links with the settings' TLS, user, password and database."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._context = _context(settings) if settings.tls else None

    async def data(self, address: RedisAddress) -> RedisConnection:
        """A link for questions. Raises `StoreError`."""
        settings = self._settings
        link = await self._opened(address)
        async with closing_on_failure(link):
            if settings.password:
                await self._log_in(link)
            if settings.client_name:
                await link.ask("CLIENT", "SETNAME", settings.client_name)
            if settings.db:
                await link.ask("SELECT", settings.db)
            await link.ask("PING")
        return link

    async def _log_in(self, link: RedisConnection) -> None:
        settings = self._settings
        user = (settings.username,) if settings.username else ()
        await link.ask("AUTH", *user, settings.password.value)

    async def open_invalidation(
        self,
        address: RedisAddress,
        prefixes: tuple[str, ...],
        on_push: Callable[[list[Any]], None],
    ) -> RedisConnection:
        """A link on which Redis tells of changes of keys with these *prefixes*.

        Raises `StoreError`.
        """
        settings = self._settings
        link = await self._opened(address, on_push)
        async with closing_on_failure(link):
            login: tuple[CommandArgument, ...] = ()
            if settings.password:
                user = settings.username or "default"
                login = ("AUTH", user, settings.password.value)
            await link.ask("HELLO", 3, *login)
            # Keys of all databases are told: another one's make us forget in vain.
            named = [word for prefix in prefixes for word in ("PREFIX", prefix)]
            await link.ask("CLIENT", "TRACKING", "ON", "BCAST", *named)
        return link

    async def sentinel(self, address: RedisAddress) -> RedisConnection:
        """A link to a sentinel. Raises `StoreError`."""
        link = await self._opened(address)
        async with closing_on_failure(link):
            if self._settings.sentinel_password:
                await link.ask("AUTH", self._settings.sentinel_password.value)
        return link

    async def _opened(
        self,
        address: RedisAddress,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> RedisConnection:
        loop = asyncio.get_running_loop()
        settings = self._settings
        make = lambda: RedisConnection(address, settings.answer_timeout, on_push)  # noqa: E731
        try:
            async with asyncio.timeout(settings.connect_timeout):
                if address.path:
                    _, link = await loop.create_unix_connection(make, address.path)
                else:
                    host = address.host if self._context is not None else None
                    _, link = await loop.create_connection(
                        make,
                        address.host,
                        address.port,
                        ssl=self._context,
                        server_hostname=host,
                    )
        except TimeoutError:
            raise StoreError(
                f"{name_of(address)}: no connection within "
                f"{settings.connect_timeout:g} s"
            ) from None
        except (OSError, UnicodeError) as error:  # no name of a host, as well
            raise StoreError(f"{name_of(address)}: {error}") from None
        return link


@contextlib.asynccontextmanager
async def closing_on_failure(link: RedisConnection) -> AsyncIterator[None]:
    """Closes *link* when what is done with it fails."""
    try:
        yield
    except BaseException:
        await link.close()
        raise


def _context(settings: RedisSettings) -> ssl.SSLContext:
    """TLS 1.2 or later, with the system's authorities and those of the settings."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
