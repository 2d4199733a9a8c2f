"""Short words between the supervisor and a worker, over a socket that only they have."""

from __future__ import annotations

import contextlib
import os
import socket

MAX_MESSAGE_BYTES = 1500  # bytes, for systems with small datagrams


class ControlChannel:
    """One of two ends; nothing blocks, and an end whose other is gone stays silent."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    @staticmethod
    def pair() -> tuple[ControlChannel, ControlChannel]:
        """Two ends; datagrams keep words apart, and the descriptors that go with them."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return ControlChannel(one), ControlChannel(other)

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def send(self, word: str, descriptor: int | None = None) -> None:
        """Send *word*; the other side gets a copy of *descriptor*."""
        data = word.encode(errors="replace")[:MAX_MESSAGE_BYTES]
        with contextlib.suppress(OSError):
            if descriptor is None:
                self._socket.send(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])

    def receive(self) -> tuple[str, int | None] | None:
        """The next word and its descriptor, which is the caller's to close; or None."""
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE_BYTES, 1
            )
        except OSError:
            return None
        if not data:
            return None
        for extra in descriptors[1:]:
            os.close(extra)
        return data.decode(errors="replace"), next(iter(descriptors), None)
