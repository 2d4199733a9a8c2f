"""A small HTTP/2 client over TLS that can violate the protocol."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from authproxy.http.h2_protocol import GoawayStateMachine
from support.certificates import Certificate
from support.ports import LOOPBACK

DEADLINE = 60.0  # seconds after which a test gives up


@dataclass
class Answer:
    """The received part of a response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[int] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None


class H2Client:
    """One connection; without *strict* it sends headers that the library rejects.

    *opening* is sent before the TLS handshake. Without a *certificate* there is no TLS.
    """

    def __init__(
        self,
        port: int,
        certificate: Certificate | None = None,
        *,
        strict: bool = True,
        opening: bytes = b"",
    ) -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=DEADLINE)
        self.socket.sendall(opening)
        if certificate is not None:
            context = ssl.create_default_context(cafile=certificate.cert_file)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=LOOPBACK)
        self.connection = H2Connection(
            H2Configuration(
                header_encoding="latin-1",
                validate_outbound_headers=strict,
                normalize_outbound_headers=strict,
            )
        )
        self.connection.state_machine = GoawayStateMachine()  # finishes open streams
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.last_stream: int | None = None  # that GOAWAY names
        self.closed = False
        self.acknowledges = True
        self.connection.initiate_connection()
        self.flush()

    def __enter__(self) -> H2Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Send the pending bytes; a closed connection is not an error."""
        try:
            self.socket.sendall(self.connection.data_to_send())
        except OSError:
            self.closed = True

    def send(
        self,
        path: str = "/ping",
        *fields: tuple[str, str],
        method: str = "GET",
        ends: bool = True,
        authority: str = "a.example.com",
    ) -> int:
        """Send the head of a request; return its stream id."""
        number = self.connection.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", authority),
            (":path", path),
        ]
        self.answers[number] = Answer()
        self.connection.send_headers(number, [*pseudo, *fields], end_stream=ends)
        self.flush()
        return number

    def send_body(self, number: int, data: bytes, *, ends: bool = True) -> None:
        """Send a body as far as the server's windows allow, and receive in between."""
        while data:
            window = self.connection.local_flow_control_window(number)
            window = min(window, self.connection.max_outbound_frame_size)
            if window <= 0:
                self.receive()
                continue
            chunk, data = data[:window], data[window:]
            self.connection.send_data(number, chunk, end_stream=ends and not data)
            self.flush()

    def receive(self) -> None:
        """Receive the next bytes and process their events."""
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            match event:
                case ResponseReceived():
                    answer = self.answers[event.stream_id]
                    fields = {str(k): str(v) for k, v in event.headers}
                    answer.status = int(fields.pop(":status"))
                    answer.headers = fields
                case InformationalResponseReceived():
                    status = dict(event.headers)[":status"]  # type: ignore[index]
                    self.answers[event.stream_id].interim.append(int(status))
                case DataReceived():
                    self.answers[event.stream_id].body += event.data or b""
                    if self.acknowledges:
                        self.connection.acknowledge_received_data(
                            event.flow_controlled_length or 0, event.stream_id
                        )
                case TrailersReceived():
                    fields = {str(k): str(v) for k, v in event.headers}
                    self.answers[event.stream_id].trailers = fields
                case StreamEnded():
                    self.answers[event.stream_id].ended = True
                case StreamReset():
                    self.answers[event.stream_id].reset = int(event.error_code)
                case ConnectionTerminated():
                    self.goaway = int(event.error_code or 0)
                    self.last_stream = event.last_stream_id
        self.flush()

    def answer(self, number: int) -> Answer:
        """Return the response when it is complete, reset, or cut by a close."""
        answer = self.answers[number]
        while not answer.ended and answer.reset is None and not self.closed:
            self.receive()
        return answer

    def ask(self, path: str = "/ping", *fields: tuple[str, str], **how: str) -> Answer:
        """Send a request without a body; return the response."""
        return self.answer(self.send(path, *fields, **how))  # type: ignore[arg-type]

    def until_closed(self) -> None:
        """Receive until the server closes the connection."""
        while not self.closed:
            self.receive()
