"""Session cookies and stored values, in authproxy's format and oauth2-proxy's.

A cookie holds a whole session or a ticket: the store key of a session and the secret
that unseals it. All formats are read; ``cookie_format`` selects the one that is written.
User names in store keys are hashed with a key of the key ring.
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
OAUTH2_PROXY_SECRET_SIZE = 16  # bytes; as oauth2-proxy writes them
MIN_NONCE_SIZE = 16  # bytes; a shorter nonce does not identify a session
MAX_TICKET_COOKIE_BYTES = 400  # a longer value is a session
MAX_STORED_BYTES = 1 << 20  # a longer stored session is rejected unread


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
        self._oauth2_proxy = OAuth2ProxyFormat(cookie.secrets, cookie.name)
        self._hash_keys = [
            hmac.digest(secret.value, b"authproxy v1 store keys", "sha256")
            for secret in cookie.secrets
        ]
        # The cookie name is part of the purpose, so that an instance with the same
        # secret and another name rejects the value.
        name = cookie.name.encode()
        self._session_purpose = b"session:" + name
        self._ticket_purpose = b"ticket:" + name
        self._tickets_first = settings.sessions.backend == "store"
        self._ticket_id = re.compile(re.escape(cookie.name) + "-[0-9a-f]{32}")

    # -- cookies

    def read(self, value: bytes) -> tuple[Session | Ticket, float]:
        """Return the content of a cookie value and the time it was written (seconds).

        Raises `SealError`.
        """
        if b"|" in value:
            return self._read_oauth2_proxy(value)
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

    def _read_oauth2_proxy(self, value: bytes) -> tuple[Session | Ticket, float]:
        if not self._cookie.read_oauth2_proxy:
            raise SealError("oauth2-proxy cookies are not accepted")
        found, signed_at = self._oauth2_proxy.read_cookie(
            value, now=self._clock(), lifetime=self._cookie.expire
        )
        if isinstance(found, Session):
            # The cookie's own timestamp has no fraction, and both must expire together.
            return found, float(int(found.created_at))
        self._check_ticket(found)
        return found, signed_at

    def _read_session(self, value: bytes) -> tuple[Session, float]:
        unsealed = self._sealer.unseal(
            self._session_purpose,
            value,
            now=self._clock(),
            lifetime=self._cookie.expire,
        )
        return decode_session(unsealed.payload), unsealed.issued_at

    def _read_ticket(self, value: bytes) -> tuple[Ticket, float] | None:
        if len(value) > MAX_TICKET_COOKIE_BYTES:
            return None
        try:
            unsealed = self._sealer.unseal(
                self._ticket_purpose,
                value,
                now=self._clock(),
                lifetime=self._cookie.expire,
            )
        except SealError:
            return None
        digits, secret = unsealed.payload[:16].hex(), unsealed.payload[16:]
        return Ticket(f"{self._cookie.name}-{digits}", secret), unsealed.issued_at

    def _check_ticket(self, ticket: Ticket) -> None:
        # The ID becomes a store key, so it must not name any other key.
        if not self._ticket_id.fullmatch(ticket.id):
            raise SealError("expected a ticket with an ID of 32 hexadecimal digits")

    def write_session(self, session: Session) -> bytes:
        """Return *session* as a cookie value."""
        if self.writes_oauth2_proxy:
            return self._oauth2_proxy.write_session(session, iv=self._random_bytes(16))
        return self._sealer.seal(
            self._session_purpose,
            encode_session(session),
            issued_at=session.created_at,
            nonce=self._random_bytes(NONCE_SIZE),
        )

    def write_ticket(self, ticket: Ticket, created_at: float) -> bytes:
        """Return *ticket* as a cookie value; *created_at* is that of its session."""
        if self.writes_oauth2_proxy:
            return self._oauth2_proxy.write_ticket(ticket, created_at=created_at)
        digits = ticket.id[-2 * TICKET_ID_SIZE :]
        return self._sealer.seal(
            self._ticket_purpose,
            bytes.fromhex(digits) + ticket.secret,
            issued_at=created_at,
            nonce=self._random_bytes(NONCE_SIZE),
        )

    # -- the store

    def new_ticket(self) -> Ticket:
        """Return a random ticket."""
        digits = self._random_bytes(TICKET_ID_SIZE).hex()
        oauth2_proxy = self.writes_oauth2_proxy
        size = OAUTH2_PROXY_SECRET_SIZE if oauth2_proxy else TICKET_SECRET_SIZE
        return Ticket(f"{self._cookie.name}-{digits}", self._random_bytes(size))

    def unseal_stored(self, ticket: Ticket, data: bytes) -> Session:
        """Return the session that the store holds for *ticket*; raises `SealError`."""
        if len(data) > MAX_STORED_BYTES:
            raise SealError("stored session too large")
        try:
            unsealed = self._sealer.unseal(
                self._stored_purpose(ticket),
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
        """Return *session* as the store holds it for *ticket*."""
        nonce = self._random_bytes(NONCE_SIZE)
        if self.writes_oauth2_proxy:
            return write_stored_session(ticket, session, nonce=nonce)
        return self._sealer.seal(
            self._stored_purpose(ticket),
            encode_session(session),
            issued_at=session.created_at,
            nonce=nonce,
            secret=ticket.secret,
        )

    @staticmethod
    def _stored_purpose(ticket: Ticket) -> bytes:
        # With the key in the purpose, a value cannot be moved to another key.
        return b"stored:" + ticket.id.encode()

    def seal_record(self, key: str, payload: bytes) -> bytes:
        """Seal a short record that is valid under the store key *key* only."""
        return self._sealer.seal(
            b"note:" + key.encode(),
            payload,
            issued_at=self._clock(),
            nonce=self._random_bytes(NONCE_SIZE),
        )

    def unseal_record(self, key: str, data: bytes) -> bytes:
        """Return the payload that `seal_record` sealed for *key*; raises `SealError`."""
        return self._sealer.unseal(
            b"note:" + key.encode(), data, now=self._clock(), lifetime=0
        ).payload

    def key_hashes(self, *parts: str) -> tuple[str, ...]:
        """Hash *parts* for a store key, with each secret of the key ring in its order.

        After a key rotation, keys that the old secret wrote are still found.
        """
        message = msgspec.msgpack.encode(parts)  # ("ab", "c") differs from ("a", "bc")
        return tuple(
            hmac.digest(key, message, "sha256").hex()[:40] for key in self._hash_keys
        )


def subject_of(session: Session) -> str:
    """Return the provider's ``sub`` of the session's user.

    ``Session.user`` is another claim for some providers, so the ID token takes
    precedence.
    """
    return _claim(session, "sub") or session.user


def sid_of(session: Session) -> str:
    """Return the provider's session ID, "" if there is none.

    oauth2-proxy does not store it, but its sessions have the ID token that holds it.
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
    """Return the identity of a cookie session; a refresh does not change it."""
    if len(session.nonce) >= MIN_NONCE_SIZE:
        return hashlib.sha256(b"session\0" + session.nonce).hexdigest()
    return hashlib.sha256(b"cookie\0" + sealed).hexdigest()


def session_generation(session: Session, sealed: bytes) -> str:
    """Return the generation of a cookie session, which each refresh changes."""
    created_at = repr(session.created_at).encode()
    identity = session_identity(session, sealed).encode()
    return hashlib.sha256(identity + b"\0" + created_at).hexdigest()


def without_tokens(session: Session) -> Session:
    """Return *session* as session_cookie_minimal stores it."""
    return msgspec.structs.replace(
        session, access_token="", id_token="", refresh_token=""
    )


def parse_time(text: bytes) -> float:
    """Return the time of a last use, in epoch seconds; 0 if it is invalid."""
    try:
        return float(text)
    except ValueError:
        return 0.0
