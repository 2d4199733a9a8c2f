"""Redis Sentinel: find the address of the master."""

from __future__ import annotations

from typing import Any

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress
from .redis_connection import Dialer, RedisConnection, format_address

MAX_PORT = 65_535


class Sentinels:
    """The sentinels of one master; the first that replies stays in use."""

    def __init__(
        self, dialer: Dialer, addresses: tuple[RedisAddress, ...], master_name: str
    ) -> None:
        self._dialer = dialer
        self._addresses = list(addresses)
        self._master_name = master_name
        self._connection: RedisConnection | None = None

    async def locate_master(self) -> RedisAddress:
        """Return the address of the master. Raises `StoreError`."""
        errors = []
        for _ in range(len(self._addresses)):
            try:
                return await self._query()
            except StoreError as error:
                errors.append(str(error))
                await self.close()
                self._addresses.append(self._addresses.pop(0))
        raise StoreError("no sentinel knows the master: " + "; ".join(errors))

    async def _query(self) -> RedisAddress:
        connection = self._connection
        if connection is None or connection.closed.is_set():
            connection = await self._dialer.open_sentinel(self._addresses[0])
            self._connection = connection
        name = self._master_name
        reply = await connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        if reply is None:
            sentinel = format_address(self._addresses[0])
            raise StoreError(f"{sentinel}: knows no master called {name!r}")
        return parse_address(reply)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None


def parse_address(reply: Any) -> RedisAddress:
    """Parse an address of a Redis reply: host and port. Raises `StoreError`."""
    match reply:
        case [bytes() as host, bytes() | int() as port, *_]:
            return make_address(host.decode("latin-1"), port)
    raise StoreError(f"expected an address, got {reply!r}"[:200])


def make_address(host: str, port: str | bytes | int) -> RedisAddress:
    """Return the address of a server that Redis names. Raises `StoreError`."""
    try:
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= MAX_PORT:
        raise StoreError(f"expected a port of {host!r}, got {port!r}"[:200])
    return RedisAddress(host=host, port=number)
