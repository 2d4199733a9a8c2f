"""Malformed heads never reach the application; h11 serves as a second opinion."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authproxy.http.request_head import (
    MAX_CONNECTION_OPTIONS,
    MAX_COOKIES,
    HeadError,
    HeadReader,
)
from authproxy.server_settings import Limits
from authproxy_core.effects import Outcome, ReadBody
from authproxy_core.messages import Request
from support.server import Server, Wire, flow, talk

HOST = b"Host: app.example.com\r\n"
PLAIN = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def get(*fields: bytes) -> bytes:
    """Return a GET with additional field lines."""
    return b"GET / HTTP/1.1\r\n" + HOST + b"".join(fields) + b"\r\n"


def reads_bodies(request: Request) -> Outcome:
    """Respond after the body has been read."""
    return flow(ReadBody(1 << 16))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all tests, because rejected requests leave no state."""
    with Server(reads_bodies) as running:
        yield running


def lengths(*values: bytes) -> bytes:
    """Return a POST of one byte with these Content-Length fields."""
    fields = b"".join(b"Content-Length: %b\r\n" % value for value in values)
    return b"POST / HTTP/1.1\r\n" + HOST + fields + b"\r\nx"


MALFORMED = {
    "HT01 CL.TE": b"POST / HTTP/1.1\r\n" + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HT01 TE.CL": b"POST / HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "HT02 two": lengths(b"1", b"2"),
    "HT02 same twice": lengths(b"1", b"1"),
    "HT02 list": lengths(b"1,1"),
    "HT02 plus": lengths(b"+1"),
    "HT02 hex": lengths(b"0x1"),
    "HT02 underscore": lengths(b"1_0"),
    "HT02 exponent": lengths(b"1e3"),
    "HT02 negative": lengths(b"-1"),
    "HT02 long": lengths(b"9" * 30),
    "HT02 unicode": lengths("\u0661".encode()),
    "HT02 empty": lengths(b""),
    "HT02 inner blank": lengths(b"1 1"),
    "HT03 xchunked": b"POST / HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "HT03 gzip, chunked": b"POST / HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HT03 blank before colon": b"POST / HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "HT03 twice": b"POST / HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "HT04": b"POST / HTTP/1.0\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HT07 bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "HT07 LF in head": b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "HT07 LF first": b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT07 CR first": b"\rGET / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT07 LF TRACE": b"\nTRACE / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT07 CR in head": b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "HT07 CR CR LF": b"GET / HTTP/1.1\r\nHost: a\r\r\nX: y\r\n\r\n",
    "HT07 LF end": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "HT08 fold": get(b"X: a\r\n b\r\n"),
    "HT08 fold first": b"GET / HTTP/1.1\r\n X: y\r\n" + HOST + b"\r\n",
    "HT10 NUL": get(b"X: a\0b\r\n"),
    "HT10 control": get(b"X: a\x01b\r\n"),
    "HT10 NUL in name": get(b"X\0: a\r\n"),
    "HT10 no colon": get(b"X\r\n"),
    "HT10 no name": get(b": x\r\n"),
    "HT11 two blanks": b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 tab": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 no version": b"GET /\r\n" + HOST + b"\r\n",
    "HT11 1.2": b"GET / HTTP/1.2\r\n" + HOST + b"\r\n",
    "HT11 9.9": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "HT11 0.9": b"GET / HTTP/0.9\r\n" + HOST + b"\r\n",
    "HT11 lower case": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "HT11 trailing blank": b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n",
    "HT11 blank in target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 raw Latin-1": b"GET /\xe4 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 overlong UTF-8": b"GET /\xc0\xae HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 asterisk": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 authority": b"OPTIONS app.example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 other scheme": b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 absolute and two hosts": b"GET http://a/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "HT11 absolute without host": b"GET http://a/ HTTP/1.1\r\n\r\n",
    "HT11 absolute with fragment": b"GET http://a/#b HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT14 CR in method": b"FO\rO / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 fragment": b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 no slash": b"GET a HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT11 user information": b"GET http://a@b/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT13 foreign": b"CONNECT evil:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT13 own": b"CONNECT app.example.com HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT14 TRACE": b"TRACE / HTTP/1.1\r\n" + HOST + b"Cookie: s=secret\r\n\r\n",
    "HT14 TRACK": b"TRACK / HTTP/1.1\r\n" + HOST + b"Cookie: s=secret\r\n\r\n",
    "HT14 DEBUG": b"DEBUG / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT14 PRI": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HT14 1 kB": b"A" * 1024 + b" / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT14 lower case": b"get / HTTP/1.1\r\n" + HOST + b"\r\n",
    "HT15 no host": b"GET / HTTP/1.1\r\n\r\n",
    "HT15 two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HT15 host with path": b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "HT15 host with user": b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "HT15 host with blank": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "HT15 empty host": b"GET / HTTP/1.1\r\nHost: \r\n\r\n",
    "HT20": get(b"Expect: 200-ok\r\n"),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}  # fmt: skip

