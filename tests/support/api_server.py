"""HTTP endpoints of a provider with responses from a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.in_thread import InThread
from support.ports import LOOPBACK


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        api: ApiServer = self.server.api  # type: ignore[attr-defined]
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        status, value = api.answer(self.command, self.path, body)
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_GET

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


class ApiServer(InThread):
    """Responds by method and path without query, with 404 for unknown ones.

    A value of the table may be a function of request target and body. ``seen`` has the
    requests as ``METHOD target``.
    """

    def __init__(self, answers: Mapping[str, Any] | None = None) -> None:
        self.answers = dict(answers or {})
        self.seen: list[str] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _Handler)
        self._server.daemon_threads = True
        self._server.api = self  # type: ignore[attr-defined]
        super().__init__(self._server)
        self.url = f"http://{LOOPBACK}:{self.port}"

    def answer(self, method: str, target: str, body: str) -> tuple[int, Any]:
        """Return status and JSON value of the response."""
        self.seen.append(f"{method} {target}")
        key = f"{method} {target.partition('?')[0]}"
        if key not in self.answers:
            return 404, {}
        value = self.answers[key]
        return 200, value(target, body) if callable(value) else value
