"""Memory in which all workers count password attempts."""

from __future__ import annotations

import mmap
import os

from authproxy_core.access.attempts import WORDS, AttemptMemory

WORD_BYTES = 4


def create_attempts() -> AttemptMemory:
    """Return the memory; create it before the workers are forked."""
    memory = mmap.mmap(-1, WORDS * WORD_BYTES)
    return AttemptMemory(os.urandom(32), memoryview(memory).cast("I"))
