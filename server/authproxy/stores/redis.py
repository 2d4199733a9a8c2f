"""The Redis store: a single server, a master found by sentinels, or a cluster.

Tickets and their locks have oauth2-proxy's format, so both programs can share a Redis.
Sets are sorted sets; the score of a member is its expiry by the clock of Redis. With a
user that may only run oauth2-proxy's commands, there are no sets, and steps that are
otherwise one command are several.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from functools import partial
from typing import Any, Protocol

import hiredis

from authproxy_core.errors import StoreError

from ..contract import OnLoaded
from ..server_settings import RedisAddress, RedisSettings
from .base import MAX_MEMBERS, MAX_VALUE, OnChange, OnState
from .redis_cluster import Cluster
from .redis_connection import CommandArgument, Dialer, RedisConnection
from .redis_errors import ConnectionLostError, ReplyError
from .redis_sentinel import Sentinels
from .redis_server import RedisServer
from .store_locks import StoreLocks

NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
# The set itself expires with its last member.
ADD = (
    NOW
    + """
local ends = ARGV[2] == '0' and '+inf' or string.format('%.0f', now + ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], ends, ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if last == 'inf' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', last)) end
"""
)
MEMBERS = (
    NOW
    + "return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), "
    "'+inf', 'LIMIT', 0, ARGV[1])"
)
REPLACE = (
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end "
    "if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) "
    "else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 1"
)
RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then "
    "return redis.call('DEL', KEYS[1]) end return 0"
)
NO_SETS = (
    "sessions are not indexed: they are not listed, and a logout by the provider or the "
    "command line does not find them"
)
NO_SCRIPTS = "a refresh that lost its lock may overwrite a newer session"
PERMISSION_CHECK_INTERVAL = 5.0  # seconds, while permissions are missing
PROBE_INTERVAL = 0.5  # seconds between two checks of the commands while they fail
# Of a check: they have different slots, so a cluster node would redirect some of them.
PROBE_KEYS = 16
UNEXPECTED_REPLY = "redis: got a reply to another command"
NOT_CHECKED = "its commands have not been checked yet"


class Router(Protocol):
    """Sends commands to the server of a key; `SingleMaster` and `Cluster` are some."""

    @property
    def available(self) -> bool:
        """Whether all servers are connected."""

    @property
    def notifies(self) -> bool:
        """Whether notifications of all servers arrive."""

    @property
    def error(self) -> str:
        """Reason for unavailability of a server, "" if available."""

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications."""

    @property
    def open_connection(self) -> RedisConnection | None:
        """The open command connection to the only server, else None."""

    def start(self) -> None:
        """Connect in the background."""

    async def close(self) -> None:
        """Close all connections."""

    async def call(
        self, key: str, *command: CommandArgument, retry: bool = True
    ) -> Any:
        """Return the reply of the server of *key*. Raises `StoreError`, `ReplyError`.

        With *retry* the command is sent again if the connection closes first.
        """


class SingleMaster:
    """The router for one server, which has all keys."""

    def __init__(self, server: RedisServer, sentinels: Sentinels | None) -> None:
        self._server = server
        self._sentinels = sentinels

    @property
    def available(self) -> bool:
        """Whether the server is connected."""
        return self._server.available

    @property
    def notifies(self) -> bool:
        """Whether notifications arrive."""
        return self._server.notifies

    @property
    def error(self) -> str:
        """Reason for unavailability of the server, "" if available."""
        return self._server.error

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications."""
        return self._server.notify_error

    @property
    def open_connection(self) -> RedisConnection | None:
        """The open command connection to the server, else None."""
        return self._server.open_connection

    def start(self) -> None:
        """Connect in the background."""
        self._server.start()

    async def close(self) -> None:
        """Close all connections."""
        await self._server.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    async def call(
        self, key: str, *command: CommandArgument, retry: bool = True
    ) -> Any:
        """Return the server's reply; *key* is ignored. Raises `StoreError`."""
        return await self._server.call(*command, retry=retry)


def create_router(
    settings: RedisSettings,
    prefixes: tuple[str, ...],
    on_change: OnChange,
    on_state: OnState,
) -> Router:
    """Return the router for the mode of *settings*."""
    dialer = Dialer(settings)
    if settings.mode == "cluster":
        return Cluster(
            dialer,
            settings.addresses,
            prefixes,
            on_change,
            on_state,
            idle_timeout=settings.idle_timeout,
        )
    sentinels = None
    if settings.mode == "sentinel":
        sentinels = Sentinels(dialer, settings.addresses, settings.master_name)
        locate = sentinels.locate_master
    else:
        locate = partial(_fixed_address, settings.addresses[0])
    server = RedisServer(
        dialer,
        locate,
        prefixes,
        on_change,
        on_state,
        must_be_master=sentinels is not None,
        idle_timeout=settings.idle_timeout,
    )
    return SingleMaster(server, sentinels)


