"""One Redis server: a command connection and a client-tracking connection.

Both are reopened whenever they close. Caches are valid only while the client-tracking
connection is open and replies. When it is open again, changes may have been missed, so
all caches are invalidated.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress
from .base import OnChange, OnState
from .redis_connection import (
    CommandArgument,
    Dialer,
    RedisConnection,
    close_on_error,
    format_address,
)
from .redis_errors import ConnectionLostError, ReplyError

MIN_RECONNECT_DELAY, MAX_RECONNECT_DELAY = 0.05, 0.4  # seconds
RECONNECT_WAIT = 0.3  # seconds that a command waits for a connection just lost
HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT = 1.0, 1.0  # seconds; command connection
# Seconds; client-tracking connection. Their sum limits how long caches can be stale.
INVALIDATION_INTERVAL, INVALIDATION_TIMEOUT = 0.25, 0.5
# Error replies of a server that is not the master, or not ready.
RECONNECT_ERRORS = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOAUTH"})
Locate = Callable[[], Awaitable[RedisAddress]]


class RedisServer:
    """The server at the address that *locate* returns, called before each connect.

    With *must_be_master* a replica is rejected, and the server is left once *locate*
    returns another address. A command connection that has not been used for
    *idle_timeout* seconds (0: unlimited) is reopened.
    """

    def __init__(
        self,
        dialer: Dialer,
        locate: Locate,
        prefixes: tuple[str, ...],
        on_change: OnChange,
        on_state: OnState,
        *,
        must_be_master: bool = False,
        idle_timeout: float = 0.0,
    ) -> None:
        self._dialer = dialer
        self._locate = locate
        self._prefixes = prefixes
        self._on_change = on_change
        self._on_state = on_state
        self._must_be_master = must_be_master
        self._idle_timeout = idle_timeout
        self._connection: RedisConnection | None = None
        self._connected = asyncio.Event()
        self._failed_attempts = 0  # to connect, since the last connection
        self._task: asyncio.Task[None] | None = None
        self.error = "no connection yet"
        self.notify_error = "no connection yet"
        self._tracking = False

    @property
    def notifies(self) -> bool:
        """Whether notifications of the server in use arrive."""
        return self._tracking and self.available

    @property
    def available(self) -> bool:
        """Whether the command connection is open."""
        return self.open_connection is not None

    @property
    def open_connection(self) -> RedisConnection | None:
        """The command connection if it is open, else None."""
        connection = self._connection
        return None if connection is None or connection.closed.is_set() else connection

    def start(self) -> None:
        """Connect in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Close both connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def call(self, *command: CommandArgument, retry: bool = True) -> Any:
        """Return the reply to *command*. Raises `StoreError`, `ReplyError`.

        With *retry* the command is sent again if the connection closes first.
        """
        connection = self.open_connection or await self._wait_for_connection()
        try:
            return await self._call(connection, command)
        except ConnectionLostError:
            if not retry:
                raise
        return await self._call(await self._wait_for_connection(), command)

    async def call_asking(self, *command: CommandArgument) -> Any:
        """Return the reply to *command* about a key that moves to this server (ASK)."""
        connection = self.open_connection or await self._wait_for_connection()
        asking = connection.send(("ASKING",))
        reply = connection.send(command)
        await connection.reply(asking)
        return await connection.reply(reply)

    async def _call(
        self, connection: RedisConnection, command: tuple[CommandArgument, ...]
    ) -> Any:
        connection.last_used_at = asyncio.get_running_loop().time()
        try:
            return await connection.call(*command)
        except ReplyError as error:
            if error.prefix in RECONNECT_ERRORS:
                connection.abort(str(error))
            raise

    async def _wait_for_connection(self) -> RedisConnection:
        """Return the connection; wait only if it was lost and no reconnect failed."""
        if self._connection is not None and self.open_connection is None:
            self._set_connection(None, self._connection.close_reason)
        if self._failed_attempts == 0 and self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_WAIT):
                    await self._connected.wait()
        if self._connection is None:
            raise StoreError(self.error)
        return self._connection

    async def _run(self) -> None:
        """Keep the connections open until canceled."""
        try:
            while True:
                try:
                    connection = await self._connect()
                except StoreError as error:
                    self._failed_attempts += 1
                    self._set_connection(None, str(error))
                else:
                    self._failed_attempts = 0
                    self._set_connection(connection, "")
                    await self._monitor(connection)
                await asyncio.sleep(_reconnect_delay(self._failed_attempts))
        finally:
            self._set_connection(None, "closed")

    async def _connect(self) -> RedisConnection:
        connection = await self._dialer.open_commands(await self._locate())
        if self._must_be_master:
            async with close_on_error(connection):
                role = await _role(connection)
                if role not in (b"master", None):
                    address = format_address(connection.address)
                    raise StoreError(f"{address}: expected a master, got a replica")
        return connection

    def _set_connection(self, connection: RedisConnection | None, error: str) -> None:
        changed = (connection is None) != (self._connection is None)
        self._connection = connection
        self.error = error
        if connection is None:
            self._connected.clear()
        else:
            self._connected.set()
        if changed:
            self._on_state()

    async def _monitor(self, connection: RedisConnection) -> None:
        """Check *connection*, and track changes, until it closes."""
        tracking = asyncio.get_running_loop().create_task(
            self._track_changes(connection.address)
        )
        try:
            while await _is_alive_after(
                HEARTBEAT_INTERVAL, connection, HEARTBEAT_TIMEOUT
            ):
                await self._check_master(connection)
        finally:
            if self._connection is connection:
                self._set_connection(None, connection.close_reason or "closed")
            await connection.close()
            tracking.cancel()
            await asyncio.gather(tracking, return_exceptions=True)

    async def _check_master(self, connection: RedisConnection) -> None:
        """Abort *connection* if it is idle or its server is no longer the master."""
        idle = asyncio.get_running_loop().time() - connection.last_used_at
        if self._idle_timeout and idle > self._idle_timeout:
            connection.abort("idle")
        elif self._must_be_master:
            with contextlib.suppress(StoreError):
                if await self._locate() != connection.address:
                    connection.abort("no longer the master")

    async def _track_changes(self, address: RedisAddress) -> None:
        """Keep the client-tracking connection open until canceled."""
        failed_attempts = 0
        try:
            while True:
                try:
                    connection = await self._dialer.open_invalidation(
                        address, self._prefixes, self._on_push
                    )
                except StoreError as error:
                    failed_attempts += 1
                    self.notify_error = str(error)
                else:
                    failed_attempts = 0
                    try:
                        self._on_change(None)
                        self._set_tracking(True)
                        while await _is_alive_after(
                            INVALIDATION_INTERVAL, connection, INVALIDATION_TIMEOUT
                        ):
                            pass
                    finally:
                        self.notify_error = connection.close_reason
                        self._set_tracking(False)
                        await connection.close()
                await asyncio.sleep(_reconnect_delay(failed_attempts))
        finally:
            self._set_tracking(False)

    def _on_push(self, message: list[Any]) -> None:
        for key in changed_keys(message):
            self._on_change(key)

    def _set_tracking(self, tracking: bool) -> None:
        if tracking != self._tracking:
            self._tracking = tracking
            self._on_state()


