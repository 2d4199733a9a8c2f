"""A fuzz target: a function that reads foreign bytes, and the errors it documents."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_MUTATED_BYTES = 4096
# Bytes that many parsers treat specially.
SPECIAL = b"\0\t\n\r \"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xc0\xff"


class Target(NamedTuple):
    """One parser under test.

    ``run`` takes the input. It may raise the ``errors``; any other exception, such as a
    failed assertion about the result, is a crash.
    """

    name: str
    run: Callable[[bytes], None]
    errors: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]

    def check(self, data: bytes) -> None:
        """Run the target; raises what ``errors`` does not list."""
        with contextlib.suppress(self.errors):
            self.run(data)


def mutations(seeds: tuple[bytes, ...], count: int) -> Iterator[bytes]:
    """Yield *count* mutations of *seeds*, the same ones in every run."""
    chance = random.Random(b"".join(seeds))
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 4)):
            _mutate(data, chance, seeds)
        yield bytes(data[:MAX_MUTATED_BYTES])


def _mutate(data: bytearray, chance: random.Random, seeds: tuple[bytes, ...]) -> None:
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16)))
    match chance.randrange(6):
        case 0:
            data[at:end] = bytes([chance.choice(SPECIAL)])
        case 1:
            data[at:at] = bytes([chance.choice(SPECIAL)]) * chance.choice((1, 1, 2, 99))
        case 2:
            del data[at:end]
        case 3:
            data[at:end] = data[at:end] * 3
        case 4:
            data[at:end] = chance.randbytes(end - at)
        case _:
            other = chance.choice(seeds)
            start = chance.randint(0, len(other))
            data[at:at] = other[start : start + 16]
