"""The quick way to read an answer agrees with the thorough one."""

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
any_answer = st.tuples(
    st.sampled_from(STATUS_LINES),
    st.lists(st.sampled_from(LINES) | st.binary(max_size=12), max_size=5),
    st.sampled_from([b"hello", b"", b"hell", b"hello!", b"5\r\nhello\r\n0\r\n\r\n"]),
).map(lambda parts: b"\r\n".join([parts[0], *parts[1], b"", parts[2]]))


def by_the_long_way(data: bytes, *, head_only: bool) -> bytes | None:
    """What goes to the client of a whole answer, after which nothing remains."""
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


def by_the_quick_way(data: bytes, *, head_only: bool) -> bytes | None:
    answer = parse_simple_response(data, bodiless=head_only)
    if answer is None:
        return None
    return response_encoder.encode_relayed(
        answer.status,
        b"",
        answer.fields,
        b"" if answer.has_date else DATE,
        answer.body,
        length=answer.length,
        persistence="",
    )


@given(any_answer | st.binary(max_size=60), st.booleans())
def test_what_is_plain_is_the_same_either_way(data: bytes, head_only: bool) -> None:
    quick = by_the_quick_way(data, head_only=head_only)
    assert quick is None or quick == by_the_long_way(data, head_only=head_only)


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
def test_usual_answers_are_plain(data: bytes, head_only: bool) -> None:
    quick = by_the_quick_way(data, head_only=head_only)
    assert quick is not None
    assert quick == by_the_long_way(data, head_only=head_only)


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
def test_the_rest_is_for_the_long_way(data: bytes) -> None:
    assert parse_simple_response(data, bodiless=False) is None


def test_many_names_are_no_burden() -> None:
    """What is remembered of names is bounded, and never wrong."""
    for number in range(3000):
        name = b"X-%d" % number
        data = OK + name + b": a\r\nContent-Length: 0\r\n\r\n"
        quick = by_the_quick_way(data, head_only=False)
        assert quick == by_the_long_way(data, head_only=False)
    long = b"X-" + b"y" * 100
    for _ in range(2):
        answer = parse_simple_response(
            OK + long + b": a\r\nContent-Length: 0\r\n\r\n", bodiless=False
        )
        assert answer is not None
        assert answer.fields[0] == b"X-Y" + b"y" * 99 + b": "
