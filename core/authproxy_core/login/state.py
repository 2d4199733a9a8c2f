"""Login state: binds the callback to the browser that started the login.

Each login has its own cookie, named by the hash of its state, so several tabs can log
in at once; beyond csrf_slots the oldest cookies are cleared. The ``state`` parameter
is only that hash. The redirect target, nonce, PKCE verifier and provider are sealed in
the cookie; with a long redirect target it is split into parts. Cookies and states of
oauth2-proxy are read too. Its state contains the redirect target, since 7.15.6 escaped
as in a query.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote, quote_plus, unquote_to_bytes

import lz4.block
import msgspec
from msgspec import Struct

from ..encoding import b64url, b64url_decode
from ..errors import LoginStateError, SealError
from ..messages import Header, Headers
from ..oidc.jwt import hash_nonce
from ..oidc.requested import RequestedAuthentication
from ..sessions.cookies import (
    LOGIN_SUFFIX,
    Cookies,
    CookieWriter,
    Twins,
    candidate_values,
    is_cookie_or_part,
    join_cookie_parts,
    login_cookie_name,
    read_cookies,
)
from ..sessions.oauth2_proxy_format import CsrfRecord, OAuth2ProxyFormat
from ..sessions.sealing import Sealer
from ..settings.root import Settings
from .loop_guard import LOOP_COOKIE_SUFFIX as LOOP_SUFFIX

HASH_LENGTH = 43  # characters of base64url(SHA-256)
RESTART_MARKER = ".again"  # follows the state of a login that replaces a lost one
MAX_STATE_LENGTH = 24 << 10  # characters of the parameter, escaped for a query
MAX_COOKIE_PARTS = 8  # hold the longest redirect target that does not compress
MIN_COMPRESSED_BYTES = 1024  # a shorter redirect target is sealed as it is
MAX_DECOMPRESSED_BYTES = 64 << 10  # of a redirect target
MAX_CLEARED_LOGINS = 32  # per response; the next ones clear the others
MAX_USED_STATES = 10_000
RANDOM_BYTES = 32  # of state and nonce
VERIFIER_BYTES = 48  # 64 characters (RFC 7636 §4.1)

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class LoginState(Struct, frozen=True, array_like=True):
    """The content of a login cookie; ``state`` and ``nonce`` are raw random bytes.

    With ``from_oauth2_proxy`` the authorization request may have had no nonce.
    ``requested`` is None if the record does not hold it.
    """

    state: bytes
    nonce: bytes
    code_verifier: str
    provider: str
    rd: str
    redirect_uri: str
    from_oauth2_proxy: bool = False
    requested: RequestedAuthentication | None = None

    def __repr__(self) -> str:
        return f"LoginState(provider={self.provider!r})"


class StartedLogin(Struct, frozen=True):
    """A created login: its state, the ``state`` parameter, and the cookies to set."""

    login: LoginState
    parameter: str
    headers: Headers


class ConsumedLogin(Struct, frozen=True):
    """The login of a callback, and the cookies that clear its state."""

    login: LoginState
    headers: Headers


_ENCODER = msgspec.msgpack.Encoder()
# The second element is the compressed rd. Nothing secret is compressed with it, because
# the sizes would reveal whether the two are alike.
_DECODER = msgspec.msgpack.Decoder(tuple[LoginState, bytes])


class LoginStates:
    """Creates and consumes login states."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider_ids: Sequence[str],
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._cookie = settings.cookie
        self._encode_state = settings.encode_state
        self._default_provider = provider_ids[0]
        self._posted_back = frozenset(
            provider.id
            for provider in settings.providers
            if provider.response_mode == "form_post"
        )
        self._clock = clock
        self._random_bytes = random_bytes
        self._prefix = settings.cookie.name.encode() + b"_"
        self._loop_cookie = self._prefix[:-1] + LOOP_SUFFIX
        self._sealer = Sealer(settings.cookie.secrets)
        self._interop = OAuth2ProxyFormat(settings.cookie.secrets, settings.cookie.name)
        self._used: dict[bytes, None] = {}

    @property
    def _writes_oauth2_proxy(self) -> bool:
        return self._cookie.format == "oauth2-proxy"

    # -- creation

    def create(
        self,
        headers: Iterable[Header],
        *,
        host: str,
        provider: str,
        rd: str,
        redirect_uri: str,
        with_verifier: bool,
        is_restart: bool = False,
        requested: RequestedAuthentication | None = None,
    ) -> StartedLogin:
        """Create a login state; the response must set the returned cookies.

        Raises `LoginStateError` if the ``state`` parameter would be too long.

        *headers* are those of the request, *host* its original host. *is_restart*
        marks a login that replaces one whose state was lost.
        """
        verifier = b64url(self._random_bytes(VERIFIER_BYTES)) if with_verifier else b""
        login = LoginState(
            state=self._random_bytes(RANDOM_BYTES),
            nonce=self._random_bytes(RANDOM_BYTES),
            code_verifier=verifier.decode(),
            provider=provider,
            rd=rd,
            redirect_uri=redirect_uri,
            requested=requested,
        )
        state_hash = hash_nonce(login.state)
        parameter = self._parameter(state_hash, rd) + RESTART_MARKER * is_restart
        if len(quote(parameter, safe="")) > MAX_STATE_LENGTH:
            raise LoginStateError("the redirect target is too long for the state")
        name = self._cookie_name(state_hash)
        cookies = self._writer(name, provider).set(
            self._seal(name, login), host=host, max_age=self._cookie.csrf_expire
        )
        cleared = self._clear_surplus(headers, host)
        return StartedLogin(login, parameter, (*cleared, *cookies))

    def _cookie_name(self, state_hash: bytes) -> bytes:
        if self._writes_oauth2_proxy and not self._cookie.csrf_per_request:
            return self._prefix[:-1] + LOGIN_SUFFIX
        return self._prefix + state_hash[:8] + LOGIN_SUFFIX

    def _writer(self, name: bytes, provider: str = "") -> CookieWriter:
        samesite, cookie = self._cookie.csrf_samesite, self._cookie
        if provider in self._posted_back and not samesite:
            # Browsers send no other cookie with a form that another site posts.
            samesite, cookie = "none", msgspec.structs.replace(cookie, secure=True)
        return CookieWriter(name.decode(), cookie, samesite or cookie.samesite)

    def _parameter(self, state_hash: bytes, rd: str) -> str:
        if not self._writes_oauth2_proxy:
            return state_hash.decode()
        if self._encode_state:
            return b64url(f"{state_hash.decode()}:{rd}".encode()).decode()
        return f"{state_hash.decode()}:{quote_plus(rd)}"

    def _seal(self, name: bytes, login: LoginState) -> bytes:
        now = self._clock()
        if self._writes_oauth2_proxy:
            record = CsrfRecord(login.state, login.nonce, login.code_verifier)
            return self._interop.write_csrf(
                name, record, now=now, iv=self._random_bytes(16)
            )
        return self._sealer.seal(
            b"login:" + name,
            _encode(login),
            issued_at=now,
            nonce=self._random_bytes(12),
        )

    def _clear_surplus(self, headers: Iterable[Header], host: str) -> Headers:
        """Return the cookies that clear the oldest logins above csrf_slots."""
        logins: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for present, value in read_cookies(headers):
            name = login_cookie_name(present)
            if name.startswith(self._prefix) and name not in (b"", self._loop_cookie):
                logins.setdefault(name, []).append((present, value))
        surplus = len(logins) + 1 - self._cookie.csrf_slots
        if surplus <= 0:
            return ()
        oldest = sorted(logins, key=lambda name: self._issued_at(logins[name], name))
        return tuple(
            header
            for name in oldest[: min(surplus, MAX_CLEARED_LOGINS)]
            for header in self._writer(name).clear(
                host=host, present=[present for present, _ in logins[name]]
            )
        )

    def _issued_at(self, cookies: Cookies, name: bytes) -> float:
        """Return when a login started, in epoch seconds; 0 for an unreadable cookie."""
        value = join_cookie_parts(cookies, name, MAX_COOKIE_PARTS) or b""
        try:
            return self._sealer.unseal(
                b"login:" + name, value, now=self._clock(), lifetime=0
            ).issued_at
        except SealError:
            return 0.0

    # -- consumption

    def restart_target(self, parameter: str) -> str | None:
        """Return the redirect target for restarting a login; None: do not restart.

        A login restarts once: if the second state is lost too, the browser stores no
        cookies, or the callback is forged. The target is "" for authproxy's own
        states, because only oauth2-proxy's contain it.
        """
        if self._writes_oauth2_proxy or parameter.endswith(RESTART_MARKER):
            return None
        try:
            return self._parse_parameter(parameter)[1]
        except LoginStateError:
            return None

    def is_well_formed(self, parameter: str) -> bool:
        """Return whether *parameter* has the form of a ``state`` parameter."""
        try:
            self._parse_parameter(parameter)
        except LoginStateError:
            return False
        return True

    def consume(
        self, headers: Iterable[Header], parameter: str, *, host: str
    ) -> ConsumedLogin:
        """Return the login of the ``state`` *parameter*, once.

        Raises `LoginStateError` if no cookie of *headers* belongs to it, or if the
        login expired or was used before.
        """
        state_hash, rd = self._parse_parameter(parameter)
        cookies = read_cookies(headers)
        for name in (
            self._prefix + state_hash[:8] + LOGIN_SUFFIX,
            self._prefix[:-1] + LOGIN_SUFFIX,
        ):
            for value in candidate_values(cookies, name, MAX_COOKIE_PARTS):
                login = self._read(name, value, rd)
                if login and hmac.compare_digest(hash_nonce(login.state), state_hash):
                    self._mark_used(state_hash)
                    return ConsumedLogin(login, self._clear(cookies, name, host))
        raise LoginStateError("the browser sent no login cookie for this state")

    def _clear(self, cookies: Cookies, name: bytes, host: str) -> Headers:
        present = [other for other, _ in cookies if is_cookie_or_part(other, name)]
        twins: Twins = "host" if len(set(present)) < len(present) else "none"
        return self._writer(name).clear(host=host, present=present, twins=twins)

    def _parse_parameter(self, parameter: str) -> tuple[bytes, str]:
        """Return the hash in the ``state`` parameter, and oauth2-proxy's rd after it."""
        if len(parameter) > MAX_STATE_LENGTH:
            raise LoginStateError("the state is too long")
        if len(parameter) == HASH_LENGTH + len(RESTART_MARKER):
            parameter = parameter.removesuffix(RESTART_MARKER)
        decoded = b64url_decode(parameter.encode("utf-8", "replace"))
        if len(parameter) != HASH_LENGTH and decoded is not None:
            parameter = decoded.decode("utf-8", "replace")
        state_hash, _, rd = parameter.partition(":")
        if (
            len(state_hash) != HASH_LENGTH
            or b64url_decode(state_hash.encode("utf-8", "replace")) is None
        ):
            raise LoginStateError("the state is malformed")
        return state_hash.encode(), _unescape_rd(rd)

    def _read(self, name: bytes, value: bytes, rd: str) -> LoginState | None:
        now, lifetime = self._clock(), self._cookie.csrf_expire
        try:
            if b"|" in value:
                return self._read_oauth2_proxy(name, value, rd)
            payload = self._sealer.unseal(
                b"login:" + name, value, now=now, lifetime=lifetime
            ).payload
            return _decode(payload)
        except (SealError, ValueError, lz4.block.LZ4BlockError):
            return None  # ValueError: not MessagePack, or not UTF-8

    def _read_oauth2_proxy(
        self, name: bytes, value: bytes, rd: str
    ) -> LoginState | None:
        if not self._cookie.read_oauth2_proxy:
            return None
        record = self._interop.read_csrf(
            name, value, now=self._clock(), lifetime=self._cookie.csrf_expire
        )
        return LoginState(
            state=record.state,
            nonce=record.nonce,
            code_verifier=record.code_verifier,
            provider=self._default_provider,
            rd=rd,
            redirect_uri="",
            from_oauth2_proxy=True,
        )

    def _mark_used(self, state_hash: bytes) -> None:
        if state_hash in self._used:
            raise LoginStateError("this login was completed before")
        if len(self._used) >= MAX_USED_STATES:
            del self._used[next(iter(self._used))]
        self._used[state_hash] = None


