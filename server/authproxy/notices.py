"""Lines in the standard log from where no worker's loop runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from .clock import log_timestamp


def say(text: str) -> None:
    """Write one line to standard error."""
    stamp = log_timestamp(time.time(), local_time=True)
    sys.stderr.write(f"[{stamp}] [server] {text}\n")
    sys.stderr.flush()


def say_all(header: str, lines: Iterable[str]) -> None:
    """Write *header*, and each of *lines* as one of its own."""
    say(header)
    for line in lines:
        say(f"  {line}")
