"""Effects: the operations that the core requests from its driver.

A flow is a generator that yields effects and returns its result. An effect iterates over
itself, so that ``response = yield from Fetch(...)`` has the exact type of the effect's
result. A driver sends the result into the flow, or throws an `EffectError`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct

from .errors import EffectError, StoreError
from .messages import Decision, Headers, Response

T = TypeVar("T")
R = TypeVar("R")

STORE_RETRY_DELAYS = (0.1, 0.4, 1.0)  # seconds


class Effect(Struct, Generic[T], frozen=True):
    """An operation whose result has the type T."""

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        result: T = yield self  # the only bare yield of the core
        return result


Flow: TypeAlias = Generator[Effect[Any], Any, R]
Outcome: TypeAlias = Decision | Flow[Decision]


class Fetch(Effect[Response], frozen=True):
    """One HTTP exchange with the identity provider; redirects are not followed.

    The result is the response, whatever its status. ``timeout`` (seconds) covers the
    whole exchange, ``max_body`` (bytes) limits the response's body, ``purpose`` is a
    label for metrics (token, jwks, userinfo …). Raises `FetchError`.
    """

    method: str
    url: str
    headers: Headers = ()
    body: bytes = b""
    timeout: float = 10.0
    max_body: int = 1 << 20
    purpose: str = ""


class ReadBody(Effect[bytes], frozen=True):
    """Read the body of the current request, at most ``limit`` bytes.

    With ``keep``, it can be read again when the request is forwarded. Raises
    `BodyTooLarge` or `ClientGone`.
    """

    limit: int
    keep: bool = False


class Load(Effect[bytes | None], frozen=True):
    """Load the value of a key in the store, None if absent. Raises `StoreError`."""

    key: str


class LoadAll(Effect[tuple[bytes | None, ...]], frozen=True):
    """Load the values of several keys, in their order. Raises `StoreError`."""

    keys: tuple[str, ...]


class Save(Effect[bool], frozen=True):
    """Set the value of a key for ``ttl`` seconds (0: no expiry). Raises `StoreError`.

    With ``expected`` (b"": no value), the value is set only if the present value is
    this one; False if it is not.
    """

    key: str
    value: bytes
    ttl: float
    expected: bytes | None = None


class Delete(Effect[None], frozen=True):
    """Delete a key of the store. Raises `StoreError`."""

    key: str


class Add(Effect[None], frozen=True):
    """Add a member to the set of a key; it expires after ``ttl`` seconds.

    Adding it again resets its expiry. Raises `StoreError`.
    """

    key: str
    member: bytes
    ttl: float


class Members(Effect[tuple[bytes, ...]], frozen=True):
    """Load the members of the set of a key, () if absent. Raises `StoreError`."""

    key: str


class Remove(Effect[None], frozen=True):
    """Remove a member from the set of a key. Raises `StoreError`."""

    key: str
    member: bytes


class Lock(Effect[bool], frozen=True):
    """Acquire a lock that expires after ``ttl`` seconds.

    Waits up to ``wait`` seconds; the result is False if the lock is still held then. A
    ``local`` lock excludes the flows of this driver only, others exclude all users of
    the store, if there is one. ``purpose`` is a label for traces: what is done until
    the lock is released (refresh), "" for no label. Raises `StoreError` unless it is
    local.
    """

    key: str
    ttl: float
    wait: float
    local: bool = False
    purpose: str = ""


class Unlock(Effect[None], frozen=True):
    """Release an acquired lock; no effect if it has expired.

    Raises `StoreError` unless it is local.
    """

    key: str
    local: bool = False


class Sleep(Effect[None], frozen=True):
    """Wait for ``seconds``."""

    seconds: float


class Offload(Effect[Any], frozen=True):
    """Run a slow pure function outside of the event loop; raises its exceptions.

    Clients can cause any number of *computations*: the driver bounds how many run and
    wait, apart from other functions, and raises `BusyError` above.
    """

    function: Callable[[], Any]
    computation: bool = False


def with_lock(
    key: str,
    flow: Flow[R],
    *,
    ttl: float,
    wait: float,
    local: bool = False,
    purpose: str = "",
) -> Flow[R | None]:
    """Run *flow* while holding the lock *key*; None if the lock was not acquired.

    The lock is released on return and on `Exception`, but not when the generator is
    closed, because a closed generator must not yield: then it expires. A failed release
    is ignored for the same reason, so that the result (such as a rotated refresh token)
    is not lost. *ttl* and *wait* are in seconds; *purpose* is that of `Lock`.
    """
    if not (yield from Lock(key, ttl, wait, local, purpose)):
        flow.close()
        return None
    try:
        result = yield from flow
    except Exception:
        yield from release_quietly(key, local=local)
        raise
    yield from release_quietly(key, local=local)
    return result


def retry_store(start: Callable[[], Flow[R]]) -> Flow[R]:
    """Run the flow of *start*, again after each of `STORE_RETRY_DELAYS` if it fails."""
    for delay in STORE_RETRY_DELAYS:
        try:
            return (yield from start())
        except StoreError:
            yield from Sleep(delay)
    return (yield from start())


def release_quietly(key: str, *, local: bool = False) -> Flow[None]:
    """Release a lock; if that fails, it expires by itself."""
    with suppress(EffectError):
        yield from Unlock(key, local)
