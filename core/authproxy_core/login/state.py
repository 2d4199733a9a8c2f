"""Login state: binds the callback to the browser that started the login.

Each login has its own cookie, named by the hash of its state, so several tabs can log
in at once; beyond csrf_slots the oldest cookies are cleared. The ``state`` parameter
is only that hash. The redirect target, nonce, PKCE verifier and provider are sealed in
the cookie. Cookies and states of oauth2-proxy are read too.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from ..encoding import b64url, b64url_decode
from ..errors import LoginStateError, SealError
from ..messages import Header, Headers
from ..oidc.jwt import hash_nonce
from ..sessions.cookies import CookieWriter, read_cookies
from ..sessions.oauth2_proxy_format import CsrfRecord, OAuth2ProxyFormat
from ..sessions.sealing import Sealer
from ..settings.root import Settings
from .loop_guard import LOOP_COOKIE_SUFFIX as LOOP_SUFFIX

HASH_LENGTH = 43  # characters of base64url(SHA-256)
COOKIE_SUFFIX = b"_csrf"
RESTART_MARKER = ".again"  # follows the state of a login that replaces a lost one
MAX_STATE_LENGTH = 16 << 10  # characters
MAX_RD_BYTES = 2400  # so that the sealed login fits into one cookie
MAX_USED_STATES = 10_000
RANDOM_BYTES = 32  # of state and nonce
VERIFIER_BYTES = 48  # 64 characters (RFC 7636 §4.1)


class LoginState(Struct, frozen=True, array_like=True):
    """The content of a login cookie; ``state`` and ``nonce`` are raw random bytes.

    With ``from_oauth2_proxy`` the authorization request may have had no nonce.
    """

    state: bytes
    nonce: bytes
    code_verifier: str
    provider: str
    rd: str
    redirect_uri: str
    from_oauth2_proxy: bool = False

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
_DECODER = msgspec.msgpack.Decoder(LoginState)


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
    ) -> StartedLogin:
        """Create a login state; the response must set the returned cookies.

        *headers* are those of the request, *host* its original host. *is_restart*
        marks a login that replaces one whose state was lost.
        """
        verifier = b64url(self._random_bytes(VERIFIER_BYTES)) if with_verifier else b""
        rd = rd if self._writes_oauth2_proxy else _limit_rd(rd)
        login = LoginState(
            state=self._random_bytes(RANDOM_BYTES),
            nonce=self._random_bytes(RANDOM_BYTES),
            code_verifier=verifier.decode(),
            provider=provider,
            rd=rd,
            redirect_uri=redirect_uri,
        )
        state_hash = hash_nonce(login.state)
        name = self._cookie_name(state_hash)
        writer = self._writer(name)
        cookies = writer.set(
            self._seal(name, login), host=host, max_age=self._cookie.csrf_expire
        )
        cleared = self._clear_surplus(headers, host)
        parameter = self._parameter(state_hash, rd) + RESTART_MARKER * is_restart
        return StartedLogin(login, parameter, (*cleared, *cookies))

    def _cookie_name(self, state_hash: bytes) -> bytes:
        if self._writes_oauth2_proxy and not self._cookie.csrf_per_request:
            return self._prefix[:-1] + COOKIE_SUFFIX
        return self._prefix + state_hash[:8] + COOKIE_SUFFIX

    def _writer(self, name: bytes) -> CookieWriter:
        samesite = self._cookie.csrf_samesite or self._cookie.samesite
        return CookieWriter(name.decode(), self._cookie, samesite)

    def _parameter(self, state_hash: bytes, rd: str) -> str:
        if not self._writes_oauth2_proxy:
            return state_hash.decode()
        text = f"{state_hash.decode()}:{rd}"
        return b64url(text.encode()).decode() if self._encode_state else text

    def _seal(self, name: bytes, login: LoginState) -> bytes:
        now = self._clock()
        if self._writes_oauth2_proxy:
            record = CsrfRecord(login.state, login.nonce, login.code_verifier)
            return self._interop.write_csrf(
                name, record, now=now, iv=self._random_bytes(16)
            )
        return self._sealer.seal(
            b"login:" + name,
            _ENCODER.encode(login),
            issued_at=now,
            nonce=self._random_bytes(12),
        )

    def _clear_surplus(self, headers: Iterable[Header], host: str) -> Headers:
        """Return the cookies that clear the oldest logins above csrf_slots."""
        logins: dict[bytes, bytes] = {}
        for name, value in read_cookies(headers):
            if (
                name.startswith(self._prefix)
                and name.endswith(COOKIE_SUFFIX)
                and name != self._loop_cookie
            ):
                logins.setdefault(name, value)
        surplus = len(logins) + 1 - self._cookie.csrf_slots
        if surplus <= 0:
            return ()
        oldest = sorted(logins, key=lambda name: self._issued_at(name, logins[name]))
        return tuple(
            header
            for name in oldest[:surplus]
            for header in self._writer(name).clear(host=host, present=())
        )

    def _issued_at(self, name: bytes, value: bytes) -> float:
        """Return when a login started, in epoch seconds; 0 for an unreadable cookie."""
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
            self._prefix + state_hash[:8] + COOKIE_SUFFIX,
            self._prefix[:-1] + COOKIE_SUFFIX,
        ):
            login = self._read(cookies, name, rd)
            if login is None:
                continue
            if hmac.compare_digest(hash_nonce(login.state), state_hash):
                self._mark_used(state_hash)
                cleared = self._writer(name).clear(host=host, present=())
                return ConsumedLogin(login, cleared)
        raise LoginStateError("the browser sent no login cookie for this state")

    def _parse_parameter(self, parameter: str) -> tuple[bytes, str]:
        """Return the hash in the ``state`` parameter, and oauth2-proxy's rd after it."""
        if len(parameter) > MAX_STATE_LENGTH:
            raise LoginStateError("the state is too long")
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
        return state_hash.encode(), rd

    def _read(
        self, cookies: Sequence[tuple[bytes, bytes]], name: bytes, rd: str
    ) -> LoginState | None:
        value = next((value for other, value in cookies if other == name), None)
        if value is None:
            return None
        now, lifetime = self._clock(), self._cookie.csrf_expire
        try:
            if b"|" in value:
                return self._read_oauth2_proxy(name, value, rd)
            payload = self._sealer.unseal(
                b"login:" + name, value, now=now, lifetime=lifetime
            ).payload
            return _DECODER.decode(payload)
        except (SealError, msgspec.DecodeError):
            return None

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


def _limit_rd(rd: str) -> str:
    """Return *rd* within MAX_RD_BYTES: without fragment, without query, else "/"."""
    for target in (rd, rd.partition("#")[0], rd.partition("?")[0]):
        if len(target.encode("utf-8", "surrogateescape")) <= MAX_RD_BYTES:
            return target
    return "/"
