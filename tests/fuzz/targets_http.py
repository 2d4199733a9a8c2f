"""Targets that read HTTP: heads, bodies, frames, PROXY headers, upstream responses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from authproxy.http.body_decoders import ChunkedDecoder
from authproxy.http.field_syntax import FIELD_NAME, FIELD_VALUE
from authproxy.http.request_head import (
    BLANK_LINE,
    HOST,
    VISIBLE,
    HeadError,
    HeadReader,
    RequestHead,
)
from authproxy.http.simple_response import parse_simple_response
from authproxy.http.upstream_response import ResponseReader, UpstreamError
from authproxy.net.proxy_protocol import SIGNATURE, HeaderError, parse_header
from authproxy.server_settings import Limits
from authproxy_core.errors import RequestError
from authproxy_core.messages import Header

from .target import Target

LIMITS = Limits()
GOOD_HEAD = b"GET /a HTTP/1.1\r\nHost: app.example.com\r\n\r\n"


def check_request(head: RequestHead) -> None:
    """Assert that an accepted head is normalized."""
    assert head.target == b"*" or head.target[:1] == b"/", head.target
    assert VISIBLE.fullmatch(head.target), head.target
    assert HOST.fullmatch(head.host.encode()), head.host
    check_fields(head.headers)
    names = [name for name, _ in head.headers]
    assert names.count(b"host") == 1, names
    assert not {b"content-length", b"transfer-encoding"} <= set(names), names


def check_fields(headers: Sequence[Header]) -> None:
    """Assert that names are lower-case tokens, and that no value ends a line."""
    for name, value in headers:
        assert FIELD_NAME.fullmatch(name), name
        assert name == name.lower(), name
        assert FIELD_VALUE.fullmatch(value), value


_reader = HeadReader(LIMITS)  # of one connection: a bad head must not affect the next


def request_head(data: bytes) -> None:
    """Read a head on both paths, and a valid one after it."""
    head, end, _ = data.partition(BLANK_LINE)
    head += end
    single = _reader.read_single(head)
    try:
        found = _reader.read(head)
    except HeadError:
        assert single is None, head
        raise
    finally:
        after = _reader.read_single(GOOD_HEAD)
        assert after is not None
        assert (after.target, len(after.headers)) == (b"/a", 1)
    check_request(found)
    assert single is None or single == found, head


def _decode_chunked(parts: Sequence[bytes]) -> tuple[bytes, list[Header], bool, bytes]:
    decoder, received, body = ChunkedDecoder(), bytearray(), b""
    for part in parts:
        received += part
        while taken := decoder.take(received):
            body += taken
        assert decoder.done or len(received) < 1 << 20
    return body, decoder.trailers, decoder.done, bytes(received)


def chunked_body(data: bytes) -> None:
    """Decode at once and byte by byte: the result must not depend on the packets."""
    try:
        whole = _decode_chunked([data])
    except RequestError as error:
        try:
            _decode_chunked(split(data))
        except RequestError:
            raise error from None
        raise AssertionError("only the whole body is malformed") from None
    bytewise = _decode_chunked(split(data))
    # A size line is read once it is complete; until then its bytes stay.
    assert bytewise == whole
    check_fields(whole[1])


def split(data: bytes) -> list[bytes]:
    """Return *data* as packets: short inputs byte by byte."""
    size = len(data) // 256 + 1
    return [data[at : at + size] for at in range(0, len(data), size)]


def proxy_header(data: bytes) -> None:
    """Parse a PROXY header; no shorter input may be complete."""
    header = parse_header(data)
    if header is None:
        return
    assert 0 < header.size <= len(data)
    assert parse_header(data[: header.size]) == header
    assert parse_header(data[: header.size - 1]) is None
    if header.client is not None:
        address, port = header.client
        assert str(ipaddress.ip_address(address)) == address
        assert 0 <= port <= 0xFFFF


def _read_response(
    parts: Sequence[bytes], method: bytes
) -> tuple[list[tuple[int, int | None, tuple[Header, ...]]], bytes, bool, bytes]:
    reader, heads, body = ResponseReader(method), [], b""
    for part in parts:
        reader.feed(part)
        while not heads or heads[-1][0] < 200:
            head = reader.read_head()
            if head is None:
                break
            check_fields(head.headers)
            heads.append((head.status, head.length, head.headers))
        if heads and heads[-1][0] >= 200:
            while taken := reader.read_chunk():
                body += taken
    done = bool(heads) and heads[-1][0] >= 200 and reader.done
    return heads, body, done, reader.trailing_data if done else b""


def upstream_response(data: bytes) -> None:
    """Read a response at once, byte by byte, and on the fast path."""
    method = b"HEAD" if data[:1] == b"!" else b"GET"
    data = data.removeprefix(b"!")
    simple = parse_simple_response(data, bodiless=method == b"HEAD")
    try:
        heads, body, done, rest = _read_response([data], method)
    except UpstreamError:
        assert simple is None, data
        raise
    if simple is not None:
        assert [(status, length) for status, length, _ in heads] == [
            (simple.status, simple.length)
        ]
        assert (body, done, rest) == (simple.body, True, b"")
        kept = [field for field in heads[0][2] if field[0] != b"date"]
        values = [bytes(value) for value in simple.fields[1::3]]
        assert [value for _, value in heads[0][2]] == values, kept
    try:
        assert _read_response(split(data), method) == (heads, body, done, rest)
    except UpstreamError:
        # Informational responses are read one by one, so an error may come later.
        assert not done, data


TARGETS = (
    Target(
        "request_head",
        request_head,
        (HeadError,),
        (
            GOOD_HEAD,
            b"POST http://app.example.com:80/x?y=1 HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",
            b"PUT /%C3%A4 HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n"
            b"Connection: close, x\r\nCookie: a=b; c=d\r\n\r\n",
            b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nX: a\r\n\tb\r\n\r\n",
            b"\r\nGET /\xc3\xa4 HTTP/1.1\nHost:a\n\n",
        ),
    ),
    Target(
        "chunked_body",
        chunked_body,
        (RequestError,),
        (
            b"5\r\nhello\r\n0\r\n\r\n",
            b'A;x="y"\r\n0123456789\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nB:2\r\n\r\nGET',
            b"ffffffffffffffff\r\nabc",
            b"000\r\n\r\n",
        ),
    ),
    Target(
        "proxy_header",
        proxy_header,
        (HeaderError,),
        (
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\nGET",
            b"PROXY TCP6 2001:db8::1 ::ffff:1.2.3.4 0 65535\r\n",
            b"PROXY UNKNOWN ffff::1 x\r\n",
            SIGNATURE + b"\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb",
            SIGNATURE + b"\x21\x21\0\x24" + bytes(range(36)),
            SIGNATURE + b"\x20\0\0\x03abc",
        ),
    ),
    Target(
        "upstream_response",
        upstream_response,
        (UpstreamError,),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\nDate: x\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: a\r\n\r\n"
            b"2 \r\nok\r\n0\r\nA: b\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No\r\n\r\nrest",
            b"HTTP/1.0 200 OK\nConnection: keep-alive, x-a\nX-A: b\nX: a\n b\n\nbody",
            b"!HTTP/1.1 304  \r\nContent-Length: 9\r\nConnection: keep-alive\r\n\r\n",
            b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ),
    ),
)
