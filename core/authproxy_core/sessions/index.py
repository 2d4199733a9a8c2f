"""The index of the sessions in the store: who has which, without any token.

    NAME:index:all                                        sets of 32 digits
    NAME:index:sub:HASH, :sid:HASH, :name:HASH
    NAME:info:DIGITS                                      a sealed `SessionInfo`

The digits are those of the session's ticket. They are no secret: without the ticket's
own secret the session under them is sealed. Names of users are hashed in keys and
sealed in records.

The flows at the end are for the command line: they need the settings and a store, but
no running proxy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
from msgspec import Struct

from ..effects import Add, Delete, Flow, LoadAll, Members, Remove, Save
from ..errors import SealError
from ..session import Session
from ..settings.credentials import HTPASSWD
from ..settings.root import Settings
from .formats import TICKET_ID_SIZE, SessionFormats, sid_of, subject_of
from .lifetimes import Lifetimes
from .oauth2_proxy_format import Ticket
from .revocations import Revocations

BATCH_SIZE = 500  # records loaded at once
ID_DIGITS = 2 * TICKET_ID_SIZE
REVOCATION_MARK_TTL = 300.0  # seconds; longer than any refresh that may still run


class SessionInfo(Struct, frozen=True, array_like=True):
    """What is said of a session; moments are seconds since the epoch.

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
        """What the user is called besides ``subject``."""
        return {self.user, self.email, self.preferred_username} - {self.subject}

    def matches(self, name: str) -> bool:
        """Whether *name* is the session's user, by any of its names."""
        return name == self.subject or name in self.names


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(SessionInfo)


class RevocationResult(Struct, frozen=True):
    """What a revocation did: how many sessions in the store it ended.

    ``listed`` says that sessions in cookies are refused from now on as well; their
    number is not known.
    """

    count: int
    cookie_sessions_revoked: bool


