"""The state of open streams (RFC 9113 §5.1)."""

from __future__ import annotations

from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT")

MAX_STREAMS = 100  # concurrent requests of a connection
STREAM_WINDOW = 256 << 10  # bytes of a request body received and not yet taken
CONNECTION_WINDOW = 512 << 10  # bytes of all request bodies together
NOTHING = memoryview(b"")
MAX_DISCARDED = 1000  # reset streams whose late frames are ignored


class Stream(Generic[OwnerT]):
    """An open stream; ``owner`` is the request that it belongs to.

    ``unsent`` is body data that waits for the client's window or for the transport,
    ``ends`` that it is the end of the response. ``remaining`` is what Content-Length
    still announces of the request body, None without that field.
    """

    __slots__ = (
        "ends",
        "local_ended",
        "number",
        "owed",
        "owner",
        "progress",
        "progress_at",
        "receive_window",
        "remaining",
        "remote_ended",
        "send_window",
        "unsent",
    )

    def __init__(
        self,
        number: int,
        send_window: int,
        remaining: int | None,
        *,
        ended: bool,
    ) -> None:
        self.number = number
        self.owner: OwnerT  # while the stream is open
        self.send_window = send_window
        self.receive_window = STREAM_WINDOW
        self.owed = 0  # bytes taken, by which the window has not been extended
        self.remaining = remaining
        self.remote_ended = ended  # the request is complete
        self.local_ended = False  # the response is complete
        self.unsent = NOTHING
        self.ends = False
        self.progress = 0  # bytes sent since `progress_at`
        self.progress_at = 0.0  # monotonic seconds


class DiscardedStreams:
    """The latest streams that authproxy has reset before the client ended them.

    Frames that the client sent meanwhile are not errors (§5.1, closed).
    """

    __slots__ = ("_numbers",)

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def add(self, number: int) -> None:
        """Add a stream; drop the oldest one if there are too many."""
        self._numbers[number] = None
        if len(self._numbers) > MAX_DISCARDED:
            del self._numbers[next(iter(self._numbers))]

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def remove(self, number: int) -> None:
        """Remove a stream that the client has ended."""
        self._numbers.pop(number, None)
