"""Settings of glibc's memory allocator."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
# The buffers of one TLS connection and larger blocks are mapped one by one, and unmapped
# when they are freed. By default glibc raises this threshold to the largest freed block:
# then such buffers are part of the heap, small objects between them prevent its release,
# and the memory grows for hours (measured: 27 MB in use of a heap of 55 MB).
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
