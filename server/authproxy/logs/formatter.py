"""Log lines as text, in the formats of oauth2-proxy.

Tools for its logs work unchanged. Lines contain no credentials (`redact`), and no input
of a client can end a line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Event, Request, Verdict
from authproxy_core.request.original import TrustedProxies
from authproxy_core.request.trace import TRACEPARENT, trace_id
from authproxy_core.settings.root import Settings

from ..http.request_head import RequestHead
from ..loop.clock import Clock
from ..server_settings import LogSettings
from .redact import (
    MAX_SHORT_TEXT_LENGTH,
    MAX_TEXT_LENGTH,
    clip,
    compile_format,
    decode_bytes,
    escape_unprintable,
    format_field,
    quote,
    redact,
)

Format: TypeAlias = Callable[[tuple[str, ...]], str]
Level: TypeAlias = Literal["info", "warning", "error"]
LEVELS: Mapping[str, Level] = {"info": "info", "warning": "warning", "error": "error"}
AuthStatus: TypeAlias = Literal["AuthSuccess", "AuthFailure", "AuthError"]

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
CACHE_BYTES = 256 << 10  # bytes of the keys of one cache
ENTRY_BYTES = 64  # overhead of a cache entry


class RequestRecord(Struct):
    """The data of one request's log lines.

    ``client`` is the peer as ``host:port``. ``size`` is the length of the response body
    in bytes. ``seconds`` is the time from the request to the end of the response.
    ``verdict`` and ``reason`` are those of the decision.
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
    upstream_seconds: float | None = None  # from forwarding to the response's head


class ClientResolver:
    """Resolves the client and the host of the original request, before any gateway.

    The results for the fields of a peer are cached, because most lines have the same.
    """

    def __init__(self, core: Settings) -> None:
        self._trust = TrustedProxies(core)
        self._behind_proxy = core.reverse_proxy
        self._client_field = core.real_client_ip_header.lower().encode()
        self._clients: BoundedCache[tuple[str, bytes], str] = BoundedCache(CACHE_BYTES)
        self._hosts: BoundedCache[tuple[str, bytes], str] = BoundedCache(CACHE_BYTES)

    def client(self, record: RequestRecord) -> str:
        """Return the client's address; without a gateway, the peer's with its port."""
        if not self._behind_proxy:
            return record.client
        request, head = record.request, record.head
        if self._client_field not in head.fields:
            return request.peer or "@"
        value = head.single_value(self._client_field)
        if value is None:  # repeated
            return self._trust.client(request) or "@"
        key = (request.peer, value)
        client = self._clients.get(key)
        if client is None:
            client = self._trust.client(request) or "@"
            self._clients.put(key, client, len(value) + ENTRY_BYTES)
        return client

    def host(self, record: RequestRecord) -> str:
        """Return the original host, "-" if it is malformed or missing."""
        head, request = record.head, record.request
        if not self._behind_proxy or FORWARDED_HOST not in head.fields:
            return head.host or "-"
        value = head.single_value(FORWARDED_HOST)
        if value is None:  # repeated
            return self._trust.host(request) or "-"
        key = (request.peer, value)
        host = self._hosts.get(key)
        if host is None:
            host = self._trust.host(request) or "-"
            self._hosts.put(key, host, len(value) + ENTRY_BYTES)
        return host


