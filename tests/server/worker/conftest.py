"""Fixtures: a worker with given listeners and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.worker_program import WorkerProgram


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., WorkerProgram]]:
    """Start a worker with listeners and limits; see `WorkerProgram`."""
    with ExitStack() as stack:

        def start_worker(*listeners: dict[str, Any], **options: Any) -> WorkerProgram:
            process = WorkerProgram(tmp_path, *listeners, **options)
            stack.callback(process.stop)
            process.wait_until(lambda: process.log().count(" on ") >= len(listeners))
            return process

        yield start_worker
