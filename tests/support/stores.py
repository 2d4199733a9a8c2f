"""Stores for tests, used from this process and from another one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from authproxy.server_settings import StoreSettings
from authproxy.stores.base import Store
from authproxy.stores.create import create

NAME = "_oauth2_proxy"
ROOT = Path(__file__).resolve().parents[2]


class Watched:
    """A running store, with its change notifications and state changes."""

    def __init__(self, settings: StoreSettings) -> None:
        store = create(settings, NAME)
        assert store is not None
        self.store: Store = store
        self.changes: list[tuple[str | None, float]] = []
        self.states: list[tuple[bool, bool]] = []

    async def __aenter__(self) -> Watched:
        await self.store.start(self._on_change, self._on_state)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.store.close()

    def _on_change(self, key: str | None) -> None:
        self.changes.append((key, time.monotonic()))

    def _on_state(self) -> None:
        self.states.append((self.store.available, self.store.notifies))

    async def until(self, condition: Any, what: str, seconds: float = 60.0) -> None:
        """Wait until *condition* of the store holds; *what* is for the error."""
        deadline = time.monotonic() + seconds
        while not condition(self.store):
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            await asyncio.sleep(0.005)

    async def ready(self) -> Store:
        """Return the store once it is available and notifies."""
        await self.until(lambda store: store.notifies, "notifications")
        await self.until(lambda store: store.available, "the store")
        return self.store

    async def notified(self, key: str, since: float, seconds: float = 60.0) -> float:
        """Return the time of the first notification of *key* (or all) after *since*."""
        deadline = time.monotonic() + seconds
        while True:
            for changed, at in self.changes:
                if changed in (key, None) and at >= since:
                    return at
            assert time.monotonic() < deadline, f"no notification of {key}"
            await asyncio.sleep(0.002)


class RemoteStore:
    """The store in another process, which calls its methods by name."""

    def __init__(self, settings: StoreSettings) -> None:
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server", "tests"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.stores"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        self._send(base64.b64encode(pickle.dumps(settings)).decode())

    def __enter__(self) -> RemoteStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        self._process.wait(10)
        self._output.close()

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _send(self, line: str) -> None:
        self._input.write(line + "\n")
        self._input.flush()

    async def do(self, method: str, *arguments: Any) -> Any:
        """Call a method; returns its result, raises `AssertionError` if it fails."""
        return (await self.timed(method, *arguments))[0]

    async def timed(self, method: str, *arguments: Any) -> tuple[Any, float]:
        """Call a method; returns its result and the time of its end (monotonic)."""
        packed = base64.b64encode(pickle.dumps((method, arguments)))
        self._send(packed.decode())
        line = await asyncio.to_thread(self._output.readline)
        reply = json.loads(line)
        assert "error" not in reply, reply
        result = pickle.loads(base64.b64decode(reply["result"]))
        return result, reply["at"]


async def _serve() -> None:
    settings = pickle.loads(base64.b64decode(sys.stdin.readline()))
    async with Watched(settings) as watched:
        await watched.ready()
        while line := await asyncio.to_thread(sys.stdin.readline):
            method, arguments = pickle.loads(base64.b64decode(line))
            try:
                result = await getattr(watched.store, method)(*arguments)
            except Exception as error:
                reply: dict[str, Any] = {"error": repr(error)}
            else:
                packed = base64.b64encode(pickle.dumps(result)).decode()
                reply = {"result": packed, "at": time.monotonic()}
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve())
