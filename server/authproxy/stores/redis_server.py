"""One Redis server: a link for what is asked, another one for its news.

Both are made anew whenever they are lost. Caches may rest on the news only while that
link stands and answers; when it stands again, whatever was missed is one change: of
everything.
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
    ConnectionLostError,
    Dialer,
    RedisConnection,
    ReplyError,
    closing_on_failure,
    name_of,
)

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.4  # seconds between two tries to connect
RECONNECT_WAIT = 0.3  # seconds that a question waits for a link that has just been lost
HEARTBEAT, HEARTBEAT_LIMIT = 1.0, 1.0  # seconds; of the link for questions
INVALIDATION_HEARTBEAT, NEWS_LIMIT = 0.25, 0.5  # seconds; so old may be what caches say
# Answers that say: this server is the wrong one, or not itself yet.
RECONNECT_ERRORS = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOAUTH"})
Locate = Callable[[], Awaitable[RedisAddress]]


class RedisServer:
    """The server that *locate* finds; asked again whenever the link was lost.

    ``check_every`` (seconds; 0: never) asks *locate* while the link stands, and leaves
    the server when it is not the one any more. ``must_be_master`` refuses replicas.
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
        self._link: RedisConnection | None = None
        self._linked = asyncio.Event()
        self._tries = 0  # that failed since the link stood
        self._task: asyncio.Task[None] | None = None
        self.error = "no connection yet"
        self.notify_error = "no connection yet"
        self._tells = False

    @property
    def notifies(self) -> bool:
        """Whether the news of the server that is asked arrive."""
        return self._tells and self.available

    @property
    def available(self) -> bool:
        """Whether the link for questions stands."""
        return self._live is not None

    @property
    def _live(self) -> RedisConnection | None:
        link = self._link
        return None if link is None or link.lost.is_set() else link

    def start(self) -> None:
        """Connect in the background."""
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """End the links."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- asking

    async def ask(self, *words: CommandArgument, again: bool = True) -> Any:
        """The answer; asked *again* when the link was lost meanwhile.

        Raises `StoreError`.
        """
        link = self._live or await self._soon()
        try:
            return await self._asked(link, words)
        except ConnectionLostError:
            if not again:
                raise
        return await self._asked(await self._soon(), words)

    async def asking(self, *words: CommandArgument) -> Any:
        """The answer about a key that is on its way to this server."""
        link = self._live or await self._soon()
        asking = link.send(("ASKING",))
        answer = link.send(words)
        await link.wait(asking)
        return await link.wait(answer)

    async def _asked(
        self, link: RedisConnection, words: tuple[CommandArgument, ...]
    ) -> Any:
        link.used_at = asyncio.get_running_loop().time()
        try:
            return await link.ask(*words)
        except ReplyError as error:
            if error.word in RECONNECT_ERRORS:
                link.abort(error.text)
            raise

    async def _soon(self) -> RedisConnection:
        """The link, if it stands within moments; only then is waiting worth it."""
        if self._link is not None and self._live is None:
            self._note(None, self._link.reason)
        if self._tries == 0 and self._task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_WAIT):
                    await self._linked.wait()
        if self._link is None:
            raise StoreError(self.error)
        return self._link

    # -- keeping the links

    async def _keep(self) -> None:
        try:
            while True:
                try:
                    link = await self._connected()
                except StoreError as error:
                    self._tries += 1
                    self._note(None, str(error))
                else:
                    self._tries = 0
                    self._note(link, "")
                    await self._used(link)
                await asyncio.sleep(_pause(self._tries))
        finally:
            self._note(None, "closed")

    async def _connected(self) -> RedisConnection:
        link = await self._dialer.data(await self._locate())
        if self._must_be_master:
            async with closing_on_failure(link):
                role = await link.ask("ROLE")
                if not isinstance(role, list) or role[:1] != [b"master"]:
                    raise StoreError(f"{name_of(link.address)}: a replica")
        return link

    def _note(self, link: RedisConnection | None, problem: str) -> None:
        changed = (link is None) != (self._link is None)
        self._link = link
        self.error = problem
        if link is None:
            self._linked.clear()
        else:
            self._linked.set()
        if changed:
            self._on_state()

    async def _used(self, link: RedisConnection) -> None:
        """Look after a link, and the news beside it, until it is lost."""
        news = asyncio.get_running_loop().create_task(self._keep_news(link.address))
        try:
            while await _beats(link, HEARTBEAT, HEARTBEAT_LIMIT):
                await self._check_master(link)
        finally:
            if self._link is link:
                self._note(None, link.reason or "closed")
            await link.close()
            news.cancel()
            await asyncio.gather(news, return_exceptions=True)

    async def _check_master(self, link: RedisConnection) -> None:
        """Leave a server that is not the one any more, or that nobody asks."""
        idle = asyncio.get_running_loop().time() - link.used_at
        if self._idle_timeout and idle > self._idle_timeout:
            link.abort("idle")
        elif self._must_be_master:
            with contextlib.suppress(StoreError):
                if await self._locate() != link.address:
                    link.abort("not the master any more")

    async def _keep_news(self, address: RedisAddress) -> None:
        tries = 0
        try:
            while True:
                try:
                    link = await self._dialer.open_invalidation(
                        address, self._prefixes, self._on_push
                    )
                except StoreError as error:
                    tries += 1
                    self.notify_error = str(error)
                else:
                    tries = 0
                    try:
                        self._on_change(None)
                        self._trust(True)
                        while await _beats(link, INVALIDATION_HEARTBEAT, NEWS_LIMIT):
                            pass
                    finally:
                        self.notify_error = link.reason
                        self._trust(False)
                        await link.close()
                await asyncio.sleep(_pause(tries))
        finally:
            self._trust(False)

    def _on_push(self, message: list[Any]) -> None:
        """A push: ``invalidate`` with keys, or with None when the database was emptied."""
        match message:
            case [b"invalidate", [*keys]]:
                for key in keys:
                    self._on_change(bytes(key).decode("latin-1"))
            case [b"invalidate", *_]:
                self._on_change(None)

    def _trust(self, trustworthy: bool) -> None:
        if trustworthy != self._tells:
            self._tells = trustworthy
            self._on_state()


async def _beats(link: RedisConnection, interval: float, limit: float) -> bool:
    """Whether *link* still answers after *interval* seconds."""
    try:
        async with asyncio.timeout(interval):
            await link.lost.wait()
            return False
    except TimeoutError:
        pass
    try:
        await link.ping(limit)
    except StoreError:
        return False
    return True


def _pause(tries: int) -> float:
    """Seconds before the next try: at once, then longer and longer."""
    if tries == 0:
        return 0.0
    pause = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
    return pause * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