def changed_keys(message: list[Any]) -> list[str | None]:
    """Return the keys of an ``invalidate`` message; None stands for all keys.

    It has None after FLUSHALL or FLUSHDB; a malformed one counts as that.
    """
    match message:
        case [b"invalidate", [*keys]] if all(isinstance(key, bytes) for key in keys):
            return [key.decode("latin-1") for key in keys]
        case [b"invalidate", *_]:
            return [None]
    return []


async def _role(connection: RedisConnection) -> Any:
    """Return the server's role; None if the user may not ask, as oauth2-proxy's."""
    try:
        reply = await connection.call("ROLE")
    except ReplyError as error:
        if not error.is_denied:
            raise
        return None
    return reply[0] if isinstance(reply, list) and reply else b"unknown"


async def _is_alive_after(
    interval: float, connection: RedisConnection, limit: float
) -> bool:
    """Return whether *connection*, after *interval*, replies within *limit* seconds."""
    try:
        async with asyncio.timeout(interval):
            await connection.closed.wait()
            return False
    except TimeoutError:
        pass
    try:
        await connection.ping(limit)
    except StoreError:
        return False
    return True


def _reconnect_delay(failed_attempts: int) -> float:
    """Return the seconds until the next attempt: 0 first, then exponential back-off."""
    if failed_attempts == 0:
        return 0.0
    delay = min(MIN_RECONNECT_DELAY * 2.0 ** (failed_attempts - 1), MAX_RECONNECT_DELAY)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
