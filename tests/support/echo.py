"""An application that responds with the request that it received.

A request field ``X-Answer-With: NAME=VALUE`` adds a field to the response.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.in_thread import InThread
from support.ports import LOOPBACK


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, because of delayed ACKs

    def do_GET(self) -> None:
        self.server.count += 1  # type: ignore[attr-defined]
        received = {
            "method": self.command,
            "target": self.path,
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
            "body": self._body().decode(errors="replace"),
        }
        body = json.dumps(received).encode()
        self.send_response_only(200)  # without Server and Date
        self.send_header("content-type", "application/json")
        for requested in self.headers.get_all("x-answer-with", ()):
            name, _, value = requested.partition("=")
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class EchoApp(InThread):
    """The application in a thread; it listens on ``port``."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
        self._server.daemon_threads = True
        self._server.count = 0  # type: ignore[attr-defined]
        # Clients may disconnect early.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        super().__init__(self._server)

    @property
    def count(self) -> int:
        """The number of received requests."""
        number: int = self._server.count  # type: ignore[attr-defined]
        return number
