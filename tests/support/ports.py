"""Free TCP ports of the loopback interface."""

from __future__ import annotations

import os
import random
import socket

LOOPBACK = "127.0.0.1"
# Below the ephemeral ports of Linux, so that no outgoing connection takes a port before
# the program that it is for.
PORTS = range(12_000, 32_000)
MAX_PROCESSES = 16  # of pytest; each uses other ports
_used: set[int] = set()


def free_port() -> int:
    """Return an unused port that this process has not returned before.

    It serves programs that cannot report a port chosen by the kernel.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = PORTS[process % MAX_PROCESSES :: MAX_PROCESSES]
    while True:
        port = random.choice(ports)
        if port not in _used and _is_free(port):
            _used.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
