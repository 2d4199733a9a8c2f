"""Request IDs: random, or from the gateway."""

from __future__ import annotations

import re

from authproxy.serve.request_ids import RequestIds

UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
)


def test_request_ids_random_unless_sent_id_is_valid() -> None:
    ids = RequestIds()
    generated = [ids.generate() for _ in range(1000)]
    assert len(set(generated)) == 1000
    assert all(UUID.fullmatch(text) for text in generated)
    assert ids.choose(b"a-1:b") == "a-1:b"
    for sent in (None, b"", b"a b", b"a\n", b"\xff", b'"', b"a" * 129):
        assert UUID.fullmatch(ids.choose(sent))
