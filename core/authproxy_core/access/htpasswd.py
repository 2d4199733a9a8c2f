"""Users of an htpasswd file: who is one, without telling who is not.

Whatever is wrong, a user that does not exist or a password, takes about as long and
says as little. Tries are counted before they are made, so that many at once count too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping

from ..effects import Flow, Offload
from ..request.authorization import Basic
from ..settings.secret import Secret

VERIFIED_TTL = 60.0  # seconds that a right password needs no new look
BCRYPT_BYTES = 72  # of a password; the rest means nothing to bcrypt
WINDOW = 60.0  # seconds over which tries are counted
MAX_ATTEMPTS_PER_CLIENT = 10  # wrong ones within the window; then everything is refused
MAX_ATTEMPTS_PER_USER = 30
MAX_ATTEMPTS_TOTAL = 300
_SHA = b"{SHA}"


class AttemptLimiter:
    """Wrong tries of the last `WINDOW` seconds, by client, by user and in all."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._since = clock()

    def begin(self, client: str, user: str) -> bool:
        """Count a try that begins; False when there were too many already."""
        if self._clock() - self._since >= WINDOW:
            self._counts.clear()
            self._since = self._clock()
        limits = self._limits(client, user)
        if any(self._counts.get(key, 0) >= limit for key, limit in limits.items()):
            return False
        for key in limits:
            self._counts[key] = self._counts.get(key, 0) + 1
        return True

    def succeed(self, client: str, user: str) -> None:
        """Take back the try that began: it was none."""
        for key in self._limits(client, user):
            self._counts[key] = max(self._counts.get(key, 0) - 1, 0)

    @staticmethod
    def _limits(client: str, user: str) -> dict[tuple[str, str], int]:
        return {
            ("client", _network(client)): MAX_ATTEMPTS_PER_CLIENT,
            ("user", user.casefold()): MAX_ATTEMPTS_PER_USER,
            ("all", ""): MAX_ATTEMPTS_TOTAL,
        }


def _network(client: str) -> str:
    """A client's address, or the network that an IPv6 client has to itself."""
    if ":" not in client:
        return client
    try:
        return str(ipaddress.ip_network((client, 64), strict=False))
    except ValueError:
        return client


class Htpasswd:
    """Judges names and passwords by the table *users* of valid hashes."""

    def __init__(
        self,
        users: Mapping[str, Secret],
        *,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._users = users
        self._tries = AttemptLimiter(clock)
        self._slow = any(not one.value.startswith(_SHA) for one in users.values())
        self._dummy = _dummy(users, random_bytes)

    def knows(self, user: str) -> bool:
        """Whether there is a user of this name."""
        return user in self._users

    def verify(self, given: Basic, client: str) -> Flow[bool | None]:
        """Whether name and password are right; None after too many wrong ones."""
        if not self._tries.begin(client, given.user):
            return None
        stored = self._users.get(given.user)
        judged = _judge(stored.value if stored else b"", self._dummy, given.password)
        right: bool = (yield from Offload(judged)) if self._slow else judged()
        if right:
            self._tries.succeed(client, given.user)
        return right


def _dummy(users: Mapping[str, Secret], random_bytes: Callable[[int], bytes]) -> bytes:
    """A hash that no password has, as expensive as the most expensive of *users*."""
    costs = [
        int(one.value[4:6]) for one in users.values() if not one.value.startswith(_SHA)
    ]
    if not costs:
        return _SHA + base64.b64encode(random_bytes(20))
    # bcrypt's own base64: 22 letters of salt, of which the last has four idle bits.
    salt = base64.b64encode(random_bytes(16)).translate(_TO_BCRYPT)[:21] + b"u"
    return b"$2b$%02d$" % max(costs) + salt + b"." * 31


_TO_BCRYPT = bytes.maketrans(b"+/", b"./")


def _judge(stored: bytes, dummy: bytes, password: bytes) -> Callable[[], bool]:
    """Whether *password* has the hash *stored*; what is wrong costs as much as *dummy*."""

    def judge() -> bool:
        if stored and _matches(stored, password):
            return True
        if not stored or stored.startswith(_SHA) != dummy.startswith(_SHA):
            _matches(dummy, password)
        return False

    return judge


def _matches(stored: bytes, password: bytes) -> bool:
    if stored.startswith(_SHA):
        # The format of the file, not a choice: SHA-1 without a salt.
        digest = base64.b64encode(hashlib.sha1(password).digest())  # noqa: S324
        return hmac.compare_digest(digest, stored[len(_SHA) :])
    import bcrypt  # few need it, and every start would pay for it

    try:
        return bcrypt.checkpw(password[:BCRYPT_BYTES], stored)
    except ValueError:
        return False
