"""Performs the core's effects, each kind by one method."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any, Literal

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
from .metrics.metrics import Metrics
from .stores.base import Store

Tokens = dict[str, str]  # key → token of a lock that is held
Method = Callable[[Any], Awaitable[Any]]

OPERATIONS: Mapping[type[Effect[Any]], str] = {
    Load: "load",
    LoadAll: "load_all",
    Save: "save",
    Delete: "delete",
    Add: "add",
    Members: "members",
    Remove: "remove",
}


class Performer:
    """What performs the effects of one worker's flows.

    Without a store, locks hold within this process and all else of a store fails.
    """

    def __init__(
        self,
        client: HttpClient,
        store: Store | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._metrics = metrics or Metrics()
        self._locks = Locks()
        self._tokens: Tokens = {}  # of flows that belong to no request
        self._methods: dict[type[Effect[Any]], Method] = {
            Fetch: self._fetch,
            Sleep: self._sleep,
            Offload: self._offload,
            **{
                kind: self._timed(OPERATIONS[kind], method)
                for kind, method in _store_methods(store).items()
            },
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
                return await body.read_all(effect.limit)
            return await self._perform(effect, tokens)

        return perform

    def _timed(self, operation: str, method: Method) -> Method:
        """*method* of the store, with its time and its failures counted."""

        async def timed(effect: Effect[Any]) -> Any:
            outcome: Literal["ok", "error"] = "error"
            began = monotonic()
            try:
                answer = await method(effect)
                outcome = "ok"
            finally:
                self._metrics.store_done(operation, monotonic() - began, outcome)
            return answer

        return timed

    # A lock is held by a token that nobody else knows: who gives back late, after its
    # time was over, does not take the lock from the one that holds it by then.

    async def _lock(self, effect: Lock, tokens: Tokens) -> bool:
        token = secrets.token_urlsafe(16)
        taken = await self._locks_for(effect).take_lock(
            effect.key, effect.ttl, effect.wait, token
        )
        if taken:
            tokens[effect.key] = token
        return taken

    async def _unlock(self, effect: Unlock, tokens: Tokens) -> None:
        token = tokens.pop(effect.key, None)
        if token is not None:
            await self._locks_for(effect).release_lock(effect.key, token)

    def _locks_for(self, effect: Lock | Unlock) -> Locks | Store:
        return self._locks if effect.local or self._store is None else self._store

    async def _fetch(self, effect: Fetch) -> Response:
        began, status = monotonic(), None
        try:
            response = await self._client.fetch(effect)
            status = response.status
        finally:
            self._metrics.fetch_done(effect.purpose, monotonic() - began, status)
        return response

    async def _sleep(self, effect: Sleep) -> None:
        await asyncio.sleep(effect.seconds)

    async def _offload(self, effect: Offload) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, effect.function)


def _store_methods(store: Store | None) -> dict[type[Effect[Any]], Method]:
    """What performs the effects of the store."""
    if store is None:
        kinds = (Load, LoadAll, Save, Delete, Add, Members, Remove)
        return dict.fromkeys(kinds, _no_store)
    return {
        Load: lambda effect: store.load(effect.key),
        LoadAll: lambda effect: store.load_all(effect.keys),
        Save: lambda effect: store.save(effect.key, effect.value, effect.ttl),
        Delete: lambda effect: store.delete(effect.key),
        Add: lambda effect: store.add(effect.key, effect.member, effect.ttl),
        Members: lambda effect: store.members(effect.key),
        Remove: lambda effect: store.remove(effect.key, effect.member),
    }


async def _no_store(effect: Effect[Any]) -> Any:
    raise StoreError("no session store is configured")
