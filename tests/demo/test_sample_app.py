"""The sample application of the demonstration."""

from __future__ import annotations

import json

from authproxy_demo import sample_app
from authproxy_devprovider.pages import PAGE_HEADERS

HEADERS = (
    (b"host", b"app"),
    (b"x-forwarded-preferred-username", b"<alice>"),
    (b"x-forwarded-user", b"sub"),
    (b"authorization", b"Bearer " + b"t" * 100),
)


def test_page_escapes_and_shortens_headers() -> None:
    status, headers, body = sample_app.handle(b"GET", b"/a?b", HEADERS, b"")
    text = body.decode()
    assert status == 200
    assert headers == PAGE_HEADERS
    assert "Hello, &lt;alice&gt;" in text
    assert "<alice>" not in text
    identity, others = text.split("Other headers")
    assert "X-Forwarded-User" in identity
    assert "X-Forwarded-User" not in others
    assert "t" * 30 not in text
    assert "(107 characters)" in others
    assert 'href="/oauth2/sign_out?rd=/"' in text


def test_headers_json_has_complete_values() -> None:
    _, _, body = sample_app.handle(b"POST", b"/headers.json?x", HEADERS, b"12345")
    value = json.loads(body)
    assert value["target"] == "/headers.json?x"
    assert ["authorization", "Bearer " + "t" * 100] in value["headers"]
    assert value["body_bytes"] == 5


def test_page_without_identity_headers() -> None:
    _, _, body = sample_app.handle(b"GET", b"/", ((b"host", b"app"),), b"")
    assert b"did not pass through authproxy" in body