class SessionIndex:
    """Notes, finds and ends the sessions in the store under one cookie name."""

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
        self._providers = [provider.id for provider in settings.providers]
        if settings.credentials.users is not None:
            self._providers.append(HTPASSWD)
        self._formats = formats or SessionFormats(
            settings, clock=clock, random_bytes=random_bytes
        )
        self._lifetimes = Lifetimes(settings)
        self.revocations = Revocations(settings, self._formats, clock)

    # -- keys

    def _set(self, kind: str, *texts: str) -> tuple[str, ...]:
        hashes = self._formats.key_hashes(kind, *texts)
        return tuple(f"{self._name}:index:{kind}:{one}" for one in hashes)

    def _all(self) -> str:
        return f"{self._name}:index:all"

    def _info(self, digits: str) -> str:
        return f"{self._name}:info:{digits}"

    def _sets_of(self, info: SessionInfo) -> Iterator[tuple[str, ...]]:
        """The sets that a session is in, each under the names of all secrets."""
        yield (self._all(),)
        yield self._set("sub", info.provider, info.subject)
        if info.sid:
            yield self._set("sid", info.provider, info.sid)
        for name in sorted(info.names - {""}):
            yield self._set("name", name)

    # -- noting

    def add_session(self, ticket: Ticket, session: Session) -> Flow[None]:
        """Note a session in the store, or note it for longer. Raises `StoreError`."""
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
        # A session that is refreshed lives on; it is noted anew once in that time.
        ttl = 2 * self._lifetimes.max_lifetime
        key = self._info(info.id)
        yield from Save(key, self._formats.seal_record(key, _ENCODER.encode(info)), ttl)
        for names in self._sets_of(info):
            yield from Add(names[0], info.id.encode(), ttl)

    def is_renewal_due(self, before: Session, after: Session) -> bool:
        """Whether a session that was refreshed has to be noted for longer."""
        period = self._lifetimes.max_lifetime
        login_at = before.login_at
        return (before.created_at - login_at) // period != (
            after.created_at - login_at
        ) // period

    def revoke_ticket(self, ticket: Ticket) -> Flow[None]:
        """End a session in the store. Raises `StoreError`."""
        yield from self._end(ticket.id[-ID_DIGITS:])

    def _end(self, digits: str, info: SessionInfo | None = None) -> Flow[None]:
        ticket_id = f"{self._name}-{digits}"
        # First the mark, for a refresh under way, which would write it once more.
        yield from self.revocations.revoke_session(
            ticket_identity(ticket_id), REVOCATION_MARK_TTL
        )
        yield from Delete(ticket_id)
        yield from Delete(self._info(digits))
        sets = self._sets_of(info) if info is not None else ((self._all(),),)
        for names in sets:
            for name in names:
                yield from Remove(name, digits.encode())

    # -- finding

    def find(self, *, user: str = "", sid: str = "") -> Flow[tuple[SessionInfo, ...]]:
        """The sessions of *user* (sub, e-mail or preferred name), of *sid*, or all.

        Oldest login first. Raises `StoreError`.
        """
        if sid:
            found = yield from self._found("sid", sid)
            return tuple(info for info in found if not user or info.matches(user))
        if not user:
            return (yield from self._infos((self._all(),)))
        found = yield from self._found("sub", user)
        named = yield from self._infos(self._set("name", user))
        known = {info.id for info in found}
        both = (*found, *(info for info in named if info.id not in known))
        return tuple(sorted(both, key=lambda info: info.login_at))

    def find_by_subject(
        self, provider: str, *, subject: str = "", sid: str = ""
    ) -> Flow[tuple[SessionInfo, ...]]:
        """The sessions at *provider* that match all of what is given, none for nothing."""
        if not (subject or sid):
            return ()
        kind, text = ("sid", sid) if sid else ("sub", subject)
        found = yield from self._infos(self._set(kind, provider, text))
        return tuple(
            info
            for info in found
            if info.provider == provider
            and subject in ("", info.subject)
            and sid in ("", info.sid)
        )

    def _found(self, kind: str, text: str) -> Flow[tuple[SessionInfo, ...]]:
        names = [
            name
            for provider in self._providers
            for name in self._set(kind, provider, text)
        ]
        return (yield from self._infos(tuple(names)))

    def _infos(self, names: tuple[str, ...]) -> Flow[tuple[SessionInfo, ...]]:
        members: dict[str, None] = {}
        for name in names:
            for member in (yield from Members(name)):
                members[member.decode("ascii", "replace")] = None
        digits = list(members)
        infos: list[SessionInfo] = []
        for start in range(0, len(digits), BATCH_SIZE):
            keys = tuple(self._info(one) for one in digits[start : start + BATCH_SIZE])
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
        """End the sessions of *user* (sub, e-mail or preferred name), of *sid*, or all.

        Raises `StoreError`, and ValueError unless it is said whose.
        """
        if not (user or sid or everything):
            raise ValueError("expected a user, a sid, or everything")
        listed = self._revocable and not (user and sid)
        if listed:
            yield from self._list(user, sid)
        if not (user or sid):
            return RevocationResult((yield from self._end_all()), listed)
        found = yield from self.find(user=user, sid=sid)
        for info in found:
            yield from self._end(info.id, info)
        return RevocationResult(len(found), listed)

    def _end_all(self) -> Flow[int]:
        """End what is in the index; a store gives out a large set in parts."""
        count = 0
        while members := (yield from Members(self._all())):
            for member in members:
                yield from self._end(member.decode("ascii", "replace"))
            count += len(members)
        return count

    def _list(self, user: str, sid: str) -> Flow[None]:
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
        """End what a provider's logout token means (Back-Channel Logout §2.7).

        With both *subject* and *sid* a session has to match both. Raises `StoreError`.
        """
        if self._revocable:
            if sid:
                yield from self.revocations.revoke_sid(provider, sid, subject)
            else:
                yield from self.revocations.revoke_subject(provider, subject)
        found = yield from self.find_by_subject(provider, subject=subject, sid=sid)
        for info in found:
            yield from self._end(info.id, info)
        return RevocationResult(len(found), self._revocable)


def ticket_identity(ticket_id: str) -> str:
    """The identity of a session in the store, for the mark that it has ended."""
    return hashlib.sha256(b"ticket\0" + ticket_id.encode()).hexdigest()
