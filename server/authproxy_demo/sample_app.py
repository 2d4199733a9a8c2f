"""The sample application: it shows the request that it received.

``/headers.json`` returns the same as JSON, with complete values.
"""

from __future__ import annotations

import json
from html import escape

from authproxy_core.messages import Headers
from authproxy_devprovider.config import HttpResponse
from authproxy_devprovider.pages import page

IDENTITY = (
    b"x-forwarded-user",
    b"x-forwarded-email",
    b"x-forwarded-preferred-username",
    b"x-forwarded-groups",
)
TOKENS = (b"authorization", b"x-forwarded-access-token", b"cookie")
MAX_TOKEN_DISPLAY = 24  # characters


def handle(method: bytes, target: bytes, headers: Headers, body: bytes) -> HttpResponse:
    """Respond to any request with its method, target and headers."""
    if target.partition(b"?")[0] == b"/headers.json":
        return _as_json(method, target, headers, body)
    return _as_page(method, target, headers)


def _as_json(
    method: bytes, target: bytes, headers: Headers, body: bytes
) -> HttpResponse:
    value = {
        "method": _text(method),
        "target": _text(target),
        "headers": [[_text(name), _text(value)] for name, value in headers],
        "body_bytes": len(body),
    }
    fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
    return 200, fields, json.dumps(value, indent=2).encode()


def _as_page(method: bytes, target: bytes, headers: Headers) -> HttpResponse:
    known = [header for name in IDENTITY for header in headers if header[0] == name]
    others = [header for header in headers if header[0] not in IDENTITY]
    names = [
        value for name, value in known if name == b"x-forwarded-preferred-username"
    ]
    greeting = f"Hello, {_text(names[0])}" if names else "Hello"
    content = (
        f'<div class="top"><div><h1>{escape(greeting)}</h1>'
        f"<p>This is the sample application. It received "
        f"<strong>{escape(_text(method))} {escape(_text(target))}</strong>.</p></div>"
        '<a class="button" href="/oauth2/sign_out?rd=/">Sign out</a></div>'
        f"<h2>Your identity</h2>{_table(known, 'identity')}"
        f"<h2>Other headers</h2>{_table(others, '')}"
        '<p class="note">As JSON: '
        '<a href="/headers.json">/headers.json</a></p>'
    )
    return page(200, "Sample application", content, wide=True)


def _table(headers: list[tuple[bytes, bytes]], style: str) -> str:
    if not headers:
        return "<p>None: this request did not pass through authproxy.</p>"
    rows = "".join(
        f"<tr><th scope=row>{escape(_title(name))}</th>"
        f"<td>{escape(_display_value(name, value))}</td>"
        for name, value in headers
    )
    return f'<div class="scroll"><table class="{style}">{rows}</table></div>'


def _title(name: bytes) -> str:
    return "-".join(word.capitalize() for word in _text(name).split("-"))


def _display_value(name: bytes, value: bytes) -> str:
    text = _text(value)
    if name in TOKENS and len(text) > MAX_TOKEN_DISPLAY:
        return f"{text[:MAX_TOKEN_DISPLAY]}… ({len(text)} characters)"
    return text


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
