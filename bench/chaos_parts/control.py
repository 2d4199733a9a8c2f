"""Commands to a helper process: one JSON object per line, one reply each."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHONPATH = os.pathsep.join(
    str(ROOT / part) for part in ("core", "server", "tests", "bench")
)


class Helper:
    """A helper process; a context manager that stops it."""

    def __init__(self, module: str, **settings: Any) -> None:
        """Start *module* of `chaos_parts`; the settings are its first command."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"chaos_parts.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": PYTHONPATH},
        )
        self.started: dict[str, Any] = self.ask(**settings)

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command; return the reply."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a helper process of the chaos run has exited")
        reply: dict[str, Any] = json.loads(line)
        return reply


async def serve_commands(handle: Callable[..., dict[str, Any] | None]) -> None:
    """Call *handle* with each command of the standard input; print its reply."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(handle(**json.loads(line)) or {}), flush=True)
