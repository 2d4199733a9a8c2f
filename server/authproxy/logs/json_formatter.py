"""Log lines as JSON: one object a line, always with the same fields for its kind.

What is not known is null. Texts are whole, the encoding sees to it that they can't end
a line; what could trick a terminal is written as an escape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from authproxy_core.errors import RequestError
from authproxy_core.messages import Event
from authproxy_core.request.original import TrustedProxies
from authproxy_core.settings.root import Settings

from ..net.clock import Clock
from .formatter import (
    PROTOCOLS,
    AuthStatus,
    ClientResolver,
    Level,
    RequestRecord,
    event_message,
    trace_id_of,
)
from .redact import redact

DELETE = "\x7f"  # the only character of ASCII that JSON lets pass and nobody can print


class JsonFormatter:
    """The same lines as `log_lines.TextLines`, for programs."""

    def __init__(self, core: Settings, clock: Clock) -> None:
        self._clock = clock
        self._resolver = ClientResolver(core)
        self._trust = TrustedProxies(core)
        self._behind_proxy = core.reverse_proxy

    def standard(
        self, level: Level, module: str, message: str, request_id: str = ""
    ) -> str:
        """Any other line; *request_id* names the request that it is about."""
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

    def request(self, entry: RequestRecord) -> str:
        """The line of an answered request; its time is the one of its beginning."""
        upstream_seconds = entry.upstream_seconds
        return _line(
            {
                "time": self._clock.rfc3339(entry.seconds),
                "kind": "request",
                **self._request_fields(entry),
                "user": entry.user or None,
                "decision": entry.verdict or None,
                "reason": entry.reason or None,
                "status": entry.status,
                "size": entry.size,
                "duration": round(entry.seconds, 6),
                "upstream": entry.upstream or None,
                "upstream_time": (
                    None if upstream_seconds is None else round(upstream_seconds, 6)
                ),
            }
        )

    def auth(self, entry: RequestRecord, event: Event, status: AuthStatus) -> str:
        """The line of something that happened to a login or a session."""
        return _line(
            {
                "time": self._clock.rfc3339(),
                "kind": "auth",
                **self._request_fields(entry),
                "user": event.user or None,
                "result": status,
                "event": event.kind,
                "reason": event.reason or None,
                "message": event_message(event, status),
            }
        )

    def _request_fields(self, entry: RequestRecord) -> dict[str, Any]:
        """Which request it is: the original one, and the ``target`` that we were sent."""
        head, request = entry.head, entry.request
        target = redact(head.target).decode("ascii")
        method, host, uri, scheme = head.method, head.host, target, None
        if self._behind_proxy:
            try:
                original = self._trust.original(request)
            except RequestError:
                pass  # the answer was 400: what is shown is what came
            else:
                method, host, scheme = original.method, original.host, original.scheme
                uri = _text(redact(original.uri))
        else:
            scheme = "https" if request.secure else "http"
        agent = head.fields.get(b"user-agent")
        return {
            "request_id": request.id,
            "trace_id": trace_id_of(head) or None,
            "client": self._resolver.client(entry),
            "method": _text(method),
            "scheme": scheme,
            "host": host or None,
            "uri": uri,
            "target": target,
            "protocol": PROTOCOLS[head.minor],
            "user_agent": None if agent is None else _text(agent),
        }


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _line(fields: Mapping[str, Any]) -> str:
    try:
        text = orjson.dumps(fields).decode()
    except orjson.JSONEncodeError:  # half of a surrogate pair: no UTF-8 can hold it
        text = orjson.dumps(
            {key: _replace_surrogates(value) for key, value in fields.items()}
        ).decode()
    if not (text.isascii() and DELETE not in text) and not text.isprintable():
        text = "".join(
            [one if one.isprintable() else _escape_char(one) for one in text]
        )
    return text + "\n"


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _escape_char(character: str) -> str:
    """A character as JSON escapes it: one or two units of UTF-16."""
    units = character.encode("utf-16-be").hex()
    return "".join([f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4)])