class LogFormatter(Protocol):
    """Formats log lines; each includes its line feed."""

    def request(self, record: RequestRecord) -> str:
        """Return the request log line of a finished request."""

    def auth(self, record: RequestRecord, event: Event, status: AuthStatus) -> str:
        """Return the auth log line of *event*, which occurred in a request."""

    def standard(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> str:
        """Return a standard log line; *request_id* is "" outside of requests."""


class TextFormatter:
    """Formats lines by templates. Raises `SettingsError` for invalid templates."""

    def __init__(self, settings: LogSettings, core: Settings, clock: Clock) -> None:
        self._clock = clock
        self._resolver = ClientResolver(core)
        self._agents: BoundedCache[bytes, str] = BoundedCache(CACHE_BYTES)
        self._users: BoundedCache[str, str] = BoundedCache(CACHE_BYTES)
        self._targets: BoundedCache[bytes, str] = BoundedCache(CACHE_BYTES)
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
        """Return a standard log line; *request_id* is "" outside of requests."""
        if level == "warning":  # lines of the other levels do not name theirs
            message = f"warning: {message}"
        if request_id:
            message = f"{message} (request {request_id})"
        return self._standard_format(
            (self._clock.timestamp, module, clip(escape_unprintable(clip(message))))
        )

    def request(self, record: RequestRecord) -> str:
        """Return the request log line of a finished request."""
        head, request = record.head, record.request
        uri = self._targets.get(head.target) or self._target(head.target)
        client, host = self._resolver.client(record), self._resolver.host(record)
        user = self._user(record.user) if record.user else "-"
        agent = self._agent(head)
        if self._request_format:
            return self._request_format(
                (
                    client, host, PROTOCOLS[head.minor], request.id,
                    f"{record.seconds:.3f}", _method(head.method), f'"{uri}"',
                    str(record.size), str(record.status), self._clock.timestamp,
                    record.upstream or "-", agent, user, trace_id_of(head) or "-",
                )
            )  # fmt: skip
        return (
            f"{client} - {request.id} - {user} [{self._clock.timestamp}] "
            f"{host} {head.method.decode('ascii')} {record.upstream or '-'} "
            f'"{uri}" {PROTOCOLS[head.minor]} {agent} '
            f"{record.status} {record.size} {record.seconds:.3f}\n"
        )

    def auth(self, record: RequestRecord, event: Event, status: AuthStatus) -> str:
        """Return the auth log line of *event*, which occurred in a request."""
        head, request = record.head, record.request
        return self._auth_format(
            (
                self._resolver.client(record), self._resolver.host(record),
                PROTOCOLS[head.minor],
                request.id, _method(head.method), self._clock.timestamp,
                self._agent(head), self._user(event.user) if event.user else "-",
                status, clip(escape_unprintable(event_message(event, status))), trace_id_of(head) or "-",
            )
        )  # fmt: skip

    def _target(self, target: bytes) -> str:
        """Return the text of a request target without credentials."""
        has_query = b"?" in target
        uri = (redact(target) if has_query or b"%" in target else target).decode(
            "ascii"
        )
        if len(uri) > MAX_TEXT_LENGTH:
            uri = clip(uri)
        if '"' in uri or "\\" in uri:
            uri = quote(uri)[1:-1]
        # Most queries do not come again, except those of a gateway's checks.
        if not has_query or b"/auth?" in target:
            self._targets.put(target, uri, len(target) + ENTRY_BYTES)
        return uri

    def _agent(self, head: RequestHead) -> str:
        value = head.fields.get(b"user-agent", b"")
        text = self._agents.get(value)
        if text is None:
            text = quote(clip(decode_bytes(value), MAX_SHORT_TEXT_LENGTH))
            self._agents.put(value, text, len(value) + ENTRY_BYTES)
        return text

    def _user(self, user: str) -> str:
        text = self._users.get(user)
        if text is None:
            text = format_field(clip(user, MAX_SHORT_TEXT_LENGTH))
            self._users.put(user, text, len(user) + ENTRY_BYTES)
        return text


def _method(method: bytes) -> str:
    return clip(method.decode("ascii"), MAX_SHORT_TEXT_LENGTH)


def event_message(event: Event, status: AuthStatus) -> str:
    """Return the message of the auth log line of *event*.

    For a success it is the detail, for a failure the reason code. The detail of a
    failure is written to the standard log.
    """
    if status == "AuthSuccess" and event.detail:
        return event.detail
    message = event.kind.replace("_", " ")
    return f"{message}: {event.reason}" if event.reason else message


def trace_id_of(head: RequestHead) -> str:
    """Return the trace ID of a request, "" if there is no valid one."""
    value = head.single_value(TRACEPARENT)
    return trace_id(value) if value is not None else ""
