"""Write the request log, the auth log and the standard log of one worker.

This module decides which lines are written. A `LogFormatter` formats them on the event
loop's thread, and a `LogWriter` writes them on another.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from authproxy_core.endpoints.health import ping_paths
from authproxy_core.messages import Event, EventKind
from authproxy_core.settings.root import Settings

from ..loop.clock import Clock
from ..server_settings import LogSettings
from .file import LogFile
from .formatter import AuthStatus, Level, LogFormatter, RequestRecord, TextFormatter
from .json_formatter import JsonFormatter
from .redact import decode_bytes
from .writer import FdSink, LogWriter, Sink

# The events with a line in the auth log, and its status.
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
EVENT_LEVELS: Mapping[EventKind, Level] = {  # "error" for the others
    "cookie_dropped": "warning",
    "keys_withdrawn": "info",
    "login_started": "info",
    "peer_untrusted": "warning",
    "provider_ready": "info",
    "refreshed": "info",
    "roles_missing": "info",
}
# Events that every worker sees, or that are reported once per worker.
SHARED_EVENTS: frozenset[EventKind] = frozenset(
    {
        "cookie_dropped",
        "keys_withdrawn",
        "login_started",
        "peer_untrusted",
        "provider_failed",
        "provider_ready",
    }
)
# Logs a line (level, module, text) once for all workers; False: it could not.
LogOnce: TypeAlias = Callable[[Level, str, str], bool]


def create_formatter(
    settings: LogSettings, core: Settings, clock: Clock
) -> LogFormatter:
    """Return the formatter. Raises `SettingsError` for invalid templates."""
    if settings.format == "json":
        return JsonFormatter(core, clock)
    return TextFormatter(settings, core, clock)


def create_writers(
    settings: LogSettings, on_dropped: Callable[[int], None]
) -> tuple[LogWriter, LogWriter]:
    """Return the writers for output and for errors; call it after forking.

    *on_dropped* is called with the number of dropped lines.
    """
    output: Sink = FdSink(STANDARD_OUTPUT)
    if settings.file is not None:
        output = LogFile(settings.file, local_time=settings.local_time)
    errors = FdSink(STANDARD_ERROR)
    return LogWriter(output, on_dropped=on_dropped), LogWriter(
        errors, on_dropped=on_dropped
    )


class Logs:
    """The logs of one worker.

    *output* gets the request log, the auth log and the info level of the standard log.
    *errors* gets the other levels, unless ``errors_to_info`` is set. With several
    workers, *log_once* logs the lines that all of them would write.
    """

    def __init__(
        self,
        settings: LogSettings,
        core: Settings,
        clock: Clock,
        output: LogWriter,
        errors: LogWriter,
        log_once: LogOnce | None = None,
    ) -> None:
        self._settings = settings
        self._formatter = create_formatter(settings, core, clock)
        self._write = output.write
        self._write_error = output.write if settings.errors_to_info else errors.write
        self._silent_paths = _silent_paths(settings, core)
        self._has_exclusions = bool(self._silent_paths or settings.exclude_paths)
        self._writers = (output, errors)
        self._log_once = log_once

    def attach_writers(self) -> None:
        """Use the formatter for the writers' lines about dropped lines."""
        for writer in self._writers:
            writer.dropped_line = self._dropped_line

    def replace_with(self, other: Logs) -> None:
        """Behave like *other* from now on; all references to this object stay valid."""
        vars(self).update(vars(other))
        self.attach_writers()

    def record_response(self, record: RequestRecord, events: tuple[Event, ...]) -> None:
        """Write the lines of a finished request."""
        if events:
            self._record_events(record, events)
        if self._settings.request and not (
            self._has_exclusions and self._is_excluded(record)
        ):
            self._write(self._formatter.request(record))

    def event(self, event: Event) -> None:
        """Write an event that belongs to no single request to the standard log."""
        text = event.detail or event.reason
        log = self.shared if event.kind in SHARED_EVENTS else self.write
        level = EVENT_LEVELS.get(event.kind, "error")
        log(level, event.kind, f"{event.user}: {text}" if event.user else text)

    def shared(self, level: Level, module: str, message: str) -> None:
        """Write a line that every worker would write to the standard log, once."""
        once = self._log_once if self._settings.standard else None
        if once is None or not once(level, module, message):
            self.write(level, module, message)

    def write(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> None:
        """Write a line to the standard log."""
        if self._settings.standard:
            line = self._formatter.standard(level, module, message, request_id)
            (self._write if level == "info" else self._write_error)(line)

    def info(self, module: str, message: str, request_id: str = "") -> None:
        """Write a line of the info level to the standard log."""
        self.write("info", module, message, request_id)

    def error(self, module: str, message: str, request_id: str = "") -> None:
        """Write a line of the error level: the operator has to act."""
        self.write("error", module, message, request_id)

    def exception(self, module: str, message: str, error: BaseException) -> None:
        """Write *message* and the traceback of *error*: one object or several lines."""
        trace = "".join(traceback.format_exception(error)).rstrip("\n")
        text = f"{message}\n{trace}"
        for line in [text] if self._settings.format == "json" else text.split("\n"):
            self.error(module, line)

    def _dropped_line(self, count: int) -> str:
        return self._formatter.standard("error", "logs", f"dropped {count} log lines")

    def _is_excluded(self, record: RequestRecord) -> bool:
        path = record.head.target.partition(b"?")[0]
        # A request with a verdict was not handled as a health check.
        if path in self._silent_paths and not record.verdict:
            return True
        exclude = self._settings.exclude_paths
        return bool(exclude) and decode_bytes(unquote_to_bytes(path)) in exclude

    def _record_events(self, record: RequestRecord, events: tuple[Event, ...]) -> None:
        for event in events:
            status = AUTH_STATUS.get(event.kind)
            if status is not None and self._settings.auth:
                self._write(self._formatter.auth(record, event, status))
            if event.detail and status != "AuthSuccess":
                self.error(event.kind, event.detail, record.request.id)


def _silent_paths(settings: LogSettings, core: Settings) -> frozenset[bytes]:
    if not settings.silence_ping:
        return frozenset()
    return frozenset({*ping_paths(core), core.ready_path.encode()})
