"""Computations that clients can cause: few threads, a bounded queue, apart from others."""

from __future__ import annotations

import asyncio
import threading

import pytest

from authproxy.net.idp_client import HttpClient
from authproxy.serve.computations import MAX_COMPUTATIONS, THREADS
from authproxy.serve.performer import Performer
from authproxy.server_settings import ClientSettings
from authproxy_core.effects import Offload
from authproxy_core.errors import BusyError
from support.scripted import run


def test_computations_wait_for_few_threads_and_delay_no_other_work() -> None:
    go, running = threading.Event(), threading.Semaphore(0)
    most, counts = [0], threading.Lock()
    active: set[int] = set()

    def compute() -> int:
        with counts:
            active.add(threading.get_ident())
            most[0] = max(most[0], len(active))
        running.release()
        assert go.wait(20)
        with counts:
            active.discard(threading.get_ident())
        return 7

    async def main() -> None:
        client = HttpClient(ClientSettings())
        perform = Performer(client).perform
        works = [
            asyncio.create_task(perform(Offload(compute, computation=True)))
            for _ in range(MAX_COMPUTATIONS)
        ]
        for _ in range(THREADS):
            assert await asyncio.to_thread(running.acquire, timeout=20)
        with pytest.raises(BusyError):
            await perform(Offload(compute, computation=True))
        # Names are resolved and files are read in other threads.
        assert await perform(Offload(lambda: 5)) == 5
        loop = asyncio.get_running_loop()
        assert await loop.getaddrinfo("localhost", 80)
        go.set()
        assert await asyncio.gather(*works) == [7] * MAX_COMPUTATIONS
        assert await perform(Offload(lambda: 6, computation=True)) == 6
        assert most[0] == THREADS
        await client.close()

    run(main())


def test_failed_computation_raises_and_frees_its_place() -> None:
    def fail() -> None:
        raise ValueError("not a hash")

    async def main() -> None:
        client = HttpClient(ClientSettings())
        perform = Performer(client).perform
        for _ in range(MAX_COMPUTATIONS + 1):
            with pytest.raises(ValueError, match="not a hash"):
                await perform(Offload(fail, computation=True))
        await client.close()

    run(main())