BAD_CHUNKS = {
    "0x5": b"0x5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"5_0\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "blank": b"\r\nhello\r\n0\r\n\r\n",
    "leading blank": b" 5\r\nhello\r\n0\r\n\r\n",
    "40 digits": b"0" * 39 + b"5\r\nhello\r\n0\r\n\r\n",
    "LF only": b"5\nhello\n0\n\n",
    "LF after size": b"5\nhello\r\n0\r\n\r\n",
    "no end after data": b"5\r\nhello0\r\n\r\n",
    "LF after data": b"5\r\nhello\n0\r\n\r\n",
    "NUL in extension": b"5;a\0\r\nhello\r\n0\r\n\r\n",
    "bad trailer": b"0\r\nno colon\r\n\r\n",
    "endless line": b"5;" + b"a" * 2000,
    "many trailers": b"0\r\n" + b"X: aaaaaaaa\r\n" * 2000 + b"\r\n",
}


# Well-formed, but not supported.
UNSUPPORTED = {
    "HT13 foreign": 405,
    "HT13 own": 405,
    "HT14 DEBUG": 405,
    "HT14 TRACE": 405,
    "HT14 TRACK": 405,
    "HT20": 417,
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("split", [False, True], ids=["at once", "split"])
def test_head_malformed_rejected_and_connection_closed(
    server: Server, name: str, split: bool
) -> None:
    """HT01, HT02, HT04, HT07, HT08, HT10, HT11, HT13, HT14: the response closes the connection; the next request is ignored."""
    raw = MALFORMED[name]
    seen = len(server.application.requests)
    with Wire(server.port) as wire:
        if split:
            for at in range(0, len(raw), 7):
                wire.send(raw[at : at + 7])
            wire.send(PLAIN)
        else:
            wire.send(raw + PLAIN)
        response = wire.answer()
        assert response.status == UNSUPPORTED.get(name, 400)
        assert response.headers["connection"] == "close"
        assert b"secret" not in response.head + response.body
        assert wire.ended
    assert len(server.application.requests) == seen


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_ht05_malformed_chunk_rejected_and_connection_closed(
    server: Server, body: bytes
) -> None:
    """400, and the bytes after the body are not parsed as a request."""
    seen = len(server.application.requests)
    with Wire(server.port) as wire:
        wire.send(CHUNKED + body + PLAIN)
        response = wire.answer()
        assert response.status == 400
        assert response.headers["connection"] == "close"
        assert wire.ended
    assert len(server.application.requests) == seen + 1


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        b"\r\n\r\n" + PLAIN,
        get(b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n"),
        get(b"X:\r\n", b"Y: a\tb \r\n"),
        b"GET http://app.example.com/a?b HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        b"HEAD / HTTP/1.0\r\n\r\n",
    ],
)
def test_head_well_formed_accepted_whole_and_byte_by_byte(
    server: Server, raw: bytes
) -> None:
    assert talk(server.port, raw).startswith(b"HTTP/1.1 200 ")
    with Wire(server.port) as wire:
        for at in range(len(raw)):
            wire.send(raw[at : at + 1])
        assert wire.line() == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (get(b"X: " + b"a" * 3000 + b"\r\n"), 431),
        (get(*[b"X%d: a\r\n" % number for number in range(30)]), 431),
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"a" * 3000, 431),
    ],
    ids=["bytes", "fields", "target", "no end"],
)
def test_ht26_head_above_limit_rejected_at_once(raw: bytes, status: int) -> None:
    limits = Limits(head_bytes=2048, header_count=20, target_bytes=512)
    with Server(limits=limits) as server, Wire(server.port) as wire:
        wire.send(raw)
        assert wire.answer().status == status
        assert wire.ended
        assert not server.application.requests


