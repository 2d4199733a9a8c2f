"""Settings of glibc's memory allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
# Blocks of this size, such as the buffers of TLS connections (256 KB each), are mapped one
# by one, and unmapped when they are freed. glibc starts with a lower threshold, but raises
# it to the largest freed block. Then the buffers are parts of the heap, small objects
# between them prevent its release, and it grows for hours (measured: 31 of 58 MB in use).
# The chunks of bodies (`receive_buffer.MAX_READ_BYTES`) must be smaller: mapping each one,
# or returning it to the system, took half of the CPU time of a download.
MAPPED_BYTES = 256 << 10
MAX_FREE_BYTES = 1 << 20  # at the end of the heap


def limit_fragmentation() -> None:
    """Map large buffers individually; no effect with other C libraries than glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
    mallopt(M_TRIM_THRESHOLD, MAX_FREE_BYTES)
