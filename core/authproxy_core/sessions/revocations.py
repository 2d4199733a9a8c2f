"""Revocations: store records against which cookie sessions are checked.

Each record has a key of its own, ``NAME-revoked:KIND:HASH``, and the time of the
revocation as its value. A session whose login was later is not revoked. An invalid
record revokes the session (fail closed), and so does each record if the login is later
than now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..effects import Flow, Save
from ..session import Session
from ..settings.root import Settings
from .formats import SessionFormats, sid_of, subject_of
from .lifetimes import Lifetimes
from .sealing import FUTURE_LEEWAY


class Revocations:
    """Keys and records of revocations under one cookie name."""

    def __init__(
        self, settings: Settings, formats: SessionFormats, clock: Callable[[], float]
    ) -> None:
        self._prefix = f"{settings.cookie.name}-revoked:"
        self._formats = formats
        self._clock = clock
        self._lifetimes = Lifetimes(settings)

    # -- checking

    def session_key(self, identity: str) -> str:
        """Return the key of the record that revokes one session."""
        return f"{self._prefix}session:{identity}"

    def identity_of_key(self, key: str) -> str:
        """Return the identity in a key of `session_key`, "" for any other key."""
        prefix = self.session_key("")
        return key.removeprefix(prefix) if key.startswith(prefix) else ""

    def keys_for(self, session: Session, identity: str) -> tuple[str, ...]:
        """Return the keys of all records that can revoke *session*."""
        return (self.session_key(identity), *self._user_keys(session), self._all_key)

    def _user_keys(self, session: Session) -> Iterator[str]:
        sid = sid_of(session)
        if sid:
            yield from self._keys("sid", session.provider, sid)
        yield from self._keys("sub", session.provider, subject_of(session))
        names = {session.user, session.email, session.preferred_username}
        for name in sorted(names - {"", subject_of(session)}):
            yield from self._keys("name", name)

    @property
    def _all_key(self) -> str:
        return f"{self._prefix}all"

    def _keys(self, kind: str, *parts: str) -> tuple[str, ...]:
        hashes = self._formats.key_hashes(kind, *parts)
        return tuple(f"{self._prefix}{kind}:{digest}" for digest in hashes)

    def is_revoked(
        self, session: Session, keys: tuple[str, ...], values: tuple[bytes | None, ...]
    ) -> bool:
        """Return whether a record of *values*, under the *keys* of `keys_for`, applies."""
        return any(
            value is not None and self._applies(session, key, value)
            for key, value in zip(keys, values, strict=True)
        )

    def _applies(self, session: Session, key: str, value: bytes) -> bool:
        kind = key.removeprefix(self._prefix).partition(":")[0]
        revoked_at, _, subject = value.decode("ascii", "replace").partition(" ")
        if kind == "session":
            return True
        if kind == "sid":
            # A later login has another sid, so the time does not matter.
            subjects = self._formats.key_hashes(
                "sub", session.provider, subject_of(session)
            )
            return not subject or subject in subjects
        # The clock was set back after this login, so the order of the two is unknown.
        if session.login_at > self._clock() + FUTURE_LEEWAY:
            return True
        try:
            return session.login_at <= float(revoked_at)
        except ValueError:
            return True

    # -- revoking

    def revoke_session(self, identity: str, ttl: float = 0.0) -> Flow[None]:
        """Revoke one session for *ttl* seconds; 0: for its maximum lifetime."""
        yield from self._save(self.session_key(identity), ttl=ttl)

    def revoke_sid(self, provider: str, sid: str, subject: str = "") -> Flow[None]:
        """Revoke the session with the provider's *sid*, if it belongs to *subject*."""
        suffix = ""
        if subject:
            suffix = " " + self._formats.key_hashes("sub", provider, subject)[0]
        yield from self._save(self._keys("sid", provider, sid)[0], suffix)

    def revoke_subject(self, provider: str, subject: str) -> Flow[None]:
        """Revoke all current sessions of a provider's user."""
        yield from self._save(self._keys("sub", provider, subject)[0])

    def revoke_name(self, name: str) -> Flow[None]:
        """Revoke all current sessions with *name* as user, email or preferred name."""
        yield from self._save(self._keys("name", name)[0])

    def revoke_all(self) -> Flow[None]:
        """Revoke all current sessions."""
        yield from self._save(self._all_key)

    def _save(self, key: str, suffix: str = "", ttl: float = 0.0) -> Flow[None]:
        value = f"{self._clock():.6f}{suffix}".encode()
        yield from Save(key, value, ttl or self._lifetimes.max_lifetime)
