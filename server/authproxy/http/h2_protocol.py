"""The `h2` library's protocol engine, adapted for both sides of the proxy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2Connection,
    H2ConnectionStateMachine,
)
from h2.events import Event, StreamReset
from h2.exceptions import ProtocolError, StreamClosedError
from h2.stream import H2Stream, StreamClosedBy
from hpack import Encoder

NO_INDEX_BYTES = 512  # length of a field value; the whole dynamic table has 4096 bytes


class GoawayStateMachine(H2ConnectionStateMachine):
    """State machine in which GOAWAY lets open streams finish (RFC 9113 §6.8).

    The library's state machine closes the connection when it receives GOAWAY.
    """

    _transitions = {  # noqa: RUF012 - the library's name, never changed
        **H2ConnectionStateMachine._transitions,
        **{
            (state, ConnectionInputs.RECV_GOAWAY): (None, state)
            for state in (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
        },
    }


class NoHuffmanEncoder(Encoder):
    """HPACK encoder without Huffman coding (optional for senders, RFC 7541 §5.2).

    The library's Huffman coding takes longer than the rest of a request, and saves only
    a quarter of the bytes. Long values, mostly tokens, are not indexed: each would evict
    all other fields from the dynamic table, and would hardly ever be sent again.
    """

    def encode(self, headers: Iterable[Any], huffman: bool = False) -> bytes:
        """Return the header block of *headers*."""
        return super().encode(headers, huffman)

    def add(
        self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False
    ) -> bytes:
        """Return one encoded field; *sensitive* or long ones are never indexed."""
        return super().add(
            to_add, sensitive or len(to_add[1]) > NO_INDEX_BYTES, huffman
        )


class IsolatedStream(H2Stream):
    """A stream whose malformed messages fail it alone (RFC 9113 §8.1.1).

    The library fails the connection, and with it all other requests. A field section
    has been decoded by then, so the state of the HPACK decoder is right.
    """

    def receive_headers(self, *arguments: Any) -> tuple[list[Any], list[Event]]:
        """Receive a head or trailers."""
        try:
            return super().receive_headers(*arguments)
        except ProtocolError as error:
            raise self._failure(error) from None

    def receive_data(self, *arguments: Any) -> tuple[list[Any], list[Event]]:
        """Receive body data."""
        try:
            return super().receive_data(*arguments)
        except ProtocolError as error:
            raise self._failure(error) from None

    def _failure(self, error: ProtocolError) -> ProtocolError:
        """Return the error on which the connection resets this stream and goes on."""
        if isinstance(error, StreamClosedError):
            return error
        try:  # noqa: SIM105 - modules of this folder import few others
            self.reset_stream(error.error_code)
        except ProtocolError:
            pass  # it has ended
        self.state_machine.stream_closed_by = StreamClosedBy.SEND_RST_STREAM
        failure = StreamClosedError(self.stream_id)
        failure.error_code = error.error_code
        failure._events = [
            StreamReset(
                stream_id=self.stream_id,
                error_code=error.error_code,
                remote_reset=False,
            )
        ]
        return failure


class IsolatingConnection(H2Connection):
    """A protocol engine with `IsolatedStream`."""

    def _begin_new_stream(self, *arguments: Any) -> H2Stream:
        stream = super()._begin_new_stream(*arguments)
        stream.__class__ = IsolatedStream
        return stream


def create_h2_connection(*, client_side: bool) -> H2Connection:
    """Return a protocol engine for one HTTP/2 connection; it does no I/O."""
    connection = IsolatingConnection(H2Configuration(client_side=client_side))
    connection.state_machine = GoawayStateMachine()
    connection.encoder = NoHuffmanEncoder()
    return connection


def free_h2_connection(connection: H2Connection) -> None:
    """Break the reference cycle of an engine that receives no more frames."""
    connection._frame_dispatch_table.clear()
