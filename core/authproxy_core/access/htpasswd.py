"""Users of an htpasswd file: verify their passwords.

An unknown user and a wrong password take the same time and give the same result.
Attempts are counted before the verification, so concurrent ones count as well.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping

from ..effects import Flow, Offload
from ..request.authorization import Basic
from ..settings.secret import Secret
from .attempts import AttemptLimiter, AttemptMemory

VERIFIED_TTL = 60.0  # seconds until a verified password is checked again
BCRYPT_BYTES = 72  # bytes of a password; bcrypt ignores the rest
_SHA = b"{SHA}"


class Htpasswd:
    """Verifies user names and passwords by *users*, a table of valid hashes.

    Failed attempts are counted in *attempts*.
    """

    def __init__(
        self,
        users: Mapping[str, Secret],
        *,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        attempts: AttemptMemory,
    ) -> None:
        self._users = users
        self.attempts = attempts
        self._attempts = AttemptLimiter(attempts, clock)
        self._is_slow = any(
            not hash_.value.startswith(_SHA) for hash_ in users.values()
        )
        self._dummy = _dummy_hash(users, random_bytes)

    def knows(self, user: str) -> bool:
        """Return whether *user* is in the file."""
        return user in self._users

    def is_guessed(self, user: str, client: str) -> bool:
        """Return whether too many passwords of *user* were guessed from *client*."""
        return self._attempts.is_guessed(client, user)

    def verify(self, credentials: Basic, client: str) -> Flow[bool | None]:
        """Return whether the password is correct; None after too many failed attempts.

        *client* is the client's address.
        """
        user, password = credentials.user, credentials.password
        if not self._attempts.begin(client, user, password):
            return None
        stored = self._users.get(user)
        verify = _verifier(stored.value if stored else b"", self._dummy, password)
        if self._is_slow:
            verified: bool = yield from Offload(verify, computation=True)
        else:
            verified = verify()
        if verified:
            self._attempts.succeed(client, user, password)
        return verified


def _dummy_hash(
    users: Mapping[str, Secret], random_bytes: Callable[[int], bytes]
) -> bytes:
    """Return a hash of no password, as expensive as the most expensive of *users*."""
    costs = [
        int(hash_.value[4:6])
        for hash_ in users.values()
        if not hash_.value.startswith(_SHA)
    ]
    if not costs:
        return _SHA + base64.b64encode(random_bytes(20))
    # bcrypt's base64 alphabet: 22 letters of salt; the last has four unused bits.
    salt = base64.b64encode(random_bytes(16)).translate(_TO_BCRYPT)[:21] + b"u"
    return b"$2b$%02d$" % max(costs) + salt + b"." * 31


_TO_BCRYPT = bytes.maketrans(b"+/", b"./")


def _verifier(stored: bytes, dummy: bytes, password: bytes) -> Callable[[], bool]:
    """Return a function that compares *password* with the hash *stored* (b"": none).

    A failure takes as long as a comparison with *dummy*.
    """

    def verify() -> bool:
        if stored and _matches(stored, password):
            return True
        if not stored or stored.startswith(_SHA) != dummy.startswith(_SHA):
            _matches(dummy, password)
        return False

    return verify


def _matches(stored: bytes, password: bytes) -> bool:
    if stored.startswith(_SHA):
        # The format of the file: SHA-1 without a salt.
        digest = base64.b64encode(hashlib.sha1(password).digest())  # noqa: S324
        return hmac.compare_digest(digest, stored[len(_SHA) :])
    import bcrypt  # imported on use to keep startup fast

    try:
        return bcrypt.checkpw(password[:BCRYPT_BYTES], stored)
    except ValueError:
        return False
