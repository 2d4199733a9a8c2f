"""Run a worker in this process: its event loop, its signals and its reloads."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Sequence
from functools import partial

import uvloop

from authproxy_core.access.attempts import AttemptMemory

from ..logs.formatter import Level
from ..logs.reports import Report
from ..metrics.metrics import Metrics
from ..net.control_channel import MAX_MESSAGE_BYTES, ControlChannel
from ..net.listeners import ListeningSocket
from ..reload.reload_settings import ConfigSource
from ..reload.worker_reload import SingleProcessReload, WorkerReload
from ..server_settings import ServerSettings
from .allocator import limit_fragmentation
from .worker import Worker

# Reference counting frees requests: 100 000 auth checks cause three young collections
# with Python's threshold of 700, and none with this one. Logins and pages need them.
GC_THRESHOLDS = (10_000, 20, 50)


def serve(
    settings: ServerSettings,
    sockets: Sequence[ListeningSocket],
    *,
    parent: int | None = None,
    channel: ControlChannel | None = None,
    source: ConfigSource | None = None,
    started: Callable[[], None] = lambda: None,
    metrics: Metrics | None = None,
    attempts: AttemptMemory | None = None,
) -> None:
    """Run a worker in this process until SIGTERM or SIGINT.

    With a supervisor, *channel* is the control channel and *parent* a file descriptor
    that becomes readable when the supervisor exits. The supervisor handles SIGINT,
    which a terminal sends to all processes, and SIGHUP. SIGTERM may arrive twice (from
    the supervisor and from a service manager), so only SIGQUIT aborts.

    Without a supervisor, *source* is the configuration for reloads. *started* is called
    once the worker accepts connections. *attempts* is shared by all workers.
    """
    if metrics is not None:
        metrics.worker_started()
    gc.freeze()
    gc.enable()
    gc.set_threshold(*GC_THRESHOLDS)
    limit_fragmentation()

    log_once = None if channel is None else partial(_log_once, channel)
    worker = Worker(settings, sockets, metrics, attempts, log_once)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reloads: WorkerReload | SingleProcessReload
        if parent is None or channel is None:
            reloads = SingleProcessReload(worker, source)
            loop.add_signal_handler(signal.SIGHUP, reloads.request)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, worker.stop_or_abort)
        else:
            reloads = WorkerReload(worker, channel)
            loop.add_signal_handler(signal.SIGTERM, worker.stop)
            for number in (signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, lambda: None)
            loop.add_signal_handler(signal.SIGQUIT, worker.abort)
            loop.add_reader(parent, _on_supervisor_exit, loop, parent, worker)

        def on_started() -> None:
            reloads.start()
            started()

        await worker.run(on_started)
        reloads.stop()

    uvloop.run(main())


def _log_once(channel: ControlChannel, level: Level, module: str, text: str) -> bool:
    """Let the supervisor log a line, unless another worker has just reported it."""
    message = Report(level, module, text).message()
    return len(message.encode()) <= MAX_MESSAGE_BYTES and channel.send(message)


def _on_supervisor_exit(
    loop: asyncio.AbstractEventLoop, parent: int, worker: Worker
) -> None:
    loop.remove_reader(parent)
    worker.stop()
