"""Control channel between supervisor and worker: datagrams on a socket pair."""

from __future__ import annotations

import os
import socket

MAX_MESSAGE_BYTES = 1500  # small enough for the datagram limit of every system


class ControlChannel:
    """One end of the channel. No method blocks; a closed peer is not an error."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    @staticmethod
    def pair() -> tuple[ControlChannel, ControlChannel]:
        """Return both ends; datagrams keep messages and their descriptors apart."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        return ControlChannel(first), ControlChannel(second)

    def fileno(self) -> int:
        """Return the socket's descriptor, for `select`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end."""
        self._socket.close()

    def send(self, message: str, descriptor: int | None = None) -> bool:
        """Send *message*, cut to `MAX_MESSAGE_BYTES`, with a copy of *descriptor*.

        Returns whether it was sent: the queue of the peer may be full.
        """
        data = message.encode(errors="replace")[:MAX_MESSAGE_BYTES]
        try:
            if descriptor is None:
                self._socket.send(data)
            else:
                socket.send_fds(self._socket, [data], [descriptor])
        except OSError:
            return False
        return True

    def receive(self) -> tuple[str, int | None] | None:
        """Return the next message, and the descriptor that the caller has to close.

        Returns None if there is no message.
        """
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
