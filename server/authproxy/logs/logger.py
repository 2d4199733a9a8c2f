"""Log lines: one for each request, one for each decision about a login, and texts.

Which lines are written is decided here, what stands in them by `log_lines` (text) or
`log_json`. They are made on the loop's thread and written by another (`log_writer`).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from urllib.parse import unquote_to_bytes

from authproxy_core.endpoints.health import ping_paths
from authproxy_core.messages import Event, EventKind
from authproxy_core.settings.root import Settings

from ..net.clock import Clock
from ..server_settings import LogSettings
from .file import LogFile
from .formatter import AuthStatus, LogFormatter, RequestRecord, TextFormatter
from .json_formatter import JsonFormatter
from .redact import decode_bytes
from .writer import FdSink, LogWriter, Sink

# What an event is in the authentication log; those not named here have no line there.
AUTH_STATUS: Mapping[EventKind, AuthStatus] = {
    "logged_in": "AuthSuccess",
    "logged_out": "AuthSuccess",
    "logged_out_by_provider": "AuthSuccess",
    "denied": "AuthFailure",
    "login_denied": "AuthFailure",
    "login_failed": "AuthFailure",
    "logout_failed": "AuthError",
    "logout_refused": "AuthFailure",
    "refresh_failed": "AuthError",
}
STANDARD_OUTPUT, STANDARD_ERROR = 1, 2
INFO_EVENTS: frozenset[EventKind] = frozenset({"provider_ready", "refreshed"})


def create_formatter(
    settings: LogSettings, core: Settings, clock: Clock
) -> LogFormatter:
    """What makes the lines; raises `SettingsError` for templates that are none."""
    if settings.format == "json":
        return JsonFormatter(core, clock)
    return TextFormatter(settings, core, clock)


def log_writers(
    settings: LogSettings, on_lost: Callable[[int], None]
) -> tuple[LogWriter, LogWriter]:
    """Where lines go, and where those about errors; make them after forking."""
    output: Sink = FdSink(STANDARD_OUTPUT)
    if settings.file is not None:
        output = LogFile(settings.file, local_time=settings.local_time)
    errors = FdSink(STANDARD_ERROR)
    return LogWriter(output, on_lost=on_lost), LogWriter(errors, on_lost=on_lost)


class Logs:
    """Writes the lines of one worker.

    *output* gets requests, authentication and good news, *errors* the rest, unless the
    settings say that all goes to *output*.
    """

    def __init__(
        self,
        settings: LogSettings,
        core: Settings,
        clock: Clock,
        output: LogWriter,
        errors: LogWriter,
    ) -> None:
        self._settings = settings
        self._formatter = create_formatter(settings, core, clock)
        self._write = output.write
        self._write_error = output.write if settings.errors_to_info else errors.write
        self._silent_paths = _silent_paths(settings, core)
        self._skips = bool(self._silent_paths or settings.exclude_paths)
        self._writers = (output, errors)

    def attach_writers(self) -> None:
        """Have the writers tell of lost lines in the form of these."""
        for writer in self._writers:
            writer.dropped_line = self._dropped_line

    def replace_with(self, other: Logs) -> None:
        """Write as *other* does from now on, for everybody who holds this one."""
        vars(self).update(vars(other))
        self.attach_writers()

    def record_response(self, entry: RequestRecord, events: tuple[Event, ...]) -> None:
        """Write the lines of an answered request."""
        if events:
            self._events(entry, events)
        if self._settings.request and not (self._skips and self._skipped(entry)):
            self._write(self._formatter.request(entry))

    def event(self, event: Event) -> None:
        """Write a fact that belongs to no single request."""
        log = self.info if event.kind in INFO_EVENTS else self.error
        text = event.detail or event.reason
        log(event.kind, f"{event.user}: {text}" if event.user else text)

    def info(self, module: str, message: str, request_id: str = "") -> None:
        """A line in the standard log."""
        if self._settings.standard:
            self._write(self._formatter.standard("info", module, message, request_id))

    def error(self, module: str, message: str, request_id: str = "") -> None:
        """A line about something that somebody should look at."""
        if self._settings.standard:
            line = self._formatter.standard("error", module, message, request_id)
            self._write_error(line)

    def exception(self, module: str, message: str, error: BaseException) -> None:
        """An error line, and the traceback: lines of text, or in the same object."""
        trace = "".join(traceback.format_exception(error)).rstrip("\n")
        whole = f"{message}\n{trace}"
        for line in [whole] if self._settings.format == "json" else whole.split("\n"):
            self.error(module, line)

    def _dropped_line(self, count: int) -> str:
        return self._formatter.standard("error", "logs", f"{count} log lines were lost")

    def _skipped(self, entry: RequestRecord) -> bool:
        path = entry.head.target.partition(b"?")[0]
        # With a verdict it was no health check, but a request like others.
        if path in self._silent_paths and not entry.verdict:
            return True
        exclude = self._settings.exclude_paths
        return bool(exclude) and decode_bytes(unquote_to_bytes(path)) in exclude

    def _events(self, entry: RequestRecord, events: tuple[Event, ...]) -> None:
        for event in events:
            status = AUTH_STATUS.get(event.kind)
            if status is not None and self._settings.auth:
                self._write(self._formatter.auth(entry, event, status))
            if event.detail and status != "AuthSuccess":
                self.error(event.kind, event.detail, entry.request.id)


def _silent_paths(settings: LogSettings, core: Settings) -> frozenset[bytes]:
    if not settings.silence_ping:
        return frozenset()
    return frozenset({*ping_paths(core), core.ready_path.encode()})
