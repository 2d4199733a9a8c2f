"""Redis Cluster: keys belong to slots, and slots to masters, which may change."""

from __future__ import annotations

import asyncio
import binascii
import contextlib
from typing import Any

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress
from .base import OnChange, OnState
from .redis_connection import CommandArgument, Dialer, format_address
from .redis_errors import ReplyError
from .redis_sentinel import make_address, parse_address
from .redis_server import RedisServer

SLOTS = 16384
SLOTS_REFRESH_INTERVAL = 2.0  # seconds
MIN_REFRESH_INTERVAL = 0.2  # seconds, when a refresh is requested
MAX_REDIRECTIONS = 4  # per command
RETRY_DELAY = 0.05  # seconds


def slot_of(key: str) -> int:
    """Return the slot of *key*: CRC16/XMODEM of its hash tag, else of all of it."""
    raw = key.encode(errors="replace")  # a key is ASCII
    start = raw.find(b"{")
    if start >= 0:
        end = raw.find(b"}", start + 1)
        if end > start + 1:
            raw = raw[start + 1 : end]
    return binascii.crc_hqx(raw, 0) % SLOTS


class Cluster:
    """The masters of a cluster, discovered through some of its *addresses*."""

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
        self._complete = False  # whether every slot has a master
        self._refresh_requested = asyncio.Event()
        self._refreshed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._refresh_error = "no connection yet"

    @property
    def available(self) -> bool:
        """Whether every slot has a connected master."""
        return self._complete and all(one.available for one in self._masters.values())

    @property
    def notifies(self) -> bool:
        """Whether notifications of all masters arrive."""
        return self._complete and all(one.notifies for one in self._masters.values())

    @property
    def error(self) -> str:
        """Reason for unavailability of the cluster, "" if available."""
        errors = [one.error for one in self._masters.values() if one.error]
        return self._refresh_error or "; ".join(errors)

    @property
    def notify_error(self) -> str:
        """Reason for missing notifications."""
        masters = self._masters.values()
        return "; ".join(one.notify_error for one in masters if not one.notifies)

    @property
    def open_connection(self) -> None:
        """None: keys have different servers."""
        return None

    def start(self) -> None:
        """Discover the masters in the background."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Close all connections."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.gather(*[one.close() for one in self._masters.values()])

    async def call(
        self, key: str, *command: CommandArgument, retry: bool = True
    ) -> Any:
        """Return the reply of the master of *key*. Raises `StoreError`."""
        server = await self._master_of(key)
        for _ in range(MAX_REDIRECTIONS):
            try:
                return await server.call(*command, retry=retry)
            except ReplyError as error:
                reply = error.with_traceback(None)  # it would refer to this frame
            match reply.prefix:
                case "MOVED":
                    self._refresh_requested.set()
                    server = self._redirect_target(reply.text)
                    self._slots[slot_of(key)] = server
                case "ASK":
                    return await self._redirect_target(reply.text).call_asking(*command)
                case "TRYAGAIN" | "CLUSTERDOWN":
                    self._refresh_requested.set()
                    await asyncio.sleep(RETRY_DELAY)
                case _:
                    break
        raise ReplyError(reply.text)

    async def _master_of(self, key: str) -> RedisServer:
        slot = slot_of(key)
        if self._slots[slot] is None and not self._refreshed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_DELAY):
                    await self._refreshed.wait()
        server = self._slots[slot]
        if server is None:
            raise StoreError(self.error or "no master is known for this key")
        return server

    def _redirect_target(self, text: str) -> RedisServer:
        """Return the server that the error ``MOVED slot host:port`` or ASK names."""
        host, _, port = text.split(" ")[-1].rpartition(":")
        if not host or not (port.isascii() and port.isdigit()):
            raise StoreError(f"expected the address of a node, got {text!r}")
        return self._server(make_address(host, port))

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
                self._on_server_state,
                idle_timeout=self._idle_timeout,
            )
            self._masters[address] = server
            server.start()
        return server

    def _on_server_state(self) -> None:
        if not self.available:
            self._refresh_requested.set()
        self._on_state()

    async def _run(self) -> None:
        """Refresh the slots until canceled."""
        while True:
            try:
                await self._refresh_slots()
                self._refresh_error = ""
            except StoreError as error:
                self._refresh_error = str(error)
                self._complete = False
            self._refreshed.set()
            self._on_state()
            self._refresh_requested.clear()
            await asyncio.sleep(MIN_REFRESH_INTERVAL)
            if self.available:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SLOTS_REFRESH_INTERVAL):
                        await self._refresh_requested.wait()

    async def _refresh_slots(self) -> None:
        """Query one node after the other for the slots. Raises `StoreError`."""
        errors = []
        for address in dict.fromkeys((*self._masters, *self._addresses)):
            try:
                await self._use_slots(await self._query_slots(address), address)
            except StoreError as error:
                errors.append(str(error))
            else:
                return
        raise StoreError("no node of the cluster replies: " + "; ".join(errors))

    async def _query_slots(self, address: RedisAddress) -> list[Any]:
        server = self._masters.get(address)
        if server is not None:
            if not server.available:
                raise StoreError(server.error)
            reply = await server.call("CLUSTER", "SLOTS", retry=False)
        else:
            connection = await self._dialer.open_commands(address)
            try:
                reply = await connection.call("CLUSTER", "SLOTS")
            finally:
                await connection.close()
        if not reply:
            raise StoreError(f"{format_address(address)}: knows no slots")
        if not isinstance(reply, list):
            raise StoreError(
                f"{format_address(address)}: got {reply!r}, no slots"[:200]
            )
        return reply

    async def _use_slots(self, ranges: list[Any], queried: RedisAddress) -> None:
        slots: list[RedisServer | None] = [None] * SLOTS
        masters = set()
        for first, last, address in parse_ranges(ranges, queried):
            masters.add(address)
            server = self._server(address)
            slots[first : last + 1] = [server] * (last + 1 - first)
        self._slots = slots
        self._complete = None not in slots
        removed = [one for one in self._masters if one not in masters]
        await asyncio.gather(*[self._masters.pop(one).close() for one in removed])


def parse_ranges(
    ranges: list[Any], queried: RedisAddress
) -> list[tuple[int, int, RedisAddress]]:
    """Return first slot, last slot and master of each range of CLUSTER SLOTS.

    A node that does not know its address omits it; *queried* is that node's address.
    Raises `StoreError`.
    """
    parsed = []
    for one in ranges:
        match one:
            case [int() as first, int() as last, [name, *_] as master, *_] if (
                0 <= first <= last < SLOTS
            ):
                parsed.append((first, last, parse_address(master) if name else queried))
            case _:
                raise StoreError(f"expected ranges of slots, got {ranges!r}"[:200])
    return parsed
