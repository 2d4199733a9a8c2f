"""Redis as the store: one server, a master that sentinels name, or a cluster.

Tickets and their locks are as oauth2-proxy keeps them, so that both can run on one
Redis. Sets are sorted sets whose scores are the members' ends, by Redis's own clock.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Any, Protocol

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress, RedisSettings
from .base import MAX_MEMBERS, MAX_VALUE, OnChange, OnState
from .redis_cluster import Cluster
from .redis_connection import CommandArgument, Dialer, ReplyError
from .redis_sentinel import Sentinels
from .redis_server import RedisServer
from .store_locks import StoreLocks

NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
# Of the set itself the end is that of the member that lives longest.
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
RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then "
    "return redis.call('DEL', KEYS[1]) end return 0"
)
PROBE = 0.5  # seconds between two tries to write, after Redis has refused it


class Router(Protocol):
    """Who knows the server of a key; `Cluster` is one."""

    @property
    def available(self) -> bool:
        """Whether all servers answer."""

    @property
    def notifies(self) -> bool:
        """Whether all of them tell of changes."""

    @property
    def error(self) -> str:
        """Why it is not available."""

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy."""

    def start(self) -> None:
        """Connect in the background."""

    async def close(self) -> None:
        """End all connections."""

    async def ask(self, key: str, *words: CommandArgument, again: bool = True) -> Any:
        """The answer of the server of *key*. Raises `StoreError`."""


class SingleMaster:
    """The router when one server has all keys."""

    def __init__(self, server: RedisServer, sentinels: Sentinels | None) -> None:
        self._server = server
        self._sentinels = sentinels

    @property
    def available(self) -> bool:
        """Whether it answers."""
        return self._server.available

    @property
    def notifies(self) -> bool:
        """Whether it tells of changes."""
        return self._server.notifies

    @property
    def error(self) -> str:
        """Why it is not available."""
        return self._server.error

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy."""
        return self._server.notify_error

    def start(self) -> None:
        """Connect in the background."""
        self._server.start()

    async def close(self) -> None:
        """End all connections."""
        await self._server.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    async def ask(self, key: str, *words: CommandArgument, again: bool = True) -> Any:
        """The server's answer, whatever the *key*. Raises `StoreError`."""
        return await self._server.ask(*words, again=again)


def router(
    settings: RedisSettings,
    prefixes: tuple[str, ...],
    on_change: OnChange,
    on_state: OnState,
) -> Router:
    """What finds the server of a key in this kind of Redis."""
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
        locate = sentinels.master
    else:
        locate = partial(_fixed, settings.addresses[0])
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


async def _fixed(address: RedisAddress) -> RedisAddress:
    return address


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _nothing(*_: object) -> None:
    """Hears of nothing."""


class RedisStore:
    """A store in Redis; all keys begin with *name* and a dash or a colon."""

    def __init__(self, settings: RedisSettings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._router: Router
        self._locks = StoreLocks()
        self._on_state: OnState = _nothing
        self._refusal = ""  # of the last write
        self._task: asyncio.Task[None] | None = None

    @property
    def notifies(self) -> bool:
        """Whether Redis tells of changes."""
        return self._router.notifies

    @property
    def available(self) -> bool:
        """Whether Redis answers and takes what is written."""
        return self._router.available and not self._refusal

    @property
    def error(self) -> str:
        """Why it is not available."""
        return self._router.error or self._refusal

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy."""
        return self._router.notify_error

    async def start(self, on_change: OnChange, on_state: OnState) -> None:
        """Connect in the background."""
        self._on_state = on_state
        prefixes = (f"{self._name}-", f"{self._name}:")
        self._router = router(self._settings, prefixes, on_change, on_state)
        self._router.start()
        self._task = asyncio.get_running_loop().create_task(self._tend())

    async def close(self) -> None:
        """End all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._router.close()

    # -- values

    async def load(self, key: str) -> bytes | None:
        """The value under *key*."""
        return _value(await self._router.ask(key, "GET", key))

    async def load_all(self, keys: tuple[str, ...]) -> tuple[bytes | None, ...]:
        """The values under *keys*, in their order, sent together."""
        if self._settings.mode == "cluster" or not keys:
            return tuple(await asyncio.gather(*[self.load(key) for key in keys]))
        return tuple(map(_value, await self._router.ask(keys[0], "MGET", *keys)))

    async def save(self, key: str, value: bytes, ttl: float) -> None:
        """Put *value* under *key*."""
        if len(value) > MAX_VALUE:
            raise StoreError(f"a value of {len(value)} bytes is too long to be kept")
        end = ("PX", _milliseconds(ttl)) if ttl else ()
        await self._write(key, "SET", key, value, *end)

    async def delete(self, key: str) -> None:
        """Forget *key*."""
        await self._write(key, "DEL", key)

    # -- sets

    async def add(self, key: str, member: bytes, ttl: float) -> None:
        """Put *member* into the set under *key*, or renew its time."""
        time = _milliseconds(ttl) if ttl else 0
        await self._write(key, "EVAL", ADD, 1, key, member, time)

    async def members(self, key: str) -> tuple[bytes, ...]:
        """The members of the set under *key*."""
        return tuple(await self._router.ask(key, "EVAL", MEMBERS, 1, key, MAX_MEMBERS))

    async def remove(self, key: str, member: bytes) -> None:
        """Take *member* out of the set under *key*."""
        await self._write(key, "ZREM", key, member)

    # -- locks

    async def take_lock(self, key: str, ttl: float, wait: float, token: str) -> bool:
        """Hold the lock *key* as *token* for *ttl*; False when not free in *wait*."""
        attempt = partial(self._try_lock, key, ttl, token)
        return await self._locks.take(key, ttl, wait, token, attempt)

    async def _try_lock(self, key: str, ttl: float, token: str) -> bool:
        words = ("SET", key, token, "NX", "PX", _milliseconds(ttl))
        # A second try could not tell whether the first one had taken it.
        return await self._write(key, *words, again=False) is not None

    async def release_lock(self, key: str, token: str) -> None:
        """Give the lock back if *token* still holds it."""
        await self._locks.release(key, token, partial(self._release, key, token))

    async def _release(self, key: str, token: str) -> None:
        await self._write(key, "EVAL", RELEASE, 1, key, token)

    # -- looking after it

    async def _write(
        self, key: str, *words: CommandArgument, again: bool = True
    ) -> Any:
        try:
            reply = await self._router.ask(key, *words, again=again)
        except ReplyError as error:  # out of memory, not allowed …
            self._note(str(error))
            raise
        if self._refusal:
            self._note("")
        return reply

    def _note(self, refusal: str) -> None:
        changed = bool(refusal) != bool(self._refusal)
        self._refusal = refusal
        if changed:
            self._on_state()

    async def _tend(self) -> None:
        probe = f"{self._name}:probe"
        while True:
            await asyncio.sleep(PROBE)
            with contextlib.suppress(StoreError):
                if self._refusal:
                    await self._write(probe, "SET", probe, "", "PX", 1000)
                if self.available:
                    await self._locks.release_deferred(self._release)


def _value(reply: bytes | None) -> bytes | None:
    if reply is not None and len(reply) > MAX_VALUE:
        raise StoreError(
            f"got a value of {len(reply)} bytes, expected at most {MAX_VALUE}"
        )
    return reply
