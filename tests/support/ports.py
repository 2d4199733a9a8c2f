"""Free TCP ports of the loopback interface."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
_used: set[int] = set()


def free_port() -> int:
    """Return an unused port that this process has not returned before.

    It serves programs that cannot report a port chosen by the kernel.
    """
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if port not in _used:
            _used.add(port)
            return port
