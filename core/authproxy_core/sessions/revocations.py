"""The list of what was revoked: sessions that no index knows are looked up in it.

Each record is a key of its own, ``NAME:revoked:KIND:HASH``, with the moment of the
revocation as its value. A session that logged in later is not meant. What can't be
read counts as a revocation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..effects import Flow, Save
from ..session import Session
from ..settings.root import Settings
from .formats import SessionFormats, sid_of, subject_of
from .lifetimes import Lifetimes


class Revocations:
    """Keys and records of revocations under one cookie name."""

    def __init__(
        self, settings: Settings, formats: SessionFormats, clock: Callable[[], float]
    ) -> None:
        self._prefix = f"{settings.cookie.name}:revoked:"
        self._formats = formats
        self._clock = clock
        self._lifetimes = Lifetimes(settings)

    # -- looking up

    def session_key(self, identity: str) -> str:
        """The key under which one session is revoked."""
        return f"{self._prefix}session:{identity}"

    def identity_of_key(self, key: str) -> str:
        """The session that a key of `key_of_one` is about, "" for any other key."""
        start = self.session_key("")
        return key.removeprefix(start) if key.startswith(start) else ""

    def keys_for(self, session: Session, identity: str) -> tuple[str, ...]:
        """The keys that could say that *session* is revoked, the one of `all` last."""
        return (self.session_key(identity), *self._keys_of_users(session), self._all)

    def _keys_of_users(self, session: Session) -> Iterator[str]:
        sid = sid_of(session)
        if sid:
            yield from self._keys("sid", session.provider, sid)
        yield from self._keys("sub", session.provider, subject_of(session))
        names = {session.user, session.email, session.preferred_username}
        for name in sorted(names - {"", subject_of(session)}):
            yield from self._keys("name", name)

    @property
    def _all(self) -> str:
        return f"{self._prefix}all"

    def _keys(self, kind: str, *texts: str) -> tuple[str, ...]:
        hashes = self._formats.key_hashes(kind, *texts)
        return tuple(f"{self._prefix}{kind}:{one}" for one in hashes)

    def is_revoked(
        self, session: Session, keys: tuple[str, ...], values: tuple[bytes | None, ...]
    ) -> bool:
        """Whether the *values* under *keys* (of `keys_of`) revoke *session*."""
        return any(
            value is not None and self._means(session, key, value)
            for key, value in zip(keys, values, strict=True)
        )

    def _means(self, session: Session, key: str, value: bytes) -> bool:
        kind = key.removeprefix(self._prefix).partition(":")[0]
        moment, _, subject = value.decode("ascii", "replace").partition(" ")
        if kind == "session":
            return True
        if kind == "sid":
            # The provider's name for one session: later ones have another.
            provider, named = session.provider, subject_of(session)
            known = self._formats.key_hashes("sub", provider, named)
            return not subject or subject in known
        try:
            return session.login_at <= float(moment)
        except ValueError:
            return True

    # -- revoking

    def revoke_session(self, identity: str, ttl: float = 0.0) -> Flow[None]:
        """Revoke one session, for *ttl* seconds (0: as long as it could live)."""
        yield from self._save(self.session_key(identity), ttl=ttl)

    def revoke_sid(self, provider: str, sid: str, subject: str = "") -> Flow[None]:
        """Revoke the session with the provider's name *sid*, if it is of *subject*."""
        note = ""
        if subject:
            note = " " + self._formats.key_hashes("sub", provider, subject)[0]
        yield from self._save(self._keys("sid", provider, sid)[0], note)

    def revoke_subject(self, provider: str, subject: str) -> Flow[None]:
        """Revoke all present sessions of a provider's user."""
        yield from self._save(self._keys("sub", provider, subject)[0])

    def revoke_name(self, name: str) -> Flow[None]:
        """Revoke all present sessions of who is called so, by whatever claim."""
        yield from self._save(self._keys("name", name)[0])

    def revoke_all(self) -> Flow[None]:
        """Revoke all present sessions."""
        yield from self._save(self._all)

    def _save(self, key: str, note: str = "", ttl: float = 0.0) -> Flow[None]:
        value = f"{self._clock():.6f}{note}".encode()
        yield from Save(key, value, ttl or self._lifetimes.max_lifetime)
