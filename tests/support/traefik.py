"""A simulation of Traefik 3 with its forwardAuth and errors middlewares.

Traefik cannot be installed as a Go module. This gateway does the following:

- At the entry point it drops the client's X-Forwarded-* fields and sets Host, Port,
  Proto, Server and X-Real-Ip. X-Forwarded-For is set when a request is forwarded.
- ``forwardAuth`` sends GET to its address with the headers of the original request,
  X-Forwarded-Method and X-Forwarded-Uri; the Host is that of the address. A 2xx response
  allows the request, and the listed headers are taken from it or dropped. Any other
  response goes to the client. ``addAuthCookiesToResponse`` adds the listed cookies to
  the application's response.
- ``errors`` replaces a response that has one of its statuses by the page at its query.
  The request for the page has the original headers and Host, but not the original URI.
  The status does not change.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import urljoin

from support.certificates import Certificate
from support.http import Reply, exchange
from support.in_thread import InThread
from support.ports import LOOPBACK

HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
}  # fmt: skip
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Middlewares:
    """The options of ``errors`` and ``forwardAuth``; ``errors`` requires statuses.

    ``check`` is the path of ``forwardAuth``'s address.
    """

    error_statuses: tuple[int, ...]
    error_query: str
    response_headers: tuple[str, ...]
    cookies: tuple[str, ...] = ()
    check: str = "/oauth2/auth"


REFERENCE = Middlewares(
    (401, 402, 403),
    "/oauth2/sign_in",
    (
        "X-Auth-Request-User",
        "X-Auth-Request-Preferred-Username",
        "X-Auth-Request-Access-Token",
        "X-Auth-Request-Groups",
        "Authorization",
        "Set-Cookie",
    ),
)


class Traefik(InThread):
    """The gateway in a thread; it listens on ``port``."""

    def __init__(
        self,
        auth_port: int,
        app_port: int,
        certificate: Certificate,
        middlewares: Middlewares = REFERENCE,
    ) -> None:
        self.auth_port = auth_port
        self.app_port = app_port
        self.middlewares = middlewares
        self._server = _Server((LOOPBACK, 0), _Handler)
        self._server.gateway = self
        self._server.socket = certificate.server_context().wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        super().__init__(self._server)

    def answer(self, method: str, target: str, headers: Pairs, body: bytes) -> Reply:
        """Return the response to a request with the headers of `at_entry`."""
        if target.startswith("/oauth2"):
            reply = _forward(self.auth_port, method, target, headers, body)
        else:
            reply = self._forward_if_allowed(method, target, headers, body)
        if reply.status not in self.middlewares.error_statuses:
            return reply
        query = self.middlewares.error_query
        page = _forward(self.auth_port, "GET", query, headers)
        return Reply(page.url, reply.status, page.headers, page.body)

    def at_entry(self, headers: Pairs) -> Pairs:
        """Return the headers of a client after Traefik's entry point."""
        host = {name.lower(): value for name, value in headers}.get("host", "")
        return [
            *((name, value) for name, value in headers if not _is_forwarded(name)),
            ("X-Forwarded-Host", host),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Server", "traefik"),
            ("X-Real-Ip", LOOPBACK),
        ]

    def _forward_if_allowed(
        self, method: str, target: str, headers: Pairs, body: bytes
    ) -> Reply:
        """Return the application's response, or the check's if it does not allow."""
        check = _send(
            self.auth_port,
            "GET",
            self.middlewares.check,
            [
                *_without(headers, "host"),
                ("Host", f"{LOOPBACK}:{self.auth_port}"),
                ("X-Forwarded-For", LOOPBACK),
                ("X-Forwarded-Method", method),
                ("X-Forwarded-Uri", target),
            ],
        )
        if not 200 <= check.status < 300:
            return _resolved(check, self.auth_port, self.middlewares.check)
        listed = self.middlewares.response_headers
        sent = _without(headers, *listed)
        sent += [(name, value) for name in listed for value in check.all(name)]
        reply = _forward(self.app_port, method, target, sent, body)
        added = tuple(
            ("Set-Cookie", line)
            for line in check.all("set-cookie")
            if line.partition("=")[0] in self.middlewares.cookies
        )
        return Reply(reply.url, reply.status, (*reply.headers, *added), reply.body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    gateway: Traefik

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors, such as a browser that aborts the handshake."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        gateway = cast(_Server, self.server).gateway
        reply = gateway.answer(self.command, self.path, self._at_entry(), body)
        self.send_response_only(reply.status)
        for name, value in _without(reply.headers, "content-length", *HOP_BY_HOP):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_POST = do_HEAD = do_GET

    def _at_entry(self) -> Pairs:
        headers = _without(self.headers.items(), "content-length", *HOP_BY_HOP)
        return cast(_Server, self.server).gateway.at_entry(headers)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


def _resolved(check: Reply, port: int, path: str) -> Reply:
    """Return *check* with Location resolved against its URL, as Traefik does."""
    base = f"http://{LOOPBACK}:{port}{path}"
    headers = tuple(
        (name, urljoin(base, value) if name.lower() == "location" else value)
        for name, value in check.headers
    )
    return Reply(check.url, check.status, headers, check.body)


def _is_forwarded(name: str) -> bool:
    return name.lower().startswith(("x-forwarded-", "x-real-ip"))


def _without(headers: Iterable[tuple[str, str]], *names: str) -> Pairs:
    dropped = {name.lower() for name in names}
    return [pair for pair in headers if pair[0].lower() not in dropped]


def _forward(
    port: int, method: str, target: str, headers: Pairs, body: bytes = b""
) -> Reply:
    return _send(port, method, target, [*headers, ("X-Forwarded-For", LOOPBACK)], body)


def _send(
    port: int, method: str, target: str, headers: Pairs, body: bytes = b""
) -> Reply:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=20.0)
    return exchange(connection, method, target, headers, body)
