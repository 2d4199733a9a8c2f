"""Performs the core's effects, each kind by one method."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from authproxy_core.effects import (
    Add,
    Delete,
    Effect,
    Fetch,
    Load,
    LoadAll,
    Lock,
    Members,
    Offload,
    ReadBody,
    Remove,
    Save,
    Sleep,
    Unlock,
)
from authproxy_core.errors import ClientGone, StoreError
from authproxy_core.messages import Response

from .http_client import HttpClient
from .hub import BodySource, Perform
from .locks import Locks


class Performer:
    """What performs the effects of one worker's flows."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._locks = Locks()
        self._methods: dict[type[Effect[Any]], Callable[[Any], Awaitable[Any]]] = {
            Fetch: self._fetch,
            Load: self._no_store,
            LoadAll: self._no_store,
            Save: self._no_store,
            Delete: self._no_store,
            Add: self._no_store,
            Members: self._no_store,
            Remove: self._no_store,
            Sleep: self._sleep,
            Offload: self._offload,
        }

    async def perform(self, effect: Effect[Any]) -> Any:
        """The answer to an effect of a flow that belongs to no request."""
        return await self._perform(effect, None)

    async def _perform(self, effect: Effect[Any], owner: object) -> Any:
        if type(effect) is Lock:
            return await self._locks.take(effect.key, effect.ttl, effect.wait, owner)
        if type(effect) is Unlock:
            return self._locks.release(effect.key, owner)
        method = self._methods.get(type(effect))
        if method is None:
            raise ClientGone("there is no request whose body could be read")
        return await method(effect)

    def bound_to(self, body: BodySource) -> Perform:
        """The function that performs the effects of the flow of one request."""

        async def perform(effect: Effect[Any]) -> Any:
            if type(effect) is ReadBody:
                return await body.read_all(effect.limit)
            return await self._perform(effect, body)  # one body, one flow

        return perform

    async def _fetch(self, effect: Fetch) -> Response:
        return await self._client.fetch(effect)

    async def _sleep(self, effect: Sleep) -> None:
        await asyncio.sleep(effect.seconds)

    async def _offload(self, effect: Offload) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, effect.function)

    async def _no_store(self, effect: Effect[Any]) -> Any:
        raise StoreError("no session store is configured")
