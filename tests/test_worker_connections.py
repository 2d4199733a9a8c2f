"""The test helper that reaches each worker."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support import workers
from support.program import Program, session_cookie
from support.server import Wire


@pytest.mark.parametrize("count", [1, 3])
def test_statuses_answered_by_each_worker(tmp_path: Path, count: int) -> None:
    with Program(tmp_path, workers=count) as program:
        port = program.port
        program.wait_until(lambda: len(program.workers) == (count if count > 1 else 0))
        assert workers.statuses(program, port, session_cookie()) == {202}
        assert workers.statuses(program, port) == {401}
        with workers.connections(program, port) as wires:
            assert len(wires) == count


def test_connections_stopped_worker_fails_instead_of_passing(tmp_path: Path) -> None:
    with Program(tmp_path, workers=2) as program:
        port = program.port
        program.wait_until(lambda: len(program.workers) == 2)
        stopped = program.workers[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            with (
                pytest.raises((AssertionError, TimeoutError)),
                workers.connections(program, port, prepare=give_up_early),
            ):
                pass
        finally:
            os.kill(stopped, signal.SIGCONT)


def give_up_early(wire: Wire) -> None:
    wire.socket.settimeout(1.0)
