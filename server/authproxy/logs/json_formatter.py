"""Log lines as JSON: one object per line, with the same fields for each kind.

Unknown values are null. The encoding prevents strings from ending a line, and the middle
of a long one is left out. Unprintable characters are escaped, because they could control
a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from authproxy_core.errors import RequestError
from authproxy_core.messages import Event
from authproxy_core.request.original import TrustedProxies
from authproxy_core.settings.root import Settings

from ..loop.clock import Clock
from .formatter import (
    PROTOCOLS,
    AuthStatus,
    ClientResolver,
    Level,
    RequestRecord,
    event_message,
    trace_id_of,
)
from .redact import MAX_SHORT_TEXT_LENGTH, MAX_TEXT_LENGTH, clip, redact

LONG = frozenset({"message", "target", "uri"})  # the other fields are short
DELETE = "\x7f"  # the only unprintable ASCII character that JSON does not escape


class JsonFormatter:
    """Formats the lines of `LogFormatter` as JSON."""

    def __init__(self, core: Settings, clock: Clock) -> None:
        self._clock = clock
        self._resolver = ClientResolver(core)
        self._trust = TrustedProxies(core)
        self._behind_proxy = core.reverse_proxy

    def standard(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> str:
        """Return a standard log line; *request_id* is "" outside of requests."""
        return _line(
            {
                "time": self._clock.rfc3339(),
                "kind": "standard",
                "level": level,
                "module": module,
                "message": message,
                "request_id": request_id or None,
            }
        )

    def request(self, record: RequestRecord) -> str:
        """Return the request log line; its time is the start of the request."""
        upstream_seconds = record.upstream_seconds
        return _line(
            {
                "time": self._clock.rfc3339(record.seconds),
                "kind": "request",
                **self._request_fields(record),
                "user": record.user or None,
                "decision": record.verdict or None,
                "reason": record.reason or None,
                "status": record.status,
                "size": record.size,
                "duration": round(record.seconds, 6),
                "upstream": record.upstream or None,
                "upstream_time": (
                    None if upstream_seconds is None else round(upstream_seconds, 6)
                ),
            }
        )

    def auth(self, record: RequestRecord, event: Event, status: AuthStatus) -> str:
        """Return the auth log line of *event*, which occurred in a request."""
        return _line(
            {
                "time": self._clock.rfc3339(),
                "kind": "auth",
                **self._request_fields(record),
                "user": event.user or None,
                "result": status,
                "event": event.kind,
                "reason": event.reason or None,
                "message": event_message(event, status),
            }
        )

    def _request_fields(self, record: RequestRecord) -> dict[str, Any]:
        """Return the fields of the original request; ``target`` is the received one."""
        head, request = record.head, record.request
        target = redact(head.target).decode("ascii")
        method, host, uri, scheme = head.method, head.host, target, None
        if self._behind_proxy:
            try:
                original = self._trust.original(request)
            except RequestError:
                pass  # the response was 400; log the request as received
            else:
                method, host, scheme = original.method, original.host, original.scheme
                uri = _text(redact(original.uri))
        else:
            scheme = "https" if request.secure else "http"
        agent = head.fields.get(b"user-agent")
        return {
            "request_id": request.id,
            "trace_id": trace_id_of(head) or None,
            "client": self._resolver.client(record),
            "method": _text(method),
            "scheme": scheme,
            "host": host or None,
            "uri": uri,
            "target": target,
            "protocol": PROTOCOLS[head.minor],
            "user_agent": None if agent is None else _text(agent),
        }


def _text(value: bytes) -> str:
    """Return the text of *value*, without the middle if it is too long for a line."""
    if len(value) > MAX_TEXT_LENGTH:
        half = MAX_TEXT_LENGTH // 2
        value = value[:half] + b"..." + value[-half:]
    return value.decode("utf-8", "backslashreplace")


def _line(fields: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(fields).decode()
        if len(text) > MAX_TEXT_LENGTH:
            fields = {key: _clip(key, value) for key, value in fields.items()}
            text = orjson.dumps(fields).decode()
    except orjson.JSONEncodeError:  # lone surrogates are not allowed in UTF-8
        text = orjson.dumps(
            {
                key: _replace_surrogates(_clip(key, value))
                for key, value in fields.items()
            }
        ).decode()
    if not (text.isascii() and DELETE not in text) and not text.isprintable():
        text = "".join(
            [char if char.isprintable() else _escape_char(char) for char in text]
        )
    return text + "\n"


def _clip(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    limit = MAX_TEXT_LENGTH if key in LONG else MAX_SHORT_TEXT_LENGTH
    # Escapes of other characters take up to 12 characters.
    return clip(value, limit if value.isascii() else limit // 4)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _escape_char(char: str) -> str:
    """Return the JSON escape of *char*: one or two UTF-16 code units."""
    units = char.encode("utf-16-be").hex()
    return "".join([f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)])
