"""A Redis cluster: keys are in slots, and slots at masters, which may change."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
from typing import Any

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress
from .base import OnChange, OnState
from .redis_connection import CommandArgument, Dialer, ReplyError, name_of
from .redis_sentinel import address_of
from .redis_server import RedisServer

SLOTS = 16384
SLOTS_REFRESH_INTERVAL, LOOK_SOON = 2.0, 0.2  # seconds between two looks at the slots
MAX_REDIRECTIONS = 4  # times that one question may be sent elsewhere
RETRY_DELAY = 0.05  # seconds


def slot_of(key: str) -> int:
    """The slot of a key (CRC16/XMODEM); only what is in braces counts, if there is."""
    raw = key.encode(errors="replace")  # a key is ASCII
    start = raw.find(b"{")
    if start >= 0:
        end = raw.find(b"}", start + 1)
        if end > start + 1:
            raw = raw[start + 1 : end]
    return binascii.crc_hqx(raw, 0) % SLOTS


class Cluster:
    """The masters of a cluster, found through some of its *addresses*."""

    def __init__(
        self,
        dialer: Dialer,
        addresses: tuple[RedisAddress, ...],
        prefixes: tuple[str, ...],
        on_change: OnChange,
        on_state: OnState,
        *,
        idle_timeout: float = 0.0,
    ) -> None:
        self._dialer = dialer
        self._addresses = addresses
        self._prefixes = prefixes
        self._on_change = on_change
        self._on_state = on_state
        self._idle_timeout = idle_timeout
        self._masters: dict[RedisAddress, RedisServer] = {}
        self._slots: list[RedisServer | None] = [None] * SLOTS
        self._covered = False
        self._look_now = asyncio.Event()
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._problem = "no connection yet"

    @property
    def available(self) -> bool:
        """Whether every slot has a master that answers."""
        return self._covered and all(one.available for one in self._masters.values())

    @property
    def notifies(self) -> bool:
        """Whether all masters tell of changes."""
        return self._covered and all(one.notifies for one in self._masters.values())

    @property
    def error(self) -> str:
        """Why it is not available."""
        problems = [one.error for one in self._masters.values() if one.error]
        return self._problem or "; ".join(problems)

    @property
    def notify_error(self) -> str:
        """Why it is not trustworthy."""
        masters = self._masters.values()
        return "; ".join(one.notify_error for one in masters if not one.notifies)

    def start(self) -> None:
        """Look for the masters in the background."""
        self._task = asyncio.get_running_loop().create_task(self._keep_looking())

    async def close(self) -> None:
        """End all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*[one.close() for one in self._masters.values()])

    # -- asking

    async def ask(self, key: str, *words: CommandArgument, again: bool = True) -> Any:
        """The answer of the master of *key*. Raises `StoreError`."""
        server = await self._master_of(key)
        for _ in range(MAX_REDIRECTIONS):
            try:
                return await server.ask(*words, again=again)
            except ReplyError as error:
                moved = error
            match moved.word:
                case "MOVED":
                    self._look_now.set()
                    server = self._at(moved.text)
                    self._slots[slot_of(key)] = server
                case "ASK":
                    return await self._at(moved.text).asking(*words)
                case "TRYAGAIN" | "CLUSTERDOWN":
                    self._look_now.set()
                    await asyncio.sleep(RETRY_DELAY)
                case _:
                    raise moved
        raise moved

    async def _master_of(self, key: str) -> RedisServer:
        slot = slot_of(key)
        if self._slots[slot] is None and not self._looked.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_DELAY):
                    await self._looked.wait()
        server = self._slots[slot]
        if server is None:
            raise StoreError(self.error or "no master is known for this key")
        return server

    def _at(self, moved: str) -> RedisServer:
        """The server that ``MOVED slot host:port`` names."""
        host, _, port = moved.split(" ")[-1].rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise StoreError(f"expected the address of a node, got {moved!r}")
        return self._server(RedisAddress(host=host, port=int(port)))

    def _server(self, address: RedisAddress) -> RedisServer:
        server = self._masters.get(address)
        if server is None:

            async def locate() -> RedisAddress:
                return address

            server = RedisServer(
                self._dialer,
                locate,
                self._prefixes,
                self._on_change,
                self._noted,
                idle_timeout=self._idle_timeout,
            )
            self._masters[address] = server
            server.start()
        return server

    def _noted(self) -> None:
        if not self.available:
            self._look_now.set()
        self._on_state()

    # -- the slots

    async def _keep_looking(self) -> None:
        while True:
            try:
                await self._look()
                self._problem = ""
            except StoreError as error:
                self._problem = str(error)
                self._covered = False
            self._looked.set()
            self._on_state()
            self._look_now.clear()
            # Not more often than so, whatever tells us to.
            await asyncio.sleep(LOOK_SOON)
            if self.available:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SLOTS_REFRESH_INTERVAL):
                        await self._look_now.wait()

    async def _look(self) -> None:
        """Ask one node after the other for the slots. Raises `StoreError`."""
        reasons = []
        for address in dict.fromkeys((*self._masters, *self._addresses)):
            try:
                await self._take(await self._slots_of(address), address)
            except StoreError as error:
                reasons.append(str(error))
            else:
                return
        raise StoreError("no node of the cluster answers: " + "; ".join(reasons))

    async def _slots_of(self, address: RedisAddress) -> list[Any]:
        server = self._masters.get(address)
        if server is not None:
            if not server.available:
                raise StoreError(server.error)
            found = await server.ask("CLUSTER", "SLOTS", again=False)
        else:
            link = await self._dialer.data(address)
            try:
                found = await link.ask("CLUSTER", "SLOTS")
            finally:
                await link.close()
        if not found:
            raise StoreError(f"{name_of(address)}: knows of no slots")
        return list(found)

    async def _take(self, ranges: list[Any], asked: RedisAddress) -> None:
        slots: list[RedisServer | None] = [None] * SLOTS
        masters = set()
        for first, last, address in _masters(ranges, asked):
            masters.add(address)
            server = self._server(address)
            slots[first : last + 1] = [server] * (last + 1 - first)
        self._slots = slots
        self._covered = None not in slots
        gone = [one for one in self._masters if one not in masters]
        await asyncio.gather(*[self._masters.pop(one).close() for one in gone])


def _masters(
    ranges: list[Any], asked: RedisAddress
) -> list[tuple[int, int, RedisAddress]]:
    """First slot, last slot and master, as CLUSTER SLOTS says. Raises `StoreError`.

    A node that does not know its own address leaves it out; it is where it was *asked*.
    """
    try:
        return [
            (first, last, address_of(master) if master[0] else asked)
            for first, last, master, *_ in ranges
            if 0 <= first <= last < SLOTS
        ]
    except (TypeError, ValueError, IndexError):
        raise StoreError(f"expected ranges of slots, got {ranges!r}"[:200]) from None
