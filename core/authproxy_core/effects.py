"""The things that the core asks of its driver.

A flow is a generator: it yields effects and in the end returns its result. An effect
iterates over itself, so that ``answer = yield from Fetch(...)`` has the exact type of
the answer. A driver sends the answer in, or throws an `EffectError`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct

from .errors import EffectError
from .messages import Decision, Headers, Response

T = TypeVar("T")
R = TypeVar("R")


class Effect(Struct, Generic[T], frozen=True):
    """A wish of the core whose answer has the type T."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        answer: T = yield self  # the only bare yield of the core
        return answer


Flow: TypeAlias = Generator[Effect[Any], Any, R]
Outcome: TypeAlias = Decision | Flow[Decision]


class Fetch(Effect[Response], frozen=True):
    """One HTTP exchange with the identity provider; redirects are not followed.

    Every status is an answer. ``timeout`` (seconds) covers the whole exchange,
    ``max_body`` (bytes) limits the answer's body, ``purpose`` is a stable word for
    metrics (token, jwks, userinfo …). Raises `FetchError`.
    """

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""
    timeout: float = 10.0
    max_body: int = 1 << 20
    purpose: str = ""


class ReadBody(Effect[bytes], frozen=True):
    """The body of the request being answered, at most ``limit`` bytes.

    With ``keep`` it can be read again, by whom the request is passed on to. Raises
    `BodyTooLarge` or `ClientGone`.
    """

    limit: int
    keep: bool = False


class Load(Effect[bytes | None], frozen=True):
    """The value under a key of the store, None when absent. Raises `StoreError`."""

    key: str


class LoadAll(Effect[tuple[bytes | None, ...]], frozen=True):
    """The values under several keys, in their order. Raises `StoreError`."""

    keys: tuple[str, ...]


class Save(Effect[None], frozen=True):
    """Put a value under a key for ``ttl`` seconds (0: for ever). Raises `StoreError`."""

    key: str
    value: bytes
    ttl: float


class Delete(Effect[None], frozen=True):
    """Forget a key of the store. Raises `StoreError`."""

    key: str


class Add(Effect[None], frozen=True):
    """Put a member into the set under a key; it leaves after ``ttl`` seconds.

    Adding it again renews its time. Raises `StoreError`.
    """

    key: str
    member: bytes
    ttl: float


class Members(Effect[tuple[bytes, ...]], frozen=True):
    """The members of the set under a key, none when absent. Raises `StoreError`."""

    key: str


class Remove(Effect[None], frozen=True):
    """Take a member out of the set under a key. Raises `StoreError`."""

    key: str
    member: bytes


class Lock(Effect[bool], frozen=True):
    """Take a lock that ends by itself after ``ttl`` seconds.

    Waits up to ``wait`` seconds; False when it was not free by then. A ``local`` one is
    among the flows of this driver only, another among all that use the store, if there
    is one. Raises `StoreError`, unless it is local.
    """

    key: str
    ttl: float
    wait: float
    local: bool = False


class Unlock(Effect[None], frozen=True):
    """Give back a lock taken before; harmless when it has already ended.

    Raises `StoreError`, unless it is local.
    """

    key: str
    local: bool = False


class Sleep(Effect[None], frozen=True):
    """Let time pass (seconds)."""

    seconds: float


class Offload(Effect[Any], frozen=True):
    """Run a slow pure function off the loop; raises what the function raises."""

    function: Callable[[], Any]


def with_lock(
    key: str, flow: Flow[R], *, ttl: float, wait: float, local: bool = False
) -> Flow[R | None]:
    """Run *flow* while holding the lock *key*; None when the lock was not to be had.

    The lock is given back on return and on `Exception`, but not when the generator is
    closed: a closed generator may not yield, and the lock's ttl ends it. It also ends a
    lock that can't be given back: what was done under it (a refresh token redeemed and
    rotated) must not be lost for that.
    """
    if not (yield from Lock(key, ttl, wait, local)):
        flow.close()
        return None
    try:
        result = yield from flow
    except Exception:
        yield from release_quietly(key, local=local)
        raise
    yield from release_quietly(key, local=local)
    return result


def release_quietly(key: str, *, local: bool = False) -> Flow[None]:
    """Give a lock back; one that can't be given back ends by itself."""
    with suppress(EffectError):
        yield from Unlock(key, local)
