"""Limits of password attempts: who is stopped by whose guesses."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from authproxy_core import Secret
from authproxy_core.access import attempts
from authproxy_core.access.attempts import (
    MAX_ATTEMPTS_PER_CLIENT,
    MAX_ATTEMPTS_PER_KNOWN_CLIENT,
    MAX_ATTEMPTS_PER_SITE,
    MAX_ATTEMPTS_PER_USER,
    MAX_ATTEMPTS_TOTAL,
    WINDOW,
    WORDS,
    AttemptLimiter,
    AttemptMemory,
)
from authproxy_core.access.htpasswd import VERIFIED_TTL
from authproxy_core.settings.credentials import CredentialSettings
from support.harness import Clock, Harness, settings

HOME, OTHER = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limiter(clock: Clock) -> AttemptLimiter:
    return AttemptLimiter(AttemptMemory(b"k" * 32), clock)


def sign_in(limiter: AttemptLimiter, client: str, user: str, password: bytes) -> bool:
    """Sign in with the correct password; return whether that was possible."""
    allowed = limiter.begin(client, user, password)
    if allowed:
        limiter.succeed(client, user, password)
    return allowed


def guess(limiter: AttemptLimiter, client: str, user: str, count: int) -> int:
    """Return how many of *count* different wrong passwords are verified."""
    return sum(limiter.begin(client, user, b"no%d" % at) for at in range(count))


def test_client_limited_whatever_the_user(limiter: AttemptLimiter) -> None:
    names = [f"u{number}" for number in range(20)]
    allowed = [limiter.begin(HOME, name, b"x") for name in names]
    assert allowed == [True] * MAX_ATTEMPTS_PER_CLIENT + [False] * 10
    assert limiter.begin(OTHER, "u1", b"x")


def test_user_limited_in_any_case_from_any_client(
    limiter: AttemptLimiter, clock: Clock
) -> None:
    for number in range(MAX_ATTEMPTS_PER_USER):
        assert limiter.begin(f"10.0.{number}.1", "Ann" if number % 2 else "aNN", b"x")
    assert not limiter.begin(HOME, "ann", b"right")
    assert limiter.begin(HOME, "bob", b"right")
    clock.now += WINDOW
    assert limiter.begin(HOME, "ann", b"right")


def test_flood_from_many_clients_leaves_one_attempt_to_each(
    limiter: AttemptLimiter,
) -> None:
    for number in range(MAX_ATTEMPTS_TOTAL):
        assert limiter.begin(f"10.1.{number // 250}.{number % 250}", f"u{number}", b"x")
    assert sign_in(limiter, HOME, "ann", b"right")
    assert sign_in(limiter, HOME, "ann", b"right")
    assert guess(limiter, OTHER, "bob", 5) == 1
    assert not limiter.begin("10.1.0.0", "bob", b"x")  # it took part


@pytest.mark.parametrize("guesses", [300, MAX_ATTEMPTS_PER_KNOWN_CLIENT - 1])
@pytest.mark.parametrize("attacker", [HOME, OTHER])
def test_known_client_signs_in_during_guesses(
    limiter: AttemptLimiter, attacker: str, guesses: int
) -> None:
    """Also if they come from its own address, as from a script behind the same NAT."""
    assert sign_in(limiter, HOME, "ann", b"right")
    assert guess(limiter, attacker, "ann", guesses) <= MAX_ATTEMPTS_PER_CLIENT
    guess(limiter, attacker, "eve", guesses)
    assert sign_in(limiter, HOME, "ann", b"right")
    assert not limiter.begin(attacker, "bob", b"right")  # not known for him


def test_known_client_ends_with_another_password_or_too_many_guesses(
    limiter: AttemptLimiter, clock: Clock
) -> None:
    assert sign_in(limiter, HOME, "ann", b"old")
    assert sign_in(limiter, HOME, "ann", b"new")
    guess(limiter, HOME, "eve", 20)
    assert not limiter.begin(HOME, "ann", b"old")
    assert sign_in(limiter, HOME, "ann", b"new")
    guess(limiter, HOME, "ann", MAX_ATTEMPTS_PER_KNOWN_CLIENT)
    assert not limiter.begin(HOME, "ann", b"new")
    assert limiter.is_guessed(HOME, "ANN")
    assert not limiter.is_guessed(OTHER, "ann")
    clock.now += WINDOW
    assert not limiter.is_guessed(HOME, "ann")
    assert sign_in(limiter, HOME, "ann", b"new")


def test_ipv6_attempts_counted_per_network_and_site(limiter: AttemptLimiter) -> None:
    for number in range(MAX_ATTEMPTS_PER_CLIENT):
        assert limiter.begin(f"2001:db8::{number}", f"u{number}", b"x")
    assert not limiter.begin("2001:db8::ffff", "x", b"x")
    assert limiter.begin("what:ever", "x", b"x")
    for number in range(1, MAX_ATTEMPTS_PER_SITE - MAX_ATTEMPTS_PER_CLIENT + 1):
        assert limiter.begin(f"2001:db8:0:{number}::1", f"v{number}", b"x")
    assert not limiter.begin("2001:db8:0:ffff::1", "y", b"x")
    assert limiter.begin("2001:db8:1::1", "y", b"x")


def test_counts_and_known_clients_shared_by_processes_with_one_memory(
    clock: Clock,
) -> None:
    words = memoryview(bytearray(4 * WORDS)).cast("I")
    first, second = (
        AttemptLimiter(AttemptMemory(b"k" * 32, words), clock) for _ in range(2)
    )
    assert sign_in(first, HOME, "ann", b"right")
    assert guess(first, HOME, "eve", 6) + guess(second, HOME, "eve", 6) == 10
    assert sign_in(second, HOME, "ann", b"right")


def test_memory_has_a_fixed_size_and_counts_stay_in_16_bits() -> None:
    memory = AttemptMemory(b"k" * 32)
    size = len(memory._words)
    for number in range(5000):
        memory.remember(number * 7919, number)
        memory.add(memory.counter(b"user", f"u{number}"), 3, 1)
    assert len(memory._words) == size == WORDS
    index = memory.counter(b"user", "x")
    memory.add(index, 4, 0x1FFFF)
    assert memory.count(index, 4) == 0xFFFF
    memory.add(index, 4, -0x1FFFF)
    assert memory.count(index, 4) == 0
    assert memory.count(index, 4 + (1 << 15)) == 0


def test_guesses_not_compared_with_a_cached_password_of_another_client() -> None:
    """The cache of verified passwords would answer guesses without a limit."""
    digest = base64.b64encode(hashlib.sha1(b"right").digest())
    users = {"ann": Secret(b"{SHA}" + digest)}
    harness = Harness(settings(credentials=CredentialSettings(users=users)))

    def ask(password: str, peer: str) -> int:
        field = b"Basic " + base64.b64encode(f"ann:{password}".encode())
        options: dict[str, Any] = {"jar": {}, "peer": peer}
        return harness.get("/oauth2/auth", (b"authorization", field), **options).status

    assert ask("right", HOME) == 202
    for number in range(MAX_ATTEMPTS_PER_CLIENT):
        assert ask(f"no{number}", OTHER) == 401
    assert ask("right", OTHER) == 401
    assert ask("right", HOME) == 202  # cached
    for number in range(MAX_ATTEMPTS_PER_KNOWN_CLIENT):
        ask(f"no{number}", HOME)
    assert ask("right", HOME) == 401  # still cached, but guessed too often
    harness.clock.now += max(WINDOW, VERIFIED_TTL)
    assert ask("right", HOME) == 202
    harness.proxy = harness.proxy.with_settings(
        settings(credentials=harness.settings.credentials, clock_skew=7.0)
    )
    for number in range(MAX_ATTEMPTS_PER_CLIENT):
        assert ask(f"no{number}", HOME) == 401
    assert ask("right", HOME) == 202  # a reload keeps known clients
    assert attempts.network_of("2001:db8::5") == "2001:db8::/64"
