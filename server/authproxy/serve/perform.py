"""Performs the core's effects, each kind by one method."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Literal, TypeVar

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

from ..contract import BodySource, Perform
from ..metrics.metrics import Metrics
from ..net.idp_client import HttpClient
from ..net.locks import LocalLocks
from ..server_settings import Limits
from ..stores.base import Store

Tokens = dict[str, str]  # key → token of a lock that is held
Method = Callable[[Any], Awaitable[Any]]
T = TypeVar("T")


class Performer:
    """What performs the effects of one worker's flows.

    Without a store, locks hold within this process and all else of a store fails.
    *form_bytes* bounds the forms that the core reads, below its own limit.
    """

    def __init__(
        self,
        client: HttpClient,
        store: Store | None = None,
        metrics: Metrics | None = None,
        form_bytes: int = Limits().body_bytes,
    ) -> None:
        self._form_bytes = form_bytes
        self._client = client
        self._store = store
        self._metrics = metrics or Metrics()
        self._locks = LocalLocks()
        self._tokens: Tokens = {}  # of flows that belong to no request
        self._methods: dict[type[Effect[Any]], Method] = {
            Fetch: self._fetch,
            Sleep: self._sleep,
            Offload: self._offload,
            **self._store_methods(store),
        }

    async def perform(self, effect: Effect[Any]) -> Any:
        """The answer to an effect of a flow that belongs to no request."""
        return await self._perform(effect, self._tokens)

    async def _perform(self, effect: Effect[Any], tokens: Tokens) -> Any:
        if type(effect) is Lock:
            return await self._lock(effect, tokens)
        if type(effect) is Unlock:
            return await self._unlock(effect, tokens)
        method = self._methods.get(type(effect))
        if method is None:
            raise ClientGone("there is no request whose body could be read")
        return await method(effect)

    def bound_to(self, body: BodySource) -> Perform:
        """The function that performs the effects of the flow of one request."""
        tokens: Tokens = {}

        async def perform(effect: Effect[Any]) -> Any:
            if type(effect) is ReadBody:
                if not effect.keep:
                    return await body.read_all(min(effect.limit, self._form_bytes))
                data = await body.read_all(effect.limit)
                body.unread(data)
                return data
            return await self._perform(effect, tokens)

        return perform

    def _store_methods(self, store: Store | None) -> dict[type[Effect[Any]], Method]:
        """What performs the effects of the store, its time and failures counted."""
        if store is None:
            kinds = (Load, LoadAll, Save, Delete, Add, Members, Remove)
            return dict.fromkeys(kinds, _no_store)
        did = self._measured
        return {
            Load: lambda one: did("load", store.load(one.key)),
            LoadAll: lambda one: did("load_all", store.load_all(one.keys)),
            Save: lambda one: did("save", store.save(one.key, one.value, one.ttl)),
            Delete: lambda one: did("delete", store.delete(one.key)),
            Add: lambda one: did("add", store.add(one.key, one.member, one.ttl)),
            Members: lambda one: did("members", store.members(one.key)),
            Remove: lambda one: did("remove", store.remove(one.key, one.member)),
        }

    async def _measured(self, operation: str, work: Awaitable[T]) -> T:
        outcome: Literal["ok", "error"] = "error"
        began = monotonic()
        try:
            answer = await work
            outcome = "ok"
        finally:
            self._metrics.record_store_operation(
                operation, monotonic() - began, outcome
            )
        return answer

    # A lock is held by a token that nobody else knows: who gives back late, after its
    # time was over, does not take the lock from the one that holds it by then.

    async def _lock(self, effect: Lock, tokens: Tokens) -> bool:
        token = secrets.token_urlsafe(16)
        wish = effect.key, effect.ttl, effect.wait, token
        if effect.local or self._store is None:
            taken = await self._locks.take_lock(*wish)
        else:
            taken = await self._measured("lock", self._store.acquire_lock(*wish))
        if taken:
            tokens[effect.key] = token
        return taken

    async def _unlock(self, effect: Unlock, tokens: Tokens) -> None:
        token = tokens.pop(effect.key, None)
        if token is None:
            return
        if effect.local or self._store is None:
            await self._locks.release_lock(effect.key, token)
        else:
            work = self._store.release_lock(effect.key, token)
            await self._measured("unlock", work)

    async def _fetch(self, effect: Fetch) -> Response:
        began, status = monotonic(), None
        try:
            response = await self._client.fetch(effect)
            status = response.status
        finally:
            self._metrics.record_fetch(effect.purpose, monotonic() - began, status)
        return response

    async def _sleep(self, effect: Sleep) -> None:
        await asyncio.sleep(effect.seconds)

    async def _offload(self, effect: Offload) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, effect.function)


async def _no_store(effect: Effect[Any]) -> Any:
    raise StoreError("no session store is configured")
