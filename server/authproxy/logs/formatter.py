"""Log lines as text, in the formats of oauth2-proxy.

What reads its logs reads ours. Nothing that is a credential gets into a line
(`log_text.redact`), and nothing that a client sends can end one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from authproxy_core.messages import Event, Request, Verdict
from authproxy_core.request.original import TrustedProxies
from authproxy_core.request.trace import TRACEPARENT, trace_id
from authproxy_core.settings.root import Settings

from ..http.request_head import RequestHead
from ..net.clock import Clock
from ..server_settings import LogSettings
from .redact import (
    compile_format,
    decode_bytes,
    escape_unprintable,
    format_field,
    quote,
    redact,
)

Format: TypeAlias = Callable[[tuple[str, ...]], str]
Level: TypeAlias = Literal["info", "error"]
AuthStatus: TypeAlias = Literal["AuthSuccess", "AuthFailure", "AuthError"]
Key = TypeVar("Key")

REQUEST_FIELDS = (
    "Client", "Host", "Protocol", "RequestID", "RequestDuration", "RequestMethod",
    "RequestURI", "ResponseSize", "StatusCode", "Timestamp", "Upstream", "UserAgent",
    "Username", "TraceID",
)  # fmt: skip
AUTH_FIELDS = (
    "Client", "Host", "Protocol", "RequestID", "RequestMethod", "Timestamp",
    "UserAgent", "Username", "Status", "Message", "TraceID",
)  # fmt: skip
STANDARD_FIELDS = ("Timestamp", "File", "Message")
AUTH_FORMAT = (
    "{{.Client}} - {{.RequestID}} - {{.Username}} [{{.Timestamp}}] "
    "[{{.Status}}] {{.Message}}"
)
STANDARD_FORMAT = "[{{.Timestamp}}] [{{.File}}] {{.Message}}"
PROTOCOLS = ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0")
FORWARDED_HOST = b"x-forwarded-host"
TEXTS_KEPT = 1024  # of each kind
TEXT_BYTES_KEPT = 512


class RequestRecord(Struct):
    """What the request line says about one request.

    ``client`` is the peer as host:port, ``size`` is of the body in bytes, ``seconds``
    is how long the answer took. ``verdict`` and ``reason`` are the decision's.
    """

    head: RequestHead
    request: Request
    client: str
    status: int
    size: int
    seconds: float
    user: str = ""
    upstream: str = ""
    verdict: Verdict = ""
    reason: str = ""
    upstream_seconds: float | None = None  # from passing it on to its answer's head


class ClientResolver:
    """Who sent a request, and to which host, before any gateway in front of us.

    Both are looked up for each line and come again, so what a peer's fields amounted to
    is remembered.
    """

    def __init__(self, core: Settings) -> None:
        self._trust = TrustedProxies(core)
        self._behind_proxy = core.reverse_proxy
        self._client_field = core.real_client_ip_header.lower().encode()
        self._clients: dict[tuple[str, bytes], str] = {}
        self._hosts: dict[tuple[str, bytes], str] = {}

    def client(self, entry: RequestRecord) -> str:
        """The client's address; the peer's, with its port, when there is no gateway."""
        if not self._behind_proxy:
            return entry.client
        request, head = entry.request, entry.head
        if self._client_field not in head.fields:
            return request.peer or "@"
        value = head.single_value(self._client_field)
        if value is None:  # several
            return self._trust.client(request) or "@"
        client = self._clients.get((request.peer, value))
        if client is None:
            client = self._trust.client(request) or "@"
            if len(value) <= TEXT_BYTES_KEPT:
                _keep(self._clients, (request.peer, value), client)
        return client

    def host(self, entry: RequestRecord) -> str:
        """The original host, "-" if it is malformed or missing."""
        head, request = entry.head, entry.request
        if not self._behind_proxy or FORWARDED_HOST not in head.fields:
            return head.host or "-"
        value = head.single_value(FORWARDED_HOST)
        if value is None:  # several
            return self._trust.host(request) or "-"
        host = self._hosts.get((request.peer, value))
        if host is None:
            host = self._trust.host(request) or "-"
            if len(value) <= TEXT_BYTES_KEPT:
                _keep(self._hosts, (request.peer, value), host)
        return host


class LogFormatter(Protocol):
    """Makes lines, each with its end."""

    def request(self, entry: RequestRecord) -> str:
        """The line of an answered request."""

    def auth(self, entry: RequestRecord, event: Event, status: AuthStatus) -> str:
        """The line of something that happened to a login or a session."""

    def standard(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> str:
        """Any other line; *request_id* names the request that it is about."""


class TextFormatter:
    """Lines by templates; raises `SettingsError` for those that can't be used."""

    def __init__(self, settings: LogSettings, core: Settings, clock: Clock) -> None:
        self._clock = clock
        self._resolver = ClientResolver(core)
        self._agents: dict[bytes, str] = {}
        self._users: dict[str, str] = {}
        self._request_format = settings.request_format and compile_format(
            "request_logging_format", settings.request_format, REQUEST_FIELDS
        )
        self._auth_format = compile_format(
            "auth_logging_format", settings.auth_format or AUTH_FORMAT, AUTH_FIELDS
        )
        self._standard_format = compile_format(
            "standard_logging_format",
            settings.standard_format or STANDARD_FORMAT,
            STANDARD_FIELDS,
        )

    def standard(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> str:
        """Any other line; *request_id* names the request that it is about."""
        if request_id:
            message = f"{message} (request {request_id})"
        return self._standard_format(
            (self._clock.timestamp, module, escape_unprintable(message))
        )

    def request(self, entry: RequestRecord) -> str:
        """The line of an answered request."""
        head, request = entry.head, entry.request
        target = head.target
        if b"?" in target:
            target = redact(target)
        uri = target.decode("ascii")
        if '"' in uri or "\\" in uri:
            uri = quote(uri)[1:-1]
        client, host = self._resolver.client(entry), self._resolver.host(entry)
        user = self._user(entry.user) if entry.user else "-"
        agent = self._agent(head)
        if self._request_format:
            return self._request_format(
                (
                    client, host, PROTOCOLS[head.minor], request.id,
                    f"{entry.seconds:.3f}", head.method.decode("ascii"), f'"{uri}"',
                    str(entry.size), str(entry.status), self._clock.timestamp,
                    entry.upstream or "-", agent, user, trace_id_of(head) or "-",
                )
            )  # fmt: skip
        return (
            f"{client} - {request.id} - {user} [{self._clock.timestamp}] "
            f"{host} {head.method.decode('ascii')} {entry.upstream or '-'} "
            f'"{uri}" {PROTOCOLS[head.minor]} {agent} '
            f"{entry.status} {entry.size} {entry.seconds:.3f}\n"
        )

    def auth(self, entry: RequestRecord, event: Event, status: AuthStatus) -> str:
        """The line of something that happened to a login or a session."""
        head, request = entry.head, entry.request
        return self._auth_format(
            (
                self._resolver.client(entry), self._resolver.host(entry),
                PROTOCOLS[head.minor],
                request.id, head.method.decode("ascii"), self._clock.timestamp,
                self._agent(head), self._user(event.user) if event.user else "-",
                status, escape_unprintable(event_message(event, status)), trace_id_of(head) or "-",
            )
        )  # fmt: skip

    def _agent(self, head: RequestHead) -> str:
        value = head.fields.get(b"user-agent", b"")
        text = self._agents.get(value)
        if text is None:
            text = quote(decode_bytes(value))
            if len(value) <= TEXT_BYTES_KEPT:
                _keep(self._agents, value, text)
        return text

    def _user(self, user: str) -> str:
        text = self._users.get(user)
        if text is None:
            text = format_field(user)
            if len(user) <= TEXT_BYTES_KEPT:
                _keep(self._users, user, text)
        return text


def event_message(event: Event, status: AuthStatus) -> str:
    """What an authentication line says about an event.

    A success is told with its detail (who it is), a failure with its reason: its
    detail, a sentence for the operator, is a line of the standard log.
    """
    if status == "AuthSuccess" and event.detail:
        return event.detail
    message = event.kind.replace("_", " ")
    return f"{message}: {event.reason}" if event.reason else message


def trace_id_of(head: RequestHead) -> str:
    """The id of the trace that a request belongs to, or ""."""
    value = head.single_value(TRACEPARENT)
    return trace_id(value) if value is not None else ""


def _keep(known: dict[Key, str], key: Key, text: str) -> None:
    if len(known) >= TEXTS_KEPT:
        known.clear()
    known[key] = text
