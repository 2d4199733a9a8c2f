"""What `ServerProtocol` reports to its caller."""

from __future__ import annotations

from typing import Protocol, TypeVar

from .field_kinds import Entry

OwnerT = TypeVar("OwnerT", contravariant=True)


class Events(Protocol[OwnerT]):
    """The methods that `ServerProtocol` calls, in the order of the received frames."""

    def on_request(self, number: int, entries: list[Entry], *, ended: bool) -> None:
        """Handle a request; *ended* means that no body follows."""

    def on_data(self, owner: OwnerT, data: bytes, counted: int) -> None:
        """Handle body data, which uses *counted* bytes of the window until taken."""

    def on_end(self, owner: OwnerT, trailers: list[Entry]) -> None:
        """Handle the end of a request body."""

    def on_reset(self, owner: OwnerT) -> None:
        """Handle a stream that the client has reset or made invalid."""

    def on_sent(self, owner: OwnerT) -> None:
        """Handle that a stream has no unsent data any more."""

    def on_goaway(self) -> None:
        """Handle a client that will send no further request."""

    def on_ping_ack(self, payload: bytes) -> None:
        """Handle the answer to a PING frame."""
