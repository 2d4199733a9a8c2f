"""One connection to a Redis server, with pipelined commands.

Commands of one event-loop iteration are sent together and replies arrive in order. So no
connection pool is necessary, and few system calls are made under load. hiredis parses
RESP 2 and 3; the size of a reply and the time for it are limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias, cast

import hiredis

from authproxy_core.errors import StoreError

from ..net.connect import open_socket
from ..server_settings import RedisAddress, RedisSettings
from .base import MAX_VALUE
from .redis_errors import ConnectionLostError, ReplyError

CommandArgument: TypeAlias = bytes | str | int | float
MAX_REPLY = 8 * MAX_VALUE  # bytes of one reply, which may contain several values
MAX_PENDING_COMMANDS = 10_000  # sent commands without a reply
CLOSE_TIMEOUT = 1.0  # seconds
_INCOMPLETE = object()
# hiredis allocates the declared size: 3 GB and seconds for 12 bytes. No reply has that
# many elements, and no value such bytes: values are sealed.
HUGE_ARRAY = re.compile(rb"\n[*>~%|][0-9]{6}")
HEADER_BYTES = 7  # of a header that may continue in the next data


class RedisConnection(asyncio.Protocol):
    """A connection; *on_push* receives the server's push messages (RESP3).

    Replies must arrive within *timeout* seconds. ``closed`` is set once no more
    commands can be sent; ``close_reason`` is the cause.
    """

    def __init__(
        self,
        address: RedisAddress,
        timeout: float,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self.address = address
        self.closed = asyncio.Event()
        self.close_reason = ""
        self.last_used_at = 0.0  # loop time of the last command other than a heartbeat
        self._timeout = timeout
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._transport_closed = asyncio.Event()
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._incomplete_bytes = 0  # received bytes of an incomplete reply
        self._last_bytes = b"\n"  # of the received data

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse replies and resolve the commands' futures."""
        self._incomplete_bytes += len(data)
        recent = self._last_bytes + data
        if HUGE_ARRAY.search(recent):
            self.abort("got an array of more than 99999 elements")
            return
        self._last_bytes = recent[-HEADER_BYTES:]
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _INCOMPLETE:
                self._incomplete_bytes = 0
                if isinstance(reply, hiredis.PushNotification):
                    if self._on_push is not None:
                        self._on_push(reply)
                else:
                    self._on_reply(reply)
        except (hiredis.ProtocolError, TypeError) as error:  # an array as a map's key
            self.abort(f"not a Redis server: {error}")
        if self._incomplete_bytes > MAX_REPLY:
            self.abort(f"got a reply longer than {MAX_REPLY} bytes")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail all pending commands."""
        reason = str(error or "") or "connection closed by the server"
        self.abort(reason)
        self._transport_closed.set()

    def _on_reply(self, reply: Any) -> None:
        if not self._pending:
            self.abort("got a reply without a command")
            return
        future, _ = self._pending.popleft()
        if not future.done():
            future.set_result(reply)

    # Called by the owner.

    def send(self, command: tuple[CommandArgument, ...]) -> asyncio.Future[Any]:
        """Send *command*; the future's result is the reply, also an error reply.

        It is a `StoreError`, for `reply` to raise, if the connection closes before.
        """
        if self.closed.is_set():
            raise ConnectionLostError(self.close_reason)
        if len(self._pending) >= MAX_PENDING_COMMANDS:
            raise StoreError(
                f"session store queue full ({MAX_PENDING_COMMANDS} operations)"
            )
        try:
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]
        except UnicodeError:
            raise StoreError("invalid key: not encodable as UTF-8") from None
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.append((future, self._loop.time()))
        if self._timer is None:
            self._schedule_check()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(packed)
        return future

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _schedule_check(self) -> None:
        delay = self._timeout / 4
        due = self._loop.time() + delay
        self._timer = self._loop.call_later(delay, self._check_timeout, due)

    def _check_timeout(self, due: float) -> None:
        """Abort the connection if the oldest reply is late, so all later ones are too.

        One timer serves all commands: a timeout for each would cost a third of the
        exchange.
        """
        self._timer = None
        if not self._pending:
            return
        now = self._loop.time()
        _, sent_at = self._pending[0]
        # A late timer: this process was suspended, so the reply may be unread.
        if now - sent_at >= self._timeout and now - due < self._timeout / 4:
            self._abort_late(self._timeout)
        else:
            self._schedule_check()

    def _abort_late(self, limit: float) -> None:
        self.abort(f"no reply within {limit:g} s", StoreError)

    @staticmethod
    async def reply(future: asyncio.Future[Any]) -> Any:
        """Return the reply to a sent command. Raises `StoreError`, `ReplyError`."""
        reply = await future
        if isinstance(reply, hiredis.ReplyError):
            raise ReplyError(str(reply))
        if isinstance(reply, StoreError):  # without the frames that refer to it
            raise type(reply)(str(reply))
        return reply

    async def call(self, *command: CommandArgument) -> Any:
        """Send *command* and return its reply. Raises `StoreError`, `ReplyError`."""
        return await self.reply(self.send(command))

    async def ping(self, limit: float) -> None:
        """Raise `StoreError` unless the server replies within *limit* seconds."""
        future = self.send(("PING",))
        try:
            async with asyncio.timeout(limit):
                reply = await self.reply(future)
        except TimeoutError:
            self._abort_late(limit)
            raise StoreError(self.close_reason) from None
        if reply != b"PONG":  # replies do not match the commands any more
            self.abort("got a reply to another command")
            raise StoreError(self.close_reason)

    def abort(self, reason: str, error: type[StoreError] = ConnectionLostError) -> None:
        """Close the connection at once; pending commands fail with *error*."""
        if self.closed.is_set():
            return
        self.close_reason = f"{format_address(self.address)}: {reason}"
        self.closed.set()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future, _ in self._pending:
            if not future.done():
                future.set_result(error(self.close_reason))
        self._pending.clear()

    async def close(self) -> None:
        """Close the connection, and wait until the transport is closed."""
        self.abort("closed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._transport_closed.wait()


def format_address(address: RedisAddress) -> str:
    """Return *address* as text for messages: a path or ``host:port``."""
    return address.path or f"{address.host}:{address.port}"


class Dialer:
    """Opens connections with the TLS, user, password and database of *settings*."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._context = _tls_context(settings) if settings.tls else None

    async def open_commands(self, address: RedisAddress) -> RedisConnection:
        """Open a connection for commands. Raises `StoreError`."""
        settings = self._settings
        connection = await self._connect(address)
        async with close_on_error(connection):
            if settings.password:
                user = (settings.username,) if settings.username else ()
                await connection.call("AUTH", *user, settings.password.value)
            if settings.client_name:
                await _set_name(connection, settings.client_name)
            if settings.db:
                await connection.call("SELECT", settings.db)
            await connection.call("PING")
        return connection

    async def open_invalidation(
        self,
        address: RedisAddress,
        prefixes: tuple[str, ...],
        on_push: Callable[[list[Any]], None],
    ) -> RedisConnection:
        """Open a connection that reports changes of keys with these *prefixes*.

        It uses CLIENT TRACKING in broadcasting mode. Raises `StoreError`.
        """
        settings = self._settings
        connection = await self._connect(address, on_push)
        async with close_on_error(connection):
            login: tuple[CommandArgument, ...] = ()
            if settings.password:
                user = settings.username or "default"
                login = ("AUTH", user, settings.password.value)
            await connection.call("HELLO", 3, *login)
            # Redis reports the keys of all databases: a few invalidations are needless.
            options = [item for prefix in prefixes for item in ("PREFIX", prefix)]
            await connection.call("CLIENT", "TRACKING", "ON", "BCAST", *options)
        return connection

    async def open_sentinel(self, address: RedisAddress) -> RedisConnection:
        """Open a connection to a sentinel. Raises `StoreError`."""
        connection = await self._connect(address)
        async with close_on_error(connection):
            if self._settings.sentinel_password:
                await connection.call("AUTH", self._settings.sentinel_password.value)
        return connection

    async def _connect(
        self,
        address: RedisAddress,
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> RedisConnection:
        loop = asyncio.get_running_loop()
        settings = self._settings
        create = lambda: RedisConnection(address, settings.response_timeout, on_push)  # noqa: E731
        try:
            async with asyncio.timeout(settings.connect_timeout):
                if address.path:
                    _, connection = await loop.create_unix_connection(
                        create, address.path
                    )
                else:
                    host = address.host if self._context is not None else None
                    _, connection = await loop.create_connection(
                        create,
                        sock=await open_socket(address.host, address.port),
                        ssl=self._context,
                        server_hostname=host,
                    )
        except TimeoutError:
            raise StoreError(
                f"{format_address(address)}: no connection within "
                f"{settings.connect_timeout:g} s"
            ) from None
        except (OSError, UnicodeError) as error:  # UnicodeError: invalid host name
            # A connection that closes during the TLS handshake has an error without text.
            cause = str(error) or type(error).__name__
            raise StoreError(f"{format_address(address)}: {cause}") from None
        return connection


async def _set_name(connection: RedisConnection, name: str) -> None:
    try:
        await connection.call("CLIENT", "SETNAME", name)
    except ReplyError as error:
        if not error.is_denied:
            raise


@contextlib.asynccontextmanager
async def close_on_error(connection: RedisConnection) -> AsyncIterator[None]:
    """Close *connection* if the body raises."""
    try:
        yield
    except BaseException:
        await connection.close()
        raise


def _tls_context(settings: RedisSettings) -> ssl.SSLContext:
    """Return a context for TLS 1.2+ with the system's CAs and ``ca_file``."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
