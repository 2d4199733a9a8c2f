"""Replies that no Redis server sends: the store is unavailable, and nothing crashes."""

from __future__ import annotations

from typing import Any

import pytest

from authproxy.server_settings import RedisAddress
from authproxy.stores.redis_cluster import SLOTS, parse_ranges
from authproxy.stores.redis_connection import RedisConnection
from authproxy.stores.redis_sentinel import make_address, parse_address
from authproxy.stores.redis_server import changed_keys
from authproxy_core.errors import StoreError
from support.scripted import run

QUERIED = RedisAddress(host="127.0.0.1", port=7000)
MASTER = [b"10.0.0.1", 6379, b"id"]
REPLIES: tuple[Any, ...] = (
    1,
    b"ab",
    {b"a": float("inf")},
    [],
    [b"a"],
    [b"a", None],
    [b"a", b"x"],
    [b"a", -1],
    [b"a", 65_536],
    [b"a", b"9" * 5000],
    [b"a", float("inf")],
    [1 << 40, 1],  # must not become that many bytes
)


@pytest.mark.parametrize("reply", REPLIES)
def test_redis_address_malformed_is_a_store_error(reply: Any) -> None:
    with pytest.raises(StoreError, match="expected a"):
        parse_address(reply)


@pytest.mark.parametrize("port", ["65536", "9" * 5000, "-1", ""])
def test_redis_redirect_port_invalid_is_a_store_error(port: str) -> None:
    with pytest.raises(StoreError, match="expected a port"):
        make_address("a", port)


@pytest.mark.parametrize(
    "one",
    [1, [], [0, 1], [0, 1, []], [0, 1, 5], [0, 1.5, MASTER], [0, SLOTS, MASTER]]
    + [[2, 1, MASTER], [-1, 1, MASTER]]
    + [[0, 1, reply] for reply in REPLIES],
)
def test_redis_slots_malformed_is_a_store_error(one: Any) -> None:
    with pytest.raises(StoreError, match="expected"):
        parse_ranges([one], QUERIED)


def test_redis_slots_of_a_node_without_address_are_those_of_the_queried_one() -> None:
    address = RedisAddress(host="10.0.0.1", port=6379)
    found = parse_ranges([[0, 5, MASTER, MASTER], [6, 7, [None, 1]]], QUERIED)
    assert found == [(0, 5, address), (6, 7, QUERIED)]


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        ([b"invalidate", [b"a", b"\xff"]], ["a", "\xff"]),
        ([b"invalidate", None], [None]),
        ([b"invalidate", [b"a", 1 << 40]], [None]),  # must not become that many bytes
        ([b"invalidate", [None]], [None]),
        ([b"invalidate"], [None]),
        ([b"message", b"a", b"b"], []),
        ([1], []),
    ],
)
def test_redis_invalidation_malformed_counts_as_all_keys(
    message: list[Any], keys: list[str | None]
) -> None:
    assert changed_keys(message) == keys


@pytest.mark.parametrize("cut", range(1, 12))
def test_redis_huge_array_in_two_packets_ends_the_connection(cut: int) -> None:
    """hiredis would allocate 3 GB for its elements."""
    header = b">299999999\r\n"

    async def main() -> None:
        connection = RedisConnection(QUERIED, 5.0)
        reply = connection.send(("PING",))
        connection.data_received(b"+PONG\r\n")
        connection.data_received(header[:cut])
        connection.data_received(header[cut:])
        assert await reply == b"PONG"
        assert "array of more than" in connection.close_reason

    run(main())
