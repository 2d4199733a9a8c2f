"""Parsing an upstream's response: any bytes, split anywhere."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.upstream_response import (
    MAX_HEAD_BYTES,
    ResponseHead,
    ResponseReader,
    UpstreamError,
)
from authproxy_core.messages import Headers

HEADS = [
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
    b"HTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    b"HTTP/1.1 200 OK\r\nA : b\n c\nContent-Length: 5\r\nContent-Length: 5\r\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
]
BODIES = [b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"\r\n", b""]
responses = st.tuples(
    st.lists(st.sampled_from(HEADS), max_size=3),
    st.sampled_from(BODIES),
    st.binary(max_size=6),
).map(lambda parts: b"".join(parts[0]) + parts[1] + parts[2])


def read(
    method: bytes, parts: Iterable[bytes]
) -> tuple[list[ResponseHead], bytes, str]:
    """Return the heads, the body and the result: a reason code, "done" or "open"."""
    reader = ResponseReader(method)
    heads: list[ResponseHead] = []
    body = b""
    try:
        for data in parts:
            reader.feed(data)
            while not heads or heads[-1].status < 200:
                head = reader.read_head()
                if head is None:
                    break
                heads.append(head)
            else:
                while chunk := reader.read_chunk():
                    body += chunk
    except UpstreamError as error:
        return heads, body, error.reason
    final = bool(heads) and heads[-1].status >= 200
    return heads, body, "done" if final and reader.done else "open"


@given(responses | st.binary(max_size=80), st.sampled_from([b"GET", b"HEAD"]))
def test_response_reader_single_bytes_give_the_same_result(
    data: bytes, method: bytes
) -> None:
    whole = read(method, [data])
    single = read(method, [data[at : at + 1] for at in range(len(data))])
    if whole[2] in ("malformed_answer", "head_too_large"):
        assert single[2] == whole[2]
        assert single[0] == whole[0]
    else:
        assert single == whole


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_response_reader_chunked_body_is_decoded(chunks: list[bytes]) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    data = HEADS[2] + coded + b"0\r\n\r\n"
    assert read(b"GET", [data])[1:] == (b"".join(chunks), "done")


@pytest.mark.parametrize(
    ("head", "status", "headers"),
    [
        (b"HTTP/1.1 200 OK\nA: b\nContent-Length: 5\n\n", 200, ((b"a", b"b"),)),
        (b"HTTP/1.1 200 OK\r\nA: b\nContent-Length: 5\r\n\n", 200, ((b"a", b"b"),)),
        (b"HTTP/1.1  404 No\r\nContent-Length: 5\r\n\r\n", 404, ()),
        (b"HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\n", 200, ()),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length:5 \r\n\r\n", 200, ()),
        (
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\t\r\n\td \r\nContent-Length: 5\r\n\r\n",
            200,
            ((b"a", b"b c  d"),),
        ),
        (b"HTTP/1.1 200\r\nA \t: b\r\nContent-Length: 5\r\n\r\n", 200, ((b"a", b"b"),)),
    ],
)
def test_response_reader_odd_head_normalized(
    head: bytes, status: int, headers: Headers
) -> None:
    """The connection is not used again."""
    assert read(b"GET", [head + b"hello"]) == (
        [ResponseHead(status, headers, 5, False, False)],
        b"hello",
        "done",
    )


def test_response_reader_padded_chunk_sizes_accepted() -> None:
    data = HEADS[2] + b"5     \r\nhello\r\n2 ;a=b\r\n, \r\n0       \r\n\r\n"
    assert read(b"GET", [data])[1:] == (b"hello, ", "done")


@pytest.mark.parametrize("informational", [0, 1])
@pytest.mark.parametrize(("surplus", "result"), [(0, "done"), (1, "head_too_large")])
def test_response_reader_size_of_all_heads_is_limited(
    informational: int, surplus: int, result: str
) -> None:
    before = HEADS[3] * informational
    start, end = b"HTTP/1.1 204 No\r\nx: ", b"\r\n\r\n"
    size = MAX_HEAD_BYTES - len(before + start + end) + surplus
    data = before + start + b"y" * size + end
    assert read(b"GET", [data])[2] == result
    assert read(b"GET", [data[:1000], data[1000:]])[2] == result


def test_response_reader_bytes_after_the_response_stay_trailing_data() -> None:
    reader = ResponseReader(b"GET")
    reader.feed(HEADS[1] + b"helloHTTP/1.1 500 No\r\n\r\n")
    head = reader.read_head()
    assert head is not None
    assert (head.status, reader.read_chunk(), reader.done) == (200, b"hello", True)
    assert (reader.read_chunk(), reader.trailing_data) == (
        b"",
        b"HTTP/1.1 500 No\r\n\r\n",
    )
