"""A wall clock with an offset that another process sets, for a whole program.

Python imports this module at its start if the folder is in PYTHONPATH. The file
CHAOS_CLOCK contains the offset in seconds as a double; forked processes share it.
"""

import mmap
import os
import struct
import time

_file = os.environ.get("CHAOS_CLOCK", "")
if _file:
    with open(_file, "r+b") as _stream:
        _shared = mmap.mmap(_stream.fileno(), 8)
    _time, _time_ns = time.time, time.time_ns

    def _offset() -> float:
        value: float = struct.unpack("d", _shared[:8])[0]
        return value

    time.time = lambda: _time() + _offset()
    time.time_ns = lambda: _time_ns() + int(_offset() * 1e9)
