"""The state of an HTTP/2 connection whose peer begins no more (RFC 9113 §6.8).

A GOAWAY lets the streams that are under way go on; the library takes it for the end of
all of them.
"""

from __future__ import annotations

from h2.connection import (
    ConnectionInputs,
    ConnectionState,
    H2ConnectionStateMachine,
)


class GoawayStateMachine(H2ConnectionStateMachine):
    """The library's states, in which a peer's GOAWAY ends nothing by itself."""

    _transitions = {  # noqa: RUF012 - the library's own name, never changed
        **H2ConnectionStateMachine._transitions,
        **{
            (state, ConnectionInputs.RECV_GOAWAY): (None, state)
            for state in (ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
        },
    }
