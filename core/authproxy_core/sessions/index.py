"""Index of stored sessions: lists which users have which sessions, without tokens.

    NAME-index:all                                        sets of 32-digit IDs
    NAME-index:sub:HASH, :sid:HASH, :name:HASH
    NAME-index:alg:HASH                                   a set of algorithms
    NAME-info:ID                                          a sealed `SessionInfo`

The ID is the one of the session's ticket. It is not a secret: the session is sealed with
the ticket's secret. User names are hashed in keys and sealed in records. The algorithms
are those of the ID tokens of all sessions at a provider, also of sessions in cookies.

The methods `find` and `revoke` are for the command line, which has the settings and a
store but no running proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
from msgspec import Struct

from ..effects import Add, Delete, Flow, LoadAll, Members, Remove, Save
from ..errors import SealError
from ..oidc.jwt import token_algorithm
from ..session import Session
from ..settings.credentials import HTPASSWD
from ..settings.root import Settings
from .formats import TICKET_ID_SIZE, SessionFormats, sid_of, subject_of
from .lifetimes import Lifetimes
from .oauth2_proxy_format import Ticket
from .revocations import Revocations

BATCH_SIZE = 500  # records per load
LIVE_BATCH_SIZE = 50  # sessions per load, which are longer
ID_DIGITS = 2 * TICKET_ID_SIZE
REVOCATION_MARK_TTL = 300.0  # seconds; longer than any refresh that is still running


class SessionInfo(Struct, frozen=True, array_like=True):
    """The record of a stored session; times are seconds since the epoch.

    ``id`` are the 32 digits of its ticket, ``subject`` is the provider's ``sub``.
    """

    id: str
    user: str
    email: str
    preferred_username: str
    provider: str
    sid: str
    login_at: float
    created_at: float
    subject: str

    @property
    def names(self) -> set[str]:
        """The names of the user other than ``subject``."""
        return {self.user, self.email, self.preferred_username} - {self.subject}

    def matches(self, name: str) -> bool:
        """Return whether *name* is the user's ``subject`` or another name."""
        return name == self.subject or name in self.names


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(SessionInfo)


class RevocationResult(Struct, frozen=True):
    """The number of stored sessions that a revocation ended.

    With ``cookie_sessions_revoked``, sessions in cookies are rejected as well; their
    number is unknown.
    """

    count: int
    cookie_sessions_revoked: bool


