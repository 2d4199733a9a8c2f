"""What stands in session cookies and in the store, in our format and oauth2-proxy's.

A cookie holds a whole session, or a ticket: the key of a session in the store and a
secret that opens it there. All of them are read; ``cookie_format`` says what is
written. Names of users stand in no key of the store: they are hashed with the ring.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

import msgspec

from ..errors import SealError, TokenError
from ..oidc.jwt import unverified_claims
from ..session import Session
from ..settings.root import Settings
from .codec import decode_session, encode_session
from .oauth2_proxy_format import (
    OAuth2ProxyFormat,
    Ticket,
    read_stored_session,
    write_stored_session,
)
from .sealing import NONCE_SIZE, Sealer

TICKET_ID_SIZE = 16  # bytes; 32 hexadecimal digits
TICKET_SECRET_SIZE = 32  # bytes
OAUTH2_PROXY_SECRET_SIZE = 16  # bytes; as oauth2-proxy makes them
MIN_NONCE_SIZE = 16  # bytes; a shorter nonce does not tell sessions apart
MAX_STORED_BYTES = (
    1 << 20
)  # bytes of a stored session; what is longer is refused unread


class SessionFormats:
    """Reads and writes the formats of one cookie name."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        cookie = settings.cookie
        self._cookie = cookie
        self._clock = clock
        self._random_bytes = random_bytes
        self.writes_oauth2_proxy = cookie.format == "oauth2-proxy"
        self._sealer = Sealer(cookie.secrets)
        self._interop = OAuth2ProxyFormat(cookie.secrets, cookie.name)
        self._hash_keys = [
            hmac.digest(secret.value, b"authproxy v1 store keys", "sha256")
            for secret in cookie.secrets
        ]
        # The name is part of the purpose: another instance's cookie is not ours.
        name = cookie.name.encode()
        self._for_session = b"session:" + name
        self._for_ticket = b"ticket:" + name
        self._tickets_first = settings.sessions.backend == "store"
        self._ticket_id = re.compile(re.escape(cookie.name) + "-[0-9a-f]{32}")

    # -- cookies

    def read(self, value: bytes) -> tuple[Session | Ticket, float]:
        """What a cookie's value holds, and when it was written; raises `SealError`."""
        if b"|" in value:
            return self._read_foreign(value)
        found = self._read_ticket(value) if self._tickets_first else None
        if found is not None:
            return found
        try:
            return self._read_session(value)
        except SealError:
            found = None if self._tickets_first else self._read_ticket(value)
            if found is None:
                raise
            return found

    def _read_foreign(self, value: bytes) -> tuple[Session | Ticket, float]:
        if not self._cookie.read_oauth2_proxy:
            raise SealError("expected a cookie of our own format")
        found, signed_at = self._interop.read_cookie(
            value, now=self._clock(), lifetime=self._cookie.expire
        )
        if isinstance(found, Session):
            # The time of the cookie has no fraction; the session's end is the cookie's.
            return found, float(int(found.created_at))
        self._check_ticket(found)
        return found, signed_at

    def _read_session(self, value: bytes) -> tuple[Session, float]:
        unsealed = self._sealer.unseal(
            self._for_session, value, now=self._clock(), lifetime=self._cookie.expire
        )
        return decode_session(unsealed.payload), unsealed.issued_at

    def _read_ticket(self, value: bytes) -> tuple[Ticket, float] | None:
        if len(value) > 400:  # a session; no need to try
            return None
        try:
            unsealed = self._sealer.unseal(
                self._for_ticket, value, now=self._clock(), lifetime=self._cookie.expire
            )
        except SealError:
            return None
        digits, secret = unsealed.payload[:16].hex(), unsealed.payload[16:]
        return Ticket(f"{self._cookie.name}-{digits}", secret), unsealed.issued_at

    def _check_ticket(self, ticket: Ticket) -> None:
        # It becomes a key of the store, so that nothing else may stand there.
        if not self._ticket_id.fullmatch(ticket.id):
            raise SealError("expected a ticket with an id of 32 hexadecimal digits")

    def write_session(self, session: Session) -> bytes:
        """*session* as a cookie's value."""
        if self.writes_oauth2_proxy:
            return self._interop.write_session(session, iv=self._random_bytes(16))
        return self._sealer.seal(
            self._for_session,
            encode_session(session),
            issued_at=session.created_at,
            nonce=self._random_bytes(NONCE_SIZE),
        )

    def write_ticket(self, ticket: Ticket, created_at: float) -> bytes:
        """*ticket* as a cookie's value; *created_at* is its session's."""
        if self.writes_oauth2_proxy:
            return self._interop.write_ticket(ticket, created_at=created_at)
        digits = ticket.id[-2 * TICKET_ID_SIZE :]
        return self._sealer.seal(
            self._for_ticket,
            bytes.fromhex(digits) + ticket.secret,
            issued_at=created_at,
            nonce=self._random_bytes(NONCE_SIZE),
        )

    # -- the store

    def new_ticket(self) -> Ticket:
        """A ticket that was never used."""
        digits = self._random_bytes(TICKET_ID_SIZE).hex()
        size = (
            OAUTH2_PROXY_SECRET_SIZE if self.writes_oauth2_proxy else TICKET_SECRET_SIZE
        )
        return Ticket(f"{self._cookie.name}-{digits}", self._random_bytes(size))

    def unseal_stored(self, ticket: Ticket, data: bytes) -> Session:
        """The session that the store has under *ticket*; raises `SealError`."""
        if len(data) > MAX_STORED_BYTES:
            raise SealError("the stored session is too large")
        try:
            unsealed = self._sealer.unseal(
                self._for_stored(ticket),
                data,
                now=self._clock(),
                lifetime=0,
                secret=ticket.secret,
            )
        except SealError:
            if not self._cookie.read_oauth2_proxy:
                raise
        else:
            return decode_session(unsealed.payload)
        return read_stored_session(ticket, data, created_at=0.0)

    def seal_stored(self, ticket: Ticket, session: Session) -> bytes:
        """*session* as the store keeps it under *ticket*."""
        nonce = self._random_bytes(NONCE_SIZE)
        if self.writes_oauth2_proxy:
            return write_stored_session(ticket, session, nonce=nonce)
        return self._sealer.seal(
            self._for_stored(ticket),
            encode_session(session),
            issued_at=session.created_at,
            nonce=nonce,
            secret=ticket.secret,
        )

    @staticmethod
    def _for_stored(ticket: Ticket) -> bytes:
        # The key is part of the purpose: moved to another key, a value is worthless.
        return b"stored:" + ticket.id.encode()

    def seal_record(self, key: str, payload: bytes) -> bytes:
        """A short record for the store, of use under *key* only."""
        return self._sealer.seal(
            b"note:" + key.encode(),
            payload,
            issued_at=self._clock(),
            nonce=self._random_bytes(NONCE_SIZE),
        )

    def unseal_record(self, key: str, data: bytes) -> bytes:
        """The record that `seal_note` made for *key*; raises `SealError`."""
        return self._sealer.unseal(
            b"note:" + key.encode(), data, now=self._clock(), lifetime=0
        ).payload

    def key_hashes(self, *texts: str) -> tuple[str, ...]:
        """*texts* as a part of a key, one for each secret of the ring, the first first.

        A new first secret must not make what was written by the old one unfindable.
        """
        message = msgspec.msgpack.encode(texts)  # so that no text reaches into the next
        return tuple(
            hmac.digest(key, message, "sha256").hex()[:40] for key in self._hash_keys
        )


def subject_of(session: Session) -> str:
    """The provider's ``sub`` of the session's user.

    Some providers call the user by another name; then the ID token says it.
    """
    return _claim(session, "sub") or session.user


def sid_of(session: Session) -> str:
    """The provider's name for the session, "" when there is none.

    oauth2-proxy does not keep it, but its sessions have the ID token that says it.
    """
    return session.sid or _claim(session, "sid")


def _claim(session: Session, name: str) -> str:
    if not session.id_token:
        return ""
    try:
        value = unverified_claims(session.id_token).get(name)
    except TokenError:
        return ""
    return value if isinstance(value, str) else ""


def session_identity(session: Session, sealed: bytes) -> str:
    """What stays the same in a cookie session's life, however often it is sealed."""
    if len(session.nonce) >= MIN_NONCE_SIZE:
        return hashlib.sha256(b"session\0" + session.nonce).hexdigest()
    return hashlib.sha256(b"cookie\0" + sealed).hexdigest()


def session_generation(session: Session, sealed: bytes) -> str:
    """The same between two refreshes; each has its own refresh token."""
    moment = repr(session.created_at).encode()
    own = session_identity(session, sealed).encode()
    return hashlib.sha256(own + b"\0" + moment).hexdigest()