@pytest.mark.parametrize("excess", [0, 1])
def test_ht26_head_at_limit_accepted_and_above_rejected(excess: int) -> None:
    limits = Limits(head_bytes=2048, header_count=20, target_bytes=512)
    fields = [b"X%d: a\r\n" % number for number in range(19 + excess)]
    filler = b"X: " + b"a" * (2048 - len(get(b"X: \r\n")) + excess) + b"\r\n"
    assert len(get(filler)) == 2048 + excess
    target = b"/" + b"a" * (511 + excess)
    for raw, error_status in (
        (get(*fields), 431),
        (get(filler), 431),
        (b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    ):
        with Server(limits=limits) as server, Wire(server.port) as wire:
            wire.send(raw)
            assert wire.answer().status == (error_status if excess else 200)


@pytest.mark.parametrize(
    ("line", "method", "target", "host"),
    [
        ("GET /ä/é?rd=/ü HTTP/1.1", b"GET", b"/%C3%A4/%C3%A9?rd=/%C3%BC", "a"),
        ("GET http://b:8080/x?y HTTP/1.1", b"GET", b"/x?y", "b:8080"),
        ("GET HTTPS://b HTTP/1.1", b"GET", b"/", "b"),
        ("GET http://b?y HTTP/1.1", b"GET", b"/?y", "b"),
        ("GET http://b//c/../d HTTP/1.1", b"GET", b"//c/../d", "b"),
        ("GET http://b/ä HTTP/1.1", b"GET", b"/%C3%A4", "b"),
        ("OPTIONS * HTTP/1.1", b"OPTIONS", b"*", "a"),
        ("FOO /x HTTP/1.1", b"FOO", b"/x", "a"),
        ("M-SEARCH /x HTTP/1.1", b"M-SEARCH", b"/x", "a"),
    ],
)
def test_head_unusual_request_line_normalized(
    line: str, method: bytes, target: bytes, host: str
) -> None:
    """The core and upstreams see origin-form, and one host (RFC 9112 §3.2.2)."""
    raw = line.encode() + b"\r\nX: y\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
    head = HeadReader(Limits()).read(raw)
    assert (head.method, head.target, head.host) == (method, target, host)
    assert [value for name, value in head.headers if name == b"host"] == [host.encode()]
    assert head.fields[b"host"] == host.encode()
    assert head.length == 1


def test_head_of_http_1_0_without_host_gets_default_host() -> None:
    head = HeadReader(Limits()).read(b"GET / HTTP/1.0\r\nX: y\r\n\r\n")
    assert head.headers == [(b"host", b"localhost"), (b"x", b"y")]
    assert (head.host, head.fields[b"host"]) == ("localhost", b"localhost")


def test_ht26_target_limit_counts_the_encoded_target() -> None:
    line = "GET /" + "ä" * 10 + " HTTP/1.1\r\n"
    raw = line.encode() + HOST + b"\r\n"
    assert len(HeadReader(Limits(target_bytes=61)).read(raw).target) == 61
    with pytest.raises(HeadError, match="61 bytes"):
        HeadReader(Limits(target_bytes=60)).read(raw)


def h11_rejects(raw: bytes) -> bool:
    """Return whether h11's server side rejects the first request in *raw*.

    RFC 9112 §2.2 lets a server skip empty lines before it; h11 does not.
    """
    while raw.startswith(b"\r\n"):
        raw = raw[2:]
    line, end, rest = raw.partition(b"\r\n")
    with contextlib.suppress(UnicodeDecodeError):  # valid in the target, not for h11
        line = line.decode().encode("ascii", "xmlcharrefreplace").replace(b"#", b"")
        raw = line + end + rest
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    try:
        connection.receive_data(raw)
        connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                return False
            if event in (h11.NEED_DATA, h11.PAUSED):
                return False
    except h11.RemoteProtocolError:
        return True


VALID = (
    PLAIN,
    get(b"Cookie: a=b\r\n", b"Accept: text/html, */*;q=0.8\r\n"),
    lengths(b"1"),
    CHUNKED + b"5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
INSERTIONS = (
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\0", b":", b",", b"1", b"\x80", b"\x0b",
    b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", HOST, b"HTTP/1.1",
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a valid request with up to three deletions and insertions."""
    raw = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(raw)))
        to = min(len(raw), at + draw(st.integers(0, 4)))
        insertion = draw(st.sampled_from(INSERTIONS) | st.binary(max_size=2))
        raw = raw[:at] + insertion + raw[to:]
    return raw


def rejected_or_closed(response: bytes) -> bool:
    """Return whether the first response is not a 2xx, or missing."""
    return not response.startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize(
    "raw", [*MALFORMED.values(), *(CHUNKED + body for body in BAD_CHUNKS.values())]
)
def test_head_rejected_by_h11_rejected(server: Server, raw: bytes) -> None:
    """h11 accepts more than authproxy, so it can't be the only oracle."""
    if h11_rejects(raw):
        assert rejected_or_closed(talk(server.port, raw))


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(raw=mutated())
def test_head_mutated_rejected_if_h11_rejects_it(server: Server, raw: bytes) -> None:
    """No mutation causes a server error."""
    response = talk(server.port, raw)
    assert not response.startswith(b"HTTP/1.1 5")
    if h11_rejects(raw):
        assert rejected_or_closed(response), raw


class CountingReader(HeadReader):
    """Counts the parsed fields."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        super().__init__(Limits())
        self.fields = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count one field."""
        self.fields += 1
        super().on_header(name, value)


def test_head_with_too_many_fields_is_rejected_unparsed() -> None:
    """The fields of a head that will be rejected cost nothing."""
    raw = get(b"a:\r\n" * 15_000)
    reader = CountingReader()
    assert reader.read_single(raw) is None
    with pytest.raises(HeadError, match="more than 200 header fields") as raised:
        reader.read(raw)
    assert (raised.value.status, reader.fields) == (431, 0)


def test_head_limit_of_fields_accepts_the_limit() -> None:
    limit = Limits().header_count
    raw = get(b"abcdefghij: 1\r\n" * (limit - 1))
    reader = CountingReader()
    assert reader.read_single(raw) is not None
    assert len(reader.read(raw).headers) == limit


def test_pipelined_heads_are_parsed_once() -> None:
    """The fast path gives up at the second head, not at the end of the packet."""
    reader = CountingReader()
    assert reader.read_single(PLAIN * 100) is None
    assert reader.fields <= 2


def cookies(count: int) -> bytes:
    """Return two Cookie fields with *count* cookies."""
    half = count // 2
    lines = (b";".join([b"abc=d"] * half), b";".join([b"abc=d"] * (count - half)))
    return b"".join(b"Cookie: %b\r\n" % line for line in lines)


def options(count: int) -> bytes:
    """Return a Connection field with *count* options, in a long head."""
    padding = b"x-padding: %b\r\n" % (b"p" * 2048)
    return b"Connection: " + b",".join([b"a"] * count) + b"\r\n" + padding


@pytest.mark.parametrize(
    ("fields", "limit"), [(cookies, MAX_COOKIES), (options, MAX_CONNECTION_OPTIONS)]
)
def test_head_with_too_many_cookies_or_options_rejected(
    fields: Callable[[int], bytes], limit: int
) -> None:
    """They are counted, not parsed."""
    reader = HeadReader(Limits())
    assert reader.read_single(get(fields(limit))) is not None
    assert reader.read_single(get(fields(limit + 1))) is None
    with pytest.raises(HeadError) as raised:
        reader.read(get(fields(limit + 1)))
    assert raised.value.status == 431
