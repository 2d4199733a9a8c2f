"""The server's small parts: clock, ids, locks, decoders, encoded answers."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http import response_encoder
from authproxy.http.body_decoders import ChunkedDecoder, LengthDecoder
from authproxy.net.clock import Clock, date_field, log_timestamp
from authproxy.net.locks import LocalLocks
from authproxy.serve.encoding_caches import ResponseHeadCache
from authproxy.serve.request_ids import RequestIds
from authproxy_core.messages import Respond

UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)
DATE = b"Date: x\r\n"


def test_clock() -> None:
    """The texts change with the second, not with each tick."""
    wall = [784111777.0]
    clock = Clock(local_time=False, wall=lambda: wall[0], monotonic=lambda: 5.0)
    assert clock.date == b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert (clock.timestamp, clock.now) == ("1994/11/06 08:49:37", 5.0)
    wall[0] += 0.75
    before = clock.date
    clock.tick()
    assert clock.date is before
    assert clock.seconds_to_next_tick() == 0.25
    wall[0] += 0.25
    clock.tick()
    assert clock.date == date_field(784111778)
    assert clock.timestamp == log_timestamp(784111778, local_time=False)


def test_request_ids() -> None:
    """Random UUIDs without repetition; a sent one only when it is harmless."""
    ids = RequestIds()
    made = [ids.generate() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert all(UUID.fullmatch(text) for text in made)
    assert ids.choose(b"a-1:b") == "a-1:b"
    for sent in (None, b"", b"a b", b"a\n", b"\xff", b'"', b"a" * 129):
        assert UUID.fullmatch(ids.choose(sent))


def test_locks() -> None:
    """First come, first served; limits of waiting and of holding."""

    async def main() -> None:
        locks = LocalLocks()
        assert await locks.take_lock("a", 60, 0, "t")
        assert await locks.take_lock("b", 60, 0, "t")
        assert not await locks.take_lock("a", 60, 0.001, "t")
        order: list[int] = []

        async def wait(number: int) -> None:
            assert await locks.take_lock("a", 60, 60, "t")
            order.append(number)
            locks.release("a", "t")

        tasks = [asyncio.create_task(wait(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        locks.release("a", "t")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2, 3]
        assert await locks.take_lock("a", 0.001, 0, "t")
        assert await locks.take_lock("a", 60, 60, "t")  # the first one's time was over
        locks.release("a", "t")
        locks.release("b", "t")
        locks.release("b", "t")
        assert not locks._held
        assert not locks._waiting

    asyncio.run(main())


@given(st.binary(max_size=200), st.integers(1, 50), st.integers(1, 50), st.binary())
def test_decoders_take_the_body_and_no_more(
    body: bytes, size: int, cut: int, rest: bytes
) -> None:
    """However it is divided, the same body comes out; the rest stays."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks)
    for decoder, raw in (
        (LengthDecoder(len(body)), body),
        (ChunkedDecoder(), coded + b"0\r\nT: x\r\n\r\n"),
    ):
        received, out = bytearray(), b""
        for at in range(0, len(raw), cut):
            received += raw[at : at + cut]
            while piece := decoder.take(received):
                out += piece
        received += rest
        assert (decoder.done, out, bytes(received)) == (True, body, rest)
        assert decoder.remaining() == 0


def test_line_end_in_a_field_is_an_error() -> None:
    """The last guard against a split answer."""
    for value in (b"a\r\nb", b"a\nb", b"a\rb", b"a\0b"):
        with pytest.raises(ValueError, match="x-a"):
            response_encoder.encode_fields(((b"x-a", value),))


def test_answer_cache_is_the_same_as_encoding() -> None:
    """For each form, also of an answer that is known, and when space runs out."""
    cache = ResponseHeadCache(limit=600)
    responds = [
        Respond(status, ((b"x-number", b"%d" % number),), body, reusable=True)
        for number in range(10)
        for status, body in ((200, b"hello"), (202, b""), (204, b""), (304, b""))
    ]
    forms: tuple[tuple[bool, response_encoder.Persistence], ...] = (
        (False, ""),
        (True, "close"),
        (False, "keep-alive"),
    )
    for respond in responds * 2:
        for head_only, persistence in forms:
            found = cache.encoded(
                respond, DATE, head_only=head_only, persistence=persistence
            )
            assert found == response_encoder.encode_response(
                respond, DATE, head_only=head_only, persistence=persistence
            )
    assert 0 < cache._heads._used <= 600
