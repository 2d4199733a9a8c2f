"""Caches of encoded response heads: content and memory."""

from __future__ import annotations

from authproxy.http import response_encoder
from authproxy.serve.encoding_caches import ResponseHeadCache
from authproxy_core.messages import Respond

DATE = b"Date: x\r\n"


def test_response_head_cache_equals_encoder() -> None:
    """For each form, on hits and misses, and when the cache is full."""
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
            encoded = cache.encoded(
                respond, DATE, head_only=head_only, persistence=persistence
            )
            assert encoded == response_encoder.encode_response(
                respond, DATE, head_only=head_only, persistence=persistence
            )
    assert 0 < cache._heads._used <= 600


def test_response_head_cache_memory_is_bounded() -> None:
    """The cached responses count too; responses that are not reused are not cached."""

    def encoded(cache: ResponseHeadCache, respond: Respond) -> bytes:
        return cache.encoded(respond, DATE, head_only=False, persistence="")

    cache = ResponseHeadCache(limit=100_000)
    for number in range(1000):
        value = b"%d" % number
        respond = Respond(202, ((b"authorization", value * 1000),), reusable=True)
        assert value * 1000 in encoded(cache, respond)
    cached = [respond for respond, _ in cache._heads.values()]
    assert 0 < sum(len(respond.headers[0][1]) for respond in cached) < 50_000
    page = Respond(200, (), b"x" * 5000)
    assert encoded(cache, page).endswith(page.body)
    assert id(page) not in cache._heads
    huge = Respond(202, ((b"authorization", b"x" * 60_000),), reusable=True)
    assert encoded(cache, huge).count(b"x") > 60_000
    assert id(huge) not in cache._heads
