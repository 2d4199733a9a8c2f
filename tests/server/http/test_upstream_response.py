"""Reading an upstream's answer: any bytes, cut anywhere."""

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

HEADS = [
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
    b"HTTP/1.0 404 No\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 5\n\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
]
BODIES = [b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"\r\n", b""]
answers = st.tuples(
    st.lists(st.sampled_from(HEADS), max_size=3),
    st.sampled_from(BODIES),
    st.binary(max_size=6),
).map(lambda parts: b"".join(parts[0]) + parts[1] + parts[2])


def read(
    method: bytes, pieces: Iterable[bytes]
) -> tuple[list[ResponseHead], bytes, str]:
    """The heads, the body and how it ended: a reason, "done" or "open"."""
    reader = ResponseReader(method)
    heads: list[ResponseHead] = []
    body = b""
    try:
        for data in pieces:
            reader.feed(data)
            while not heads or heads[-1].status < 200:
                head = reader.read_head()
                if head is None:
                    break
                heads.append(head)
            else:
                while piece := reader.read_chunk():
                    body += piece
    except UpstreamError as error:
        return heads, body, error.reason
    final = bool(heads) and heads[-1].status >= 200
    return heads, body, "done" if final and reader.done else "open"


@given(answers | st.binary(max_size=80), st.sampled_from([b"GET", b"HEAD"]))
def test_it_does_not_matter_where_the_bytes_are_cut(data: bytes, method: bytes) -> None:
    """Whatever comes, it is read or refused, and the same way in single bytes."""
    whole = read(method, [data])
    single = read(method, [data[at : at + 1] for at in range(len(data))])
    if whole[2] in ("malformed_answer", "head_too_large"):
        assert single[2] == whole[2]
        assert single[0] == whole[0]
    else:
        assert single == whole


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_a_chunked_body_comes_out_as_it_went_in(chunks: list[bytes]) -> None:
    coded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    data = HEADS[2] + coded + b"0\r\n\r\n"
    assert read(b"GET", [data])[1:] == (b"".join(chunks), "done")


@pytest.mark.parametrize("interim", [0, 1])
@pytest.mark.parametrize(("surplus", "ending"), [(0, "done"), (1, "head_too_large")])
def test_the_heads_together_are_bounded(
    interim: int, surplus: int, ending: str
) -> None:
    before = HEADS[3] * interim
    start, end = b"HTTP/1.1 204 No\r\nx: ", b"\r\n\r\n"
    room = MAX_HEAD_BYTES - len(before + start + end) + surplus
    data = before + start + b"y" * room + end
    assert read(b"GET", [data])[2] == ending
    assert read(b"GET", [data[:1000], data[1000:]])[2] == ending


def test_what_comes_after_the_answer_is_left_alone() -> None:
    reader = ResponseReader(b"GET")
    reader.feed(HEADS[1] + b"helloHTTP/1.1 500 No\r\n\r\n")
    head = reader.read_head()
    assert head is not None
    assert (head.status, reader.read_chunk(), reader.done) == (200, b"hello", True)
    assert (reader.read_chunk(), reader.trailing_data) == (
        b"",
        b"HTTP/1.1 500 No\r\n\r\n",
    )