class SessionIndex:
    """Adds, finds and revokes the stored sessions under one cookie name."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        formats: SessionFormats | None = None,
    ) -> None:
        self._name = settings.cookie.name
        self._revocable = settings.sessions.revocable
        self._idle_timeout = settings.sessions.idle_timeout
        self._clock = clock
        self._providers = [provider.id for provider in settings.providers]
        if settings.credentials.users is not None:
            self._providers.append(HTPASSWD)
        self._formats = formats or SessionFormats(
            settings, clock=clock, random_bytes=random_bytes
        )
        self._lifetimes = Lifetimes(settings)
        self._notes_algorithms = settings.logout.back_channel
        self._noted: dict[tuple[str, str], float] = {}  # algorithms and times
        self.revocations = Revocations(settings, self._formats, clock)

    # -- keys

    def _set_keys(self, kind: str, *parts: str) -> tuple[str, ...]:
        """Return the keys of a set, one for each secret of the key ring."""
        hashes = self._formats.key_hashes(kind, *parts)
        return tuple(f"{self._name}-index:{kind}:{digest}" for digest in hashes)

    @property
    def _all_key(self) -> str:
        return f"{self._name}-index:all"

    def _info_key(self, session_id: str) -> str:
        return f"{self._name}-info:{session_id}"

    def _sets_of(self, info: SessionInfo) -> Iterator[tuple[str, ...]]:
        """Yield the keys of each set that contains the session."""
        yield (self._all_key,)
        yield self._set_keys("sub", info.provider, info.subject)
        if info.sid:
            yield self._set_keys("sid", info.provider, info.sid)
        for name in sorted(info.names - {""}):
            yield self._set_keys("name", name)

    # -- adding and removing

    def add_session(self, ticket: Ticket, session: Session) -> Flow[None]:
        """Add a stored session, or extend its TTL. Raises `StoreError`."""
        info = SessionInfo(
            ticket.id[-ID_DIGITS:],
            session.user,
            session.email,
            session.preferred_username,
            session.provider,
            sid_of(session),
            session.login_at,
            session.created_at,
            subject_of(session),
        )
        # A refreshed session outlives its first TTL, but extends it once per period:
        # see is_renewal_due.
        ttl = 2 * self._lifetimes.max_lifetime
        key = self._info_key(info.id)
        record = self._formats.seal_record(key, _ENCODER.encode(info))
        yield from Save(key, record, ttl)
        for keys in self._sets_of(info):
            yield from Add(keys[0], info.id.encode(), ttl)

    def is_renewal_due(self, before: Session, after: Session) -> bool:
        """Return whether a refreshed session must be added again to extend its TTL."""
        period = self._lifetimes.max_lifetime
        login_at = before.login_at
        return (before.created_at - login_at) // period != (
            after.created_at - login_at
        ) // period

    def add_login(self, ticket: Ticket | None, session: Session) -> Flow[None]:
        """Add the session of a new login, which has no *ticket* if it is in a cookie.

        Raises `StoreError`.
        """
        yield from self._add_algorithm(session)
        if ticket is not None:
            yield from self.add_session(ticket, session)

    def _add_algorithm(self, session: Session) -> Flow[None]:
        """Add the algorithm of the session's ID token, for logout tokens.

        Each process adds it once per period, so it outlives the sessions.
        """
        algorithm = token_algorithm(session.id_token)
        if not (self._notes_algorithms and algorithm):
            return
        now, lifetime = self._clock(), self._lifetimes.max_lifetime
        noted = (session.provider, algorithm)
        if now - self._noted.get(noted, float("-inf")) < lifetime:
            return
        key = self._set_keys("alg", session.provider)[0]
        yield from Add(key, algorithm.encode(), 2 * lifetime)
        self._noted[noted] = now

    def algorithms(self, provider: str) -> Flow[frozenset[str]]:
        """Return the signing algorithms of the ID tokens of the sessions at *provider*.

        Empty if no session was created. Raises `StoreError`.
        """
        found: set[bytes] = set()
        for key in self._set_keys("alg", provider):
            found.update((yield from Members(key)))
        return frozenset(member.decode("ascii", "replace") for member in found)

    def revoke_ticket(self, ticket: Ticket) -> Flow[None]:
        """Delete the session of a ticket. Raises `StoreError`."""
        yield from self._delete(ticket.id[-ID_DIGITS:])

    def _delete(self, session_id: str, info: SessionInfo | None = None) -> Flow[None]:
        ticket_id = f"{self._name}-{session_id}"
        # First the mark: a running refresh would write the session again.
        identity = ticket_identity(ticket_id)
        yield from self.revocations.revoke_session(identity, REVOCATION_MARK_TTL)
        yield from Delete(ticket_id)
        yield from Delete(self._info_key(session_id))
        sets = self._sets_of(info) if info is not None else ((self._all_key,),)
        for keys in sets:
            for key in keys:
                yield from Remove(key, session_id.encode())

    # -- finding

    def find(self, *, user: str = "", sid: str = "") -> Flow[tuple[SessionInfo, ...]]:
        """Return the sessions of *user* (sub, email or preferred name) and *sid*, or all.

        Expired sessions are left out. The oldest login comes first. Raises
        `StoreError`.
        """
        found = yield from self._find(user, sid)
        live: list[SessionInfo] = []
        for start in range(0, len(found), LIVE_BATCH_SIZE):
            live += yield from self._only_live(found[start : start + LIVE_BATCH_SIZE])
        return tuple(live)

    def _only_live(self, infos: tuple[SessionInfo, ...]) -> Flow[list[SessionInfo]]:
        stored = yield from LoadAll(tuple(f"{self._name}-{info.id}" for info in infos))
        live = [info for info, data in zip(infos, stored, strict=True) if data]
        if not self._idle_timeout or not live:
            return live
        last_uses = yield from LoadAll(
            tuple(last_use_key(self._name, info.id) for info in live)
        )
        idle_since = self._clock() - self._idle_timeout
        return [
            info
            for info, last_use in zip(live, last_uses, strict=True)
            if last_use is not None or info.created_at > idle_since
        ]

    def _find(self, user: str, sid: str) -> Flow[tuple[SessionInfo, ...]]:
        """Return the sessions of `find` and expired ones whose record remains."""
        if sid:
            found = yield from self._find_at_providers("sid", sid)
            return tuple(info for info in found if not user or info.matches(user))
        if not user:
            return (yield from self._load_infos((self._all_key,)))
        found = yield from self._find_at_providers("sub", user)
        named = yield from self._load_infos(self._set_keys("name", user))
        ids = {info.id for info in found}
        both = (*found, *(info for info in named if info.id not in ids))
        return tuple(sorted(both, key=lambda info: info.login_at))

    def find_by_subject(
        self, provider: str, *, subject: str = "", sid: str = ""
    ) -> Flow[tuple[SessionInfo, ...]]:
        """Return the sessions at *provider* that match *subject* and *sid*, if given.

        Without both, returns (). Raises `StoreError`.
        """
        if not (subject or sid):
            return ()
        kind, value = ("sid", sid) if sid else ("sub", subject)
        found = yield from self._load_infos(self._set_keys(kind, provider, value))
        return tuple(
            info
            for info in found
            if info.provider == provider
            and subject in ("", info.subject)
            and sid in ("", info.sid)
        )

    def _find_at_providers(
        self, kind: str, value: str
    ) -> Flow[tuple[SessionInfo, ...]]:
        keys = [
            key
            for provider in self._providers
            for key in self._set_keys(kind, provider, value)
        ]
        return (yield from self._load_infos(tuple(keys)))

    def _load_infos(self, set_keys: tuple[str, ...]) -> Flow[tuple[SessionInfo, ...]]:
        members: dict[str, None] = {}
        for set_key in set_keys:
            for member in (yield from Members(set_key)):
                members[member.decode("ascii", "replace")] = None
        ids = list(members)
        infos: list[SessionInfo] = []
        for start in range(0, len(ids), BATCH_SIZE):
            batch = ids[start : start + BATCH_SIZE]
            keys = tuple(self._info_key(session_id) for session_id in batch)
            values = yield from LoadAll(keys)
            infos += self._read(keys, values)
        return tuple(sorted(infos, key=lambda info: info.login_at))

    def _read(
        self, keys: tuple[str, ...], values: tuple[bytes | None, ...]
    ) -> Iterator[SessionInfo]:
        for key, value in zip(keys, values, strict=True):
            if value is None:
                continue
            with suppress(SealError, msgspec.DecodeError):
                yield _DECODER.decode(self._formats.unseal_record(key, value))

    # -- revoking

    def revoke(
        self, *, user: str = "", sid: str = "", everything: bool = False
    ) -> Flow[RevocationResult]:
        """Revoke the sessions of *user* (sub, email or preferred name) and *sid*, or all.

        Raises `StoreError`, and ValueError without any argument.
        """
        if not (user or sid or everything):
            raise ValueError("expected a user, a sid, or everything")
        in_cookies = self._revocable and not (user and sid)
        if in_cookies:
            yield from self._revoke_in_cookies(user, sid)
        if not (user or sid):
            return RevocationResult((yield from self._delete_all()), in_cookies)
        found = yield from self._find(user, sid)
        for info in found:
            yield from self._delete(info.id, info)
        return RevocationResult(len(found), in_cookies)

    def _delete_all(self) -> Flow[int]:
        """Delete all indexed sessions; a store returns a large set in parts."""
        count = 0
        while members := (yield from Members(self._all_key)):
            for member in members:
                yield from self._delete(member.decode("ascii", "replace"))
            count += len(members)
        return count

    def _revoke_in_cookies(self, user: str, sid: str) -> Flow[None]:
        if not user and not sid:
            yield from self.revocations.revoke_all()
            return
        for provider in self._providers:
            if sid:
                yield from self.revocations.revoke_sid(provider, sid)
            else:
                yield from self.revocations.revoke_subject(provider, user)
        if user:
            yield from self.revocations.revoke_name(user)

    def revoke_by_logout_token(
        self, provider: str, *, subject: str = "", sid: str = ""
    ) -> Flow[RevocationResult]:
        """Revoke the sessions that a logout token names (Back-Channel Logout §2.7).

        With both *subject* and *sid*, a session must match both. Raises `StoreError`.
        """
        if self._revocable:
            if sid:
                yield from self.revocations.revoke_sid(provider, sid, subject)
            else:
                yield from self.revocations.revoke_subject(provider, subject)
        found = yield from self.find_by_subject(provider, subject=subject, sid=sid)
        for info in found:
            yield from self._delete(info.id, info)
        return RevocationResult(len(found), self._revocable)


def last_use_key(name: str, session_id: str) -> str:
    """Return the key of the last use of a stored session, kept for the idle timeout."""
    return f"{name}-seen:{session_id}"


def ticket_identity(ticket_id: str) -> str:
    """Return the identity of a stored session, under which it is marked as revoked."""
    return hashlib.sha256(b"ticket\0" + ticket_id.encode()).hexdigest()