def _encode(login: LoginState) -> bytes:
    rd, compressed = login.rd, b""
    if len(rd) >= MIN_COMPRESSED_BYTES:
        rd, compressed = "", lz4.block.compress(login.rd.encode())
    return _ENCODER.encode((msgspec.structs.replace(login, rd=rd), compressed))


def _decode(payload: bytes) -> LoginState:
    login, compressed = _DECODER.decode(payload)
    if not compressed:
        return login
    # LZ4 allocates the size that the first four bytes declare.
    if int.from_bytes(compressed[:4], "little") > MAX_DECOMPRESSED_BYTES:
        raise ValueError("redirect target too large")
    return msgspec.structs.replace(login, rd=lz4.block.decompress(compressed).decode())


def _unescape_rd(rd: str) -> str:
    """Return the redirect target in a state of oauth2-proxy.

    7.15.6 escapes it, so it contains no slash; before, it was a URL with a slash, or
    empty. Raises `LoginStateError`.
    """
    if "/" in rd or not rd:
        return rd
    if _BAD_ESCAPE.search(rd):
        raise LoginStateError("the state is malformed")
    try:
        return unquote_to_bytes(rd.replace("+", " ")).decode()
    except UnicodeDecodeError:
        raise LoginStateError("the state is malformed") from None
