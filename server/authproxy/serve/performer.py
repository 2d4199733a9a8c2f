"""Perform the effects of the core: provider requests, store operations, locks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
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

from ..contract import BodySource, Loaded, OnLoaded, Perform
from ..metrics.metrics import Metrics
from ..net.idp_client import HttpClient
from ..net.locks import LocalLocks
from ..server_settings import Limits
from ..stores.base import Store
from .computations import Computations

Tokens = dict[str, str]  # lock key → token of its holder
Method = Callable[[Any], Awaitable[Any]]
Outcome = Literal["ok", "error"]
T = TypeVar("T")


class Performer:
    """Performs the effects of one worker's flows.

    Without a store, locks are local to the process and other store effects fail.
    *form_bytes* limits the forms that the core reads, in addition to the core's limit.
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
        self._computations = Computations()
        self._tokens: Tokens = {}  # of flows without a request
        self._methods: dict[type[Effect[Any]], Method] = {
            Fetch: self._fetch,
            Sleep: self._sleep,
            Offload: self._offload,
            **self._store_methods(store),
        }

    async def perform(self, effect: Effect[Any]) -> Any:
        """Return the result of an effect of a flow without a request."""
        return await self._perform(effect, self._tokens)

    async def _perform(self, effect: Effect[Any], tokens: Tokens) -> Any:
        if type(effect) is Lock:
            return await self._lock(effect, tokens)
        if type(effect) is Unlock:
            return await self._unlock(effect, tokens)
        method = self._methods.get(type(effect))
        if method is None:
            raise ClientGone("a flow without a request can't read a body")
        return await method(effect)

    def bound_to(self, body: BodySource) -> Perform:
        """Return the function that performs the effects of one request's flow."""
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

    def start_load(self, effect: Effect[Any], on_loaded: OnLoaded) -> bool:
        """Start a read of the store without a task; False if *effect* needs one.

        A task takes as long as the rest of a check whose session is in the store.
        """
        if type(effect) is not LoadAll or self._store is None:
            return False
        if not self._metrics.enabled:
            return self._store.start_load(effect.keys, on_loaded)
        return self._store.start_load(
            effect.keys, partial(self._measure_load, monotonic(), on_loaded)
        )

    def _measure_load(
        self, started: float, on_loaded: OnLoaded, loaded: Loaded
    ) -> None:
        if loaded is not None:  # else the load that follows is measured
            outcome: Outcome = "error" if isinstance(loaded, StoreError) else "ok"
            seconds = monotonic() - started
            self._metrics.record_store_operation("load_all", seconds, outcome)
        on_loaded(loaded)

    def _store_methods(self, store: Store | None) -> dict[type[Effect[Any]], Method]:
        """Return the methods for store effects; durations and failures are measured."""
        if store is None:
            kinds = (Load, LoadAll, Save, Delete, Add, Members, Remove)
            return dict.fromkeys(kinds, _no_store)
        run = self._measure
        return {
            Load: lambda one: run("load", store.load(one.key)),
            LoadAll: lambda one: run("load_all", store.load_all(one.keys)),
            Save: lambda one: run(
                "save", store.save(one.key, one.value, one.ttl, one.expected)
            ),
            Delete: lambda one: run("delete", store.delete(one.key)),
            Add: lambda one: run("add", store.add(one.key, one.member, one.ttl)),
            Members: lambda one: run("members", store.members(one.key)),
            Remove: lambda one: run("remove", store.remove(one.key, one.member)),
        }

    async def _measure(self, operation: str, work: Awaitable[T]) -> T:
        outcome: Outcome = "error"
        started = monotonic()
        try:
            result = await work
            outcome = "ok"
        finally:
            self._metrics.record_store_operation(
                operation, monotonic() - started, outcome
            )
        return result

    # A lock is held with a random token, so that a late release, after the lock has
    # expired, does not release the lock of the next holder.

    async def _lock(self, effect: Lock, tokens: Tokens) -> bool:
        token = secrets.token_urlsafe(16)
        arguments = effect.key, effect.ttl, effect.wait, token
        if effect.local or self._store is None:
            acquired = await self._locks.take_lock(*arguments)
        else:
            acquired = await self._measure("lock", self._store.acquire_lock(*arguments))
        if acquired:
            tokens[effect.key] = token
        return acquired

    async def _unlock(self, effect: Unlock, tokens: Tokens) -> None:
        token = tokens.pop(effect.key, None)
        if token is None:
            return
        if effect.local or self._store is None:
            await self._locks.release_lock(effect.key, token)
        else:
            work = self._store.release_lock(effect.key, token)
            await self._measure("unlock", work)

    async def _fetch(self, effect: Fetch) -> Response:
        started, status = monotonic(), None
        try:
            response = await self._client.fetch(effect)
            status = response.status
        finally:
            self._metrics.record_fetch(effect.purpose, monotonic() - started, status)
        return response

    async def _sleep(self, effect: Sleep) -> None:
        await asyncio.sleep(effect.seconds)

    async def _offload(self, effect: Offload) -> Any:
        if effect.computation:
            return await self._computations.run(effect.function)
        return await asyncio.get_running_loop().run_in_executor(None, effect.function)


async def _no_store(effect: Effect[Any]) -> Any:
    raise StoreError("no session store is configured")
