"""Log lines: one for each request, one for each decision about a login, and texts.

The formats are those of oauth2-proxy, so that what reads its logs reads ours. Lines
are formatted on the loop's thread and written by another (`log_writer`). Nothing that
is a credential gets into a line (`log_text.redact`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from authproxy_core.messages import Event, Request, Verdict
from authproxy_core.original import Trust
from authproxy_core.settings import Settings

from .clock import Clock
from .heads import Head
from .log_text import compile_format, decoded, quoted, redact, safe, word
from .log_writer import LogWriter
from .server_settings import LogSettings

Format: TypeAlias = Callable[[tuple[str, ...]], str]
Key = TypeVar("Key")

REQUEST_FIELDS = (
    "Client", "Host", "Protocol", "RequestID", "RequestDuration", "RequestMethod",
    "RequestURI", "ResponseSize", "StatusCode", "Timestamp", "Upstream", "UserAgent",
    "Username",
)  # fmt: skip
AUTH_FIELDS = (
    "Client", "Host", "Protocol", "RequestID", "RequestMethod", "Timestamp",
    "UserAgent", "Username", "Status", "Message",
)  # fmt: skip
STANDARD_FIELDS = ("Timestamp", "File", "Message")
AUTH_FORMAT = (
    "{{.Client}} - {{.RequestID}} - {{.Username}} [{{.Timestamp}}] "
    "[{{.Status}}] {{.Message}}"
)
STANDARD_FORMAT = "[{{.Timestamp}}] [{{.File}}] {{.Message}}"
PROTOCOLS = ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0")

# What an event is in the authentication log; those not named here have no line there.
AUTH_STATUS = {
    "logged_in": "AuthSuccess",
    "logged_out": "AuthSuccess",
    "denied": "AuthFailure",
    "login_denied": "AuthFailure",
    "login_failed": "AuthFailure",
    "refresh_failed": "AuthError",
    "store_unavailable": "AuthError",
}
GOOD_NEWS = frozenset({"provider_ready", "refreshed"})
TEXTS_KEPT = 1024  # of each kind
TEXT_BYTES_KEPT = 512


class Entry(Struct):
    """What the request line says about one request.

    ``client`` is the peer as host:port, ``size`` is of the body in bytes, ``seconds``
    is how long the answer took.
    """

    head: Head
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


class Logs:
    """Makes the lines of one worker."""

    def __init__(
        self,
        settings: LogSettings,
        core: Settings,
        clock: Clock,
        output: LogWriter,
        errors: LogWriter,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._write = output.write
        self._write_error = output.write if settings.errors_to_info else errors.write
        self._trust = Trust(core)
        self._behind_proxy = core.reverse_proxy
        self._ping = (core.ping_path, core.ping_user_agent)
        self._agents: dict[bytes, str] = {}
        self._users: dict[str, str] = {}
        self._skips = settings.silence_ping or bool(settings.exclude_paths)
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

    def become(self, other: Logs) -> None:
        """Write as *other* does from now on, for everybody who holds this one."""
        vars(self).update(vars(other))

    def answered(self, entry: Entry, events: tuple[Event, ...]) -> None:
        """Write the lines of an answered request."""
        if events:
            self._events(entry, events)
        if self._settings.request and not (self._skips and self._skipped(entry.head)):
            self._write(self._request_line(entry))

    def event(self, event: Event) -> None:
        """Write a fact that belongs to no single request."""
        log = self.info if event.kind in GOOD_NEWS else self.error
        text = event.detail or event.reason
        log(event.kind, f"{event.user}: {text}" if event.user else text)

    def info(self, module: str, message: str) -> None:
        """A line in the standard log."""
        if self._settings.standard:
            self._write(self._standard_line(module, message))

    def error(self, module: str, message: str) -> None:
        """A line about something that somebody should look at."""
        if self._settings.standard:
            self._write_error(self._standard_line(module, message))

    def exception(self, module: str, message: str, error: BaseException) -> None:
        """An error line, and the traceback, each of its lines as one of the log."""
        self.error(module, message)
        for text in traceback.format_exception(error):
            for line in text.rstrip("\n").split("\n"):
                self.error(module, line)

    def _standard_line(self, module: str, message: str) -> str:
        return self._standard_format((self._clock.timestamp, module, safe(message)))

    def _request_line(self, entry: Entry) -> str:
        head, request = entry.head, entry.request
        target = head.target
        if b"?" in target:
            target = redact(target)
        uri = target.decode("ascii")
        if '"' in uri or "\\" in uri:
            uri = quoted(uri)[1:-1]
        client, host = self._client(entry), self._host(head, request)
        user = self._user(entry.user) if entry.user else "-"
        agent = self._agent(head)
        if self._request_format:
            return self._request_format(
                (
                    client, host, PROTOCOLS[head.minor], request.id,
                    f"{entry.seconds:.3f}", head.method.decode("ascii"), f'"{uri}"',
                    str(entry.size), str(entry.status), self._clock.timestamp,
                    entry.upstream or "-", agent, user,
                )
            )  # fmt: skip
        return (
            f"{client} - {request.id} - {user} [{self._clock.timestamp}] "
            f"{host} {head.method.decode('ascii')} {entry.upstream or '-'} "
            f'"{uri}" {PROTOCOLS[head.minor]} {agent} '
            f"{entry.status} {entry.size} {entry.seconds:.3f}\n"
        )

    def _client(self, entry: Entry) -> str:
        if self._behind_proxy:
            return self._trust.client(entry.request) or "@"
        return entry.client

    def _host(self, head: Head, request: Request) -> str:
        # The field is looked up before the peer is judged: it is rarely there.
        if self._behind_proxy and b"x-forwarded-host" in head.fields:
            return self._trust.host(request) or "-"
        return head.host or "-"

    def _agent(self, head: Head) -> str:
        value = head.fields.get(b"user-agent", b"")
        text = self._agents.get(value)
        if text is None:
            text = quoted(decoded(value))
            if len(value) <= TEXT_BYTES_KEPT:
                _keep(self._agents, value, text)
        return text

    def _user(self, user: str) -> str:
        text = self._users.get(user)
        if text is None:
            text = word(user)
            if len(user) <= TEXT_BYTES_KEPT:
                _keep(self._users, user, text)
        return text

    def _skipped(self, head: Head) -> bool:
        path = head.target.partition(b"?")[0]
        if self._settings.silence_ping:
            ping_path, ping_agent = self._ping
            agent = head.fields.get(b"user-agent")
            if path == ping_path.encode() or (
                ping_agent and agent == ping_agent.encode()
            ):
                return True
        exclude = self._settings.exclude_paths
        return bool(exclude) and decoded(unquote_to_bytes(path)) in exclude

    def _events(self, entry: Entry, events: tuple[Event, ...]) -> None:
        for event in events:
            status = AUTH_STATUS.get(event.kind)
            if status is not None and self._settings.auth:
                self._write(self._auth_line(entry, event, status))
            if event.detail:
                log = self.info if status == "AuthSuccess" else self.error
                log(event.kind, f"{event.detail} (request {entry.request.id})")

    def _auth_line(self, entry: Entry, event: Event, status: str) -> str:
        head, request = entry.head, entry.request
        message = event.kind.replace("_", " ")
        if event.reason:
            message = f"{message}: {event.reason}"
        return self._auth_format(
            (
                self._client(entry), self._host(head, request), PROTOCOLS[head.minor],
                request.id, head.method.decode("ascii"), self._clock.timestamp,
                self._agent(head), self._user(event.user) if event.user else "-",
                status, safe(message),
            )
        )  # fmt: skip


def _keep(known: dict[Key, str], key: Key, text: str) -> None:
    if len(known) >= TEXTS_KEPT:
        known.clear()
    known[key] = text
