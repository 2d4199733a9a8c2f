"""The fast path for responses agrees with `ResponseReader`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http import response_encoder
from authproxy.http.simple_response import parse_simple_response
from authproxy.http.upstream_response import (
    MAX_HEAD_BYTES,
    ResponseReader,
    UpstreamError,
)

OK = b"HTTP/1.1 200 OK\r\n"
DATE = b"Date: now\r\n"
LINES = [
    b"Content-Length: 5",
    b"content-length:5",
    b"Content-Length: 0",
    b"Content-Length: +5",
    b"Content-Length: 5, 5",
    b"Connection: keep-alive",
    b"connection: close",
    b"Connection: x-a",
    b"Keep-Alive: timeout=5",
    b"Transfer-Encoding: chunked",
    b"Upgrade: h2c",
    b"Trailer: x",
    b"Date: Tue, 24 Nov 2026 16:11:31 GMT",
    b'ETag: "x"',
    b"x-a:  b\t ",
    b"X-A:",
    b"x-\xff: b",
    b"x-a : b",
    b" folded: b",
    b"\tfolded",
    b"no field",
    b": nameless",
    b"x-a: \x00",
    b"x-a: \x7f",
    b"x-a: a\rb",
    b"x-a: a\nb",
    b"x-a: \xc3\xa9",
    b"",
]
STATUS_LINES = [
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 200 ",
    b"HTTP/1.1 200",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 103 Early",
    b"HTTP/1.1 999 Odd",
    b"HTTP/1.1 2000 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 200 \x01",
    b"HTTP/2.0 200 OK",
]
any_response = st.tuples(
    st.sampled_from(STATUS_LINES),
    st.lists(st.sampled_from(LINES) | st.binary(max_size=12), max_size=5),
    st.sampled_from([b"hello", b"", b"hell", b"hello!", b"5\r\nhello\r\n0\r\n\r\n"]),
).map(lambda parts: b"\r\n".join([parts[0], *parts[1], b"", parts[2]]))


def relay_with_reader(data: bytes, *, head_only: bool) -> bytes | None:
    """Return the bytes for the client if *data* is exactly one reusable response."""
    reader = ResponseReader(b"HEAD" if head_only else b"GET")
    reader.feed(data)
    try:
        head = reader.read_head()
        body = (
            reader.read_buffered_body()
            if head is not None and head.status >= 200
            else None
        )
    except UpstreamError:
        return None
    if head is None or body is None or reader.trailing_data or not head.keep_alive:
        return None
    first = response_encoder.encode_stream_head(
        head.status,
        head.headers,
        DATE,
        length=head.length,
        chunked=False,
        persistence="",
    )
    return first + body


def relay_simple(data: bytes, *, head_only: bool) -> bytes | None:
    """Return the bytes for the client if *data* is a simple response."""
    response = parse_simple_response(data, bodiless=head_only)
    if response is None:
        return None
    return response_encoder.encode_relayed(
        response.status,
        b"",
        response.fields,
        b"" if response.has_date else DATE,
        response.body,
        length=response.length,
        persistence="",
    )


@given(any_response | st.binary(max_size=60), st.booleans())
def test_parse_simple_response_agrees_with_response_reader(
    data: bytes, head_only: bool
) -> None:
    simple = relay_simple(data, head_only=head_only)
    assert simple is None or simple == relay_with_reader(data, head_only=head_only)


@pytest.mark.parametrize(
    ("data", "head_only"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", False),
        (OK + b"Content-Length: 5\r\n\r\n", True),
        (OK + b"\r\n", True),
        (
            OK + b"Server: x\r\nDATE: then\r\nConnection: Keep-Alive\r\nKeep-Alive: 5\r\n"
            b"Content-Type: text/html\r\nX-A: \t b \xe9 \r\nContent-Length: 5\r\n\r\nhello",
            False,
        ),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n", False),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 7\r\n\r\n", False),
        (b"HTTP/1.1 404 Not Found\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
         b"content-length: 0\r\n\r\n", False),
    ],
)  # fmt: skip
def test_parse_simple_response_common_response_accepted(
    data: bytes, head_only: bool
) -> None:
    simple = relay_simple(data, head_only=head_only)
    assert simple is not None
    assert simple == relay_with_reader(data, head_only=head_only)


@pytest.mark.parametrize(
    "data",
    [
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Content-Length: 5\r\n\r\nhello!",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nUpgrade: h2c\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nX-A: \x00\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nX-A: b\n\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nX-A: b\r\n c\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nX A: b\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nServer\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"\r\n",
        OK + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_parse_simple_response_rare_or_malformed_response_left(data: bytes) -> None:
    assert parse_simple_response(data, bodiless=False) is None


def test_parse_simple_response_more_names_than_cached_are_correct() -> None:
    size = 0
    for number in range(30_000):
        name = b"X-%d" % number
        size += len(name)
        data = OK + name + b": a\r\nContent-Length: 0\r\n\r\n"
        simple = relay_simple(data, head_only=False)
        assert simple == relay_with_reader(data, head_only=False)
    assert size > response_encoder.MAX_CACHED_NAME_BYTES
    long = b"X-" + b"y" * response_encoder.MAX_CACHED_NAME_BYTES
    for _ in range(2):
        response = parse_simple_response(
            OK + long + b": a\r\nContent-Length: 0\r\n\r\n", bodiless=False
        )
        assert response is not None
        assert response.fields[0] == b"X-Y" + long[3:] + b": "