async def _fixed_address(address: RedisAddress) -> RedisAddress:
    return address


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class RedisStore:
    """A store in Redis; all keys start with *name* and a dash."""

    def __init__(self, settings: RedisSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._router: Router
        self._locks = StoreLocks()
        self._on_state: OnState = lambda: None
        self._write_error = NOT_CHECKED  # or an error reply, until a check succeeds
        self._failed_key = ""  # of the last write with an error reply
        self._state_changed = asyncio.Event()
        self._denied: dict[str, str] = {}  # missing feature → error reply
        self._has_mget = settings.mode != "cluster"
        self._task: asyncio.Task[None] | None = None

    @property
    def notifies(self) -> bool:
        """Whether notifications arrive."""
        return self._router.notifies

    @property
    def available(self) -> bool:
        """Whether Redis is connected and executes the commands that logins need."""
        return self._router.available and not self._write_error

    @property
    def error(self) -> str:
        """Reason for unavailability of the store, "" if available."""
        return self._router.error or self._write_error

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications."""
        return self._router.notify_error

    @property
    def limitation(self) -> str:
        """Features that the Redis user has no permission for, "" if none."""
        return "; ".join(f"{what} ({reply})" for what, reply in self._denied.items())

    @property
    def _probe(self) -> str:
        return f"{self._name}-probe:"

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Connect in the background."""
        self._on_state = on_state
        prefixes = (f"{self._name}-",)

        def report_change(key: str | None) -> None:
            if key is None or not key.startswith(self._probe):
                on_change(key)

        self._router = create_router(
            self._settings, prefixes, report_change, self._on_router_state
        )
        self._router.start()
        self._task = asyncio.get_running_loop().create_task(self._run_maintenance())

    async def close(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._router.close()

    async def load(self, key: str) -> bytes | None:
        """Return the value of *key*; None if it is absent."""
        return _check_value(await self._router.call(key, "GET", key))

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """Return the values of *keys*, in their order, with one exchange."""
        if self._has_mget and keys:
            try:
                replies = await self._router.call(keys[0], "MGET", *keys)
            except ReplyError as error:
                if not error.is_denied:
                    raise
                self._has_mget = False
            else:
                return tuple(map(_check_value, _check_list(replies, len(keys))))
        return tuple(await asyncio.gather(*[self.load(key) for key in keys]))

    def start_load(self, keys: tuple[str, ...], on_loaded: OnLoaded) -> bool:
        """Start `load_all` without a task; see `Store.start_load`."""
        connection = self._router.open_connection if self._has_mget else None
        if connection is None or not keys:
            return False
        try:
            reply = connection.send(("MGET", *keys))
        except StoreError:
            return False
        connection.last_used_at = asyncio.get_running_loop().time()
        reply.add_done_callback(partial(_finish_load, len(keys), on_loaded))
        return True

    async def save(
        self, key: str, value: bytes, ttl: float, expected: bytes | None = None
    ) -> bool:
        """Set *key* to *value*; with *expected*, only if that is the present value."""
        if len(value) > MAX_VALUE:
            raise StoreError(
                f"got a value of {len(value)} bytes, expected at most {MAX_VALUE}"
            )
        lifetime = _milliseconds(ttl) if ttl else 0
        if expected:
            replace = ("EVAL", REPLACE, 1, key, expected, value, lifetime)
            reply = await self._write_if_permitted(NO_SCRIPTS, key, *replace)
            if reply is not None:
                return bool(reply)
            if await self.load(key) != expected:
                return False
            expected = None
        options = ("PX", lifetime) if ttl else ()
        absent = () if expected is None else ("NX",)
        reply = await self._write(key, "SET", key, value, *options, *absent)
        return reply is not None

    async def delete(self, key: str) -> None:
        """Delete the value or set of *key*."""
        await self._write(key, "DEL", key)

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Add *member* to the set of *key*, or reset its TTL."""
        lifetime = _milliseconds(ttl) if ttl else 0
        command = ("EVAL", ADD, 1, key, member, lifetime)
        await self._write_if_permitted(NO_SETS, key, *command)

    async def members(self, key: str) -> tuple[bytes, ...]:
        """Return the members of the set of *key* that have not expired."""
        command = ("EVAL", MEMBERS, 1, key, MAX_MEMBERS)
        members = map(_check_value, _check_list(await self._router.call(key, *command)))
        return tuple(member for member in members if member is not None)

    async def remove(self, key: str, member: bytes) -> None:
        """Remove *member* from the set of *key*."""
        await self._write_if_permitted(NO_SETS, key, "ZREM", key, member)

    async def acquire_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Acquire the lock *key* for *token*; False if it is not free within *wait*."""
        attempt = partial(self._try_lock, key, ttl, token)
        return await self._locks.acquire(key, ttl, wait, token, attempt)

    async def _try_lock(self, key: str, ttl: float, token: str) -> bool:
        command = ("SET", key, token, "NX", "PX", _milliseconds(ttl))
        # No retry: it would fail if the lost command had acquired the lock.
        return await self._write(key, *command, retry=False) is not None

    async def release_lock(self, key: str, token: str) -> None:
        """Release the lock *key* if *token* holds it."""
        await self._locks.release(key, token, partial(self._release, key, token))

    async def _release(self, key: str, token: str) -> None:
        command = ("EVAL", RELEASE, 1, key, token)
        reply = await self._write_if_permitted(NO_SCRIPTS, key, *command)
        if reply is None and await self.load(key) == token.encode():
            await self.delete(key)

    async def _write(
        self, key: str, *command: CommandArgument, retry: bool = True
    ) -> Any:
        try:
            reply = await self._router.call(key, *command, retry=retry)
        except ReplyError as error:  # such as OOM or NOPERM
            self._set_write_error(str(error), key)
            raise
        return reply

    async def _write_if_permitted(
        self, feature: str, key: str, *command: CommandArgument
    ) -> Any:
        """Return the reply; None if the user may not run *command*.

        *feature* is then missing, but the store is available.
        """
        try:
            reply = await self._router.call(key, *command)
        except ReplyError as error:
            if not error.is_denied:
                self._set_write_error(str(error), key)
                raise
            self._set_denied(feature, f"redis: {error.text}")
            return None
        self._set_denied(feature, "")
        return 1 if reply is None else reply

    def _set_denied(self, feature: str, reply: str) -> None:
        if bool(reply) == (feature in self._denied):
            return
        if reply:
            self._denied[feature] = reply
        else:
            del self._denied[feature]
        self._on_state()

    def _set_write_error(self, error: str, key: str = "") -> None:
        changed = error != self._write_error
        self._write_error, self._failed_key = error, key
        if changed:
            self._on_state()

    def _on_router_state(self) -> None:
        """After a reconnect, check the commands again: it may be another server."""
        if not self._router.available:
            self._write_error = self._write_error or NOT_CHECKED
        self._state_changed.set()
        self._on_state()

    async def _run_maintenance(self) -> None:
        loop = asyncio.get_running_loop()
        check_at = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_INTERVAL):
                    await self._state_changed.wait()
            self._state_changed.clear()
            if not self._router.available:
                continue
            try:
                if self._write_error:
                    await self._check_commands()
                if loop.time() >= check_at:
                    await self._check_permissions()
                    wait = PERMISSION_CHECK_INTERVAL if self._denied else math.inf
                    check_at = loop.time() + wait
                await self._locks.release_deferred(self._release)
            except StoreError:
                await asyncio.sleep(PROBE_INTERVAL)

    async def _check_commands(self) -> None:
        """Run the commands that logins need; the outcome decides the availability."""
        keys = [f"{self._probe}{number}" for number in range(PROBE_KEYS)]
        if self._failed_key:
            keys.append(f"{self._probe}{{{self._failed_key}}}")  # has the same slot
        call = self._router.call
        try:
            await asyncio.gather(
                *[call(key, "SET", key, "", "NX", "PX", 1000) for key in keys]
            )
            await call(keys[0], "GET", keys[0])
            await call(keys[0], "DEL", keys[0])
        except ReplyError as error:
            self._set_write_error(str(error), self._failed_key)
            raise
        self._set_write_error("")

    async def _check_permissions(self) -> None:
        """Find the features that the user has no permission for."""
        await self.add(f"{self._probe}set", b"", 1.0)
        await self._release(self._probe, "")


def _finish_load(size: int, on_loaded: OnLoaded, future: asyncio.Future[Any]) -> None:
    reply = future.result()  # or an error: see `RedisConnection.reply`
    if isinstance(reply, (ConnectionLostError, hiredis.ReplyError)):
        on_loaded(None)
        return
    if isinstance(reply, StoreError):
        on_loaded(reply)
        return
    try:
        values = tuple(map(_check_value, _check_list(reply, size)))
    except StoreError as unexpected:
        on_loaded(unexpected)
    else:
        on_loaded(values)


def _check_value(reply: Any) -> bytes | None:
    """Return a value; raises `StoreError` if the reply belongs to another command."""
    if reply is None:
        return None
    if not isinstance(reply, bytes):
        raise StoreError(UNEXPECTED_REPLY)
    if len(reply) > MAX_VALUE:
        raise StoreError(
            f"got a value of {len(reply)} bytes, expected at most {MAX_VALUE}"
        )
    return reply


def _check_list(reply: Any, size: int | None = None) -> list[Any]:
    if not isinstance(reply, list) or size not in (None, len(reply)):
        raise StoreError(UNEXPECTED_REPLY)
    return reply
