"""Where the master is: at a fixed address, or where sentinels say."""

from __future__ import annotations

from typing import Any

from authproxy_core.errors import StoreError

from ..server_settings import RedisAddress
from .redis_connection import Dialer, RedisConnection, name_of


class Sentinels:
    """Some sentinels, of which the first that answers is asked again."""

    def __init__(
        self, dialer: Dialer, addresses: tuple[RedisAddress, ...], master_name: str
    ) -> None:
        self._dialer = dialer
        self._addresses = list(addresses)
        self._master_name = master_name
        self._link: RedisConnection | None = None

    async def master(self) -> RedisAddress:
        """Where the master is. Raises `StoreError`."""
        reasons = []
        for _ in range(len(self._addresses)):
            try:
                return await self._asked()
            except StoreError as error:
                reasons.append(str(error))
                await self.close()
                self._addresses.append(self._addresses.pop(0))
        raise StoreError("no sentinel knows the master: " + "; ".join(reasons))

    async def _asked(self) -> RedisAddress:
        if self._link is None or self._link.lost.is_set():
            self._link = await self._dialer.sentinel(self._addresses[0])
        name = self._master_name
        found = await self._link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
        if found is None:
            where = name_of(self._addresses[0])
            raise StoreError(f"{where}: knows no master called {name!r}")
        return address_of(found)

    async def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            await self._link.close()
            self._link = None


def address_of(found: Any) -> RedisAddress:
    """An address as Redis gives it: host and port. Raises `StoreError`."""
    try:
        host, port = found[0], found[1]
        return RedisAddress(host=bytes(host).decode("latin-1"), port=int(port))
    except (TypeError, ValueError, IndexError):
        raise StoreError(f"expected an address, got {found!r}") from None
