"""A small HTTP/2 server without TLS, with responses from a function of the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from support.ports import LOOPBACK

Fields = list[tuple[str, str]]


@dataclass
class Call:
    """A complete request."""

    number: int
    fields: dict[str, str]
    body: bytes = b""
    trailers: Fields = field(default_factory=list)


@dataclass
class Reply:
    """A response; ``reset`` and ``goaway`` end it with an error instead."""

    status: str = "200"
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: Fields = field(default_factory=list)
    interims: int = 1  # the number of informational responses
    reset: int | None = None
    goaway: bool = False
    retires: bool = False  # sends GOAWAY for later requests, then the response
    silent: bool = False
    after_ping: bool = False  # sends the response when a PING has been received
    raw: bytes = b""


class H2Server:
    """Listens on ``port``; *answer* returns the response to each complete request.

    *streams* is the limit of concurrent streams of a connection. ``acknowledged`` counts
    the clients that have acknowledged it. The first *mute* connections send nothing at
    all. With *withholds* received bodies do not extend the window. `freeze` lets the
    open connections answer nothing more. Unless it *validates*, responses may be malformed.
    """

    def __init__(
        self,
        answer: Callable[[Call], Reply],
        *,
        streams: int = 100,
        mute: int = 0,
        withholds: bool = False,
        validates: bool = True,
    ) -> None:
        self._validates = validates
        self._answer = answer
        self._streams = streams
        self._mute = mute
        self._withholds = withholds
        self._frozen = 0  # connections
        self._held: list[tuple[Call, Reply]] = []
        self.acknowledged = 0
        self.pings = 0
        self.heads = 0
        self.body_bytes = 0
        self.ended = 0  # connections
        self._socket = socket.create_server((LOOPBACK, 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        self.resets: list[int] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> H2Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self.disconnect()
        for one in self._open:
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._socket.accept()
                self.connections += 1
                self._open.append(accepted)
                threading.Thread(
                    target=self._run, args=(accepted, self.connections), daemon=True
                ).start()

    def disconnect(self) -> None:
        """Close the open connections."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def freeze(self) -> None:
        """Answer nothing more on the open connections."""
        self._frozen = self.connections

    def _run(self, wire: socket.socket, number: int) -> None:
        if number > self._mute:
            self._serve(wire, number)
        with contextlib.suppress(OSError):
            while wire.recv(65536):
                pass
        self.ended += 1

    def _serve(self, wire: socket.socket, serial: int) -> None:
        connection = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=self._validates,
                normalize_outbound_headers=self._validates,
            )
        )
        connection.local_settings = Settings(
            client=False,
            initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: self._streams},
        )
        connection.initiate_connection()
        calls: dict[int, Call] = {}
        events: deque[Event] = deque()
        with contextlib.suppress(OSError, ProtocolError):
            wire.sendall(connection.data_to_send())
            while (data := wire.recv(65536)) and serial > self._frozen:
                events.extend(connection.receive_data(data))
                while events:
                    self._handle(wire, connection, calls, events)
                wire.sendall(connection.data_to_send())

    def _handle(
        self,
        wire: socket.socket,
        connection: H2Connection,
        calls: dict[int, Call],
        events: deque[Event],
    ) -> None:
        match event := events.popleft():
            case RequestReceived():
                fields = {str(k): str(v) for k, v in event.headers}
                calls[event.stream_id] = Call(event.stream_id, fields)
                self.heads += 1
            case DataReceived():
                calls[event.stream_id].body += event.data or b""
                self.body_bytes += len(event.data or b"")
                if self._withholds:
                    return
                connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
            case TrailersReceived():
                calls[event.stream_id].trailers = [
                    (str(k), str(v)) for k, v in event.headers
                ]
            case PingReceived():
                self.pings += 1
                for call, reply in self._held:
                    self._reply(wire, connection, call, reply, events)
                self._held.clear()
            case SettingsAcknowledged():
                self.acknowledged += 1
            case StreamReset():
                self.resets.append(int(event.error_code))
            case StreamEnded():
                call = calls[event.stream_id]
                reply = self._answer(call)
                if reply.after_ping:
                    self._held.append((call, reply))
                else:
                    self._reply(wire, connection, call, reply, events)

    def _reply(
        self,
        wire: socket.socket,
        connection: H2Connection,
        call: Call,
        reply: Reply,
        events: deque[Event],
    ) -> None:
        number = call.number
        if reply.retires:
            frame = GoAwayFrame(0, last_stream_id=number, error_code=0)
            wire.sendall(frame.serialize())
        if reply.silent:
            return
        if reply.raw:
            wire.sendall(reply.raw)
            return
        if reply.goaway:
            connection.close_connection(last_stream_id=0)
            return
        for _ in range(reply.interims if reply.interim else 0):
            connection.send_headers(number, [(":status", "103"), *reply.interim])
        if reply.reset is not None and not reply.body:
            connection.reset_stream(number, reply.reset)
            return
        alone = not (reply.body or reply.trailers or reply.reset is not None)
        connection.send_headers(
            number, [(":status", reply.status), *reply.fields], end_stream=alone
        )
        if alone:
            return
        body = reply.body
        while body:
            window = connection.local_flow_control_window(number)
            window = min(window, connection.max_outbound_frame_size)
            if window <= 0:
                wire.sendall(connection.data_to_send())
                events.extend(connection.receive_data(wire.recv(65536)))
                continue
            chunk, body = body[:window], body[window:]
            connection.send_data(number, chunk)
        if reply.reset is not None:
            connection.reset_stream(number, reply.reset)
        elif reply.trailers:
            connection.send_headers(number, reply.trailers, end_stream=True)
        else:
            connection.end_stream(number)
