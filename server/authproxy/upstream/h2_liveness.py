"""Detect an HTTP/2 connection that answers nothing, by PING (RFC 9113 §6.7).

A firewall that forgets a connection, or a host that loses power, leaves it open. While
streams are open and no byte is received, a PING is sent; without any byte in the time
after it the connection is dead. A request that times out without a sign of life has the
same effect at once.

gRPC servers close a connection that sends PINGs too often between two responses: three
within five minutes. So there are at most two, and later ones are `LONG_DELAY` apart.
"""

from __future__ import annotations

from ..server_settings import ForwardSettings

MAX_PINGS = 2  # at short intervals, between two responses
LONG_DELAY = 330.0  # seconds between later ones
MAX_TIMEOUTS = 3  # requests without a response in between


class Liveness:
    """The signs of life of one connection; times are monotonic seconds."""

    def __init__(self, settings: ForwardSettings) -> None:
        self.is_suspect = False  # no further streams until a byte is received
        self.awaits_answer = False  # to the last PING
        self._settings = settings
        self._received = 0.0  # the last byte, or the first stream after an idle time
        self._responded = 0.0  # the last part of a response
        self._pinged = 0.0  # the last PING
        self._pings = 0  # since the last part of a response
        self._timeouts = 0  # since the last response

    def activate(self, now: float) -> None:
        """Measure the silence from *now*: the first stream is opened."""
        self._received = now

    def receive(self, now: float) -> bool:
        """Note received bytes; return whether they answer a PING."""
        answers = self.awaits_answer
        self._received = now
        self.awaits_answer = self.is_suspect = False
        return answers

    def respond(self, now: float) -> None:
        """Note a received part of a response."""
        self._responded = now
        self._pings = self._timeouts = 0

    def is_silent_since(self, then: float) -> bool:
        """Return whether no byte has been received after *then*."""
        return self._received <= then

    def note_timeout(self, opened_at: float) -> bool:
        """Note a request, sent at *opened_at*, that got no response in time.

        Return False if the connection should get no more requests.
        """
        if self._responded > opened_at:
            return True
        self._timeouts += 1
        self.is_suspect = True
        return self._timeouts < MAX_TIMEOUTS and (
            self.awaits_answer or self._pings < MAX_PINGS
        )

    def should_ping(self, now: float) -> bool:
        """Return whether a PING is due; if so, the caller sends it."""
        if self.awaits_answer:
            return False
        delay = 0.0 if self.is_suspect else self._settings.ping_delay
        if now < max(self._received + delay, self._next_ping()):
            return False
        self._pinged, self.awaits_answer = now, True
        self._pings += 1
        return True

    def is_dead(self, now: float) -> bool:
        """Return whether a PING was not answered in time."""
        return self.awaits_answer and now >= self._deadline()

    def next_check(self) -> float:
        """Return when to call `is_dead` and `should_ping` again."""
        if self.awaits_answer:
            return self._deadline()
        return max(self._received + self._settings.ping_delay, self._next_ping())

    def _next_ping(self) -> float:
        return self._pinged + LONG_DELAY if self._pings >= MAX_PINGS else 0.0

    def _deadline(self) -> float:
        return self._pinged + self._settings.ping_timeout
