"""The memory allocator of workers."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

import authproxy.worker.allocator

# Prints how many blocks are mapped individually after blocks of all sizes were freed.
SCRIPT = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from authproxy.worker.allocator import limit_fragmentation
limit_fragmentation()
libc = ctypes.CDLL(None)
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "abchdefgij"]
libc.mallinfo2.restype = Info
for power in range(16, 25):
    bytearray(1 << power)
before = libc.mallinfo2().h
held = [bytearray(256 << 10) for _ in range(16)]
print(libc.mallinfo2().h - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not a recent glibc"
)
def test_buffers_of_tls_connections_are_mapped_after_larger_ones_were_freed() -> None:
    server = authproxy.worker.allocator.__file__.partition("/authproxy/worker/")[0]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, server],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert int(run.stdout) >= 12  # some fit into free parts of the heap
