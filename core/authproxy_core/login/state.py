"""A login under way: what binds the callback to the browser that began it.

Each login has a cookie of its own, named by the hash of its state, so that several tabs
can log in at once; how many is bounded, the oldest make room. The state in the URL is
only that hash: where to go afterwards, the nonce, the code verifier and the provider
are sealed in the cookie. oauth2-proxy's cookies and states are understood as well.
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
RESTART_MARKER = (
    ".again"  # behind the state of a login that takes the place of a lost one
)
MAX_STATE_LENGTH = 16 << 10  # bytes
MAX_RD_BYTES = 2400  # bytes: with it, the login still fits into one cookie
MAX_USED_STATES = 10_000
RANDOM_BYTES = 32  # bytes of state and nonce
VERIFIER_BYTES = 48  # bytes; 64 characters (RFC 7636 §4.1)


class LoginState(Struct, frozen=True, array_like=True):
    """What is remembered of a login; ``state`` and ``nonce`` are raw random bytes.

    ``foreign`` logins were begun by oauth2-proxy, which may not have sent its nonce.
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
    """A login that has begun: its state, the parameter for the URL, its cookies."""

    login: LoginState
    parameter: str
    headers: Headers


class ConsumedLogin(Struct, frozen=True):
    """The login that a callback belongs to, and the cookies that end it."""

    login: LoginState
    headers: Headers


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(LoginState)


class LoginStates:
    """Begins logins and finds them again."""

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

    # -- beginning

    def create(
        self,
        headers: Iterable[Header],
        *,
        host: str,
        provider: str,
        rd: str,
        redirect_uri: str,
        with_verifier: bool,
        again: bool = False,
    ) -> StartedLogin:
        """Start a login; the answer must carry the cookies that come with it.

        *again* marks one that takes the place of a login that was lost.
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
        room = self._clear_surplus(headers, host)
        parameter = self._parameter(state_hash, rd) + RESTART_MARKER * again
        return StartedLogin(login, parameter, (*room, *cookies))

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
        """Cookies that end the oldest logins, so that the new one has a slot."""
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
        """When a login began; what can't be read counts as the oldest."""
        try:
            return self._sealer.unseal(
                b"login:" + name, value, now=self._clock(), lifetime=0
            ).issued_at
        except SealError:
            return 0.0

    # -- finding again

    def restart_target(self, parameter: str) -> str | None:
        """Where a login whose state is lost was to lead, None: it is not begun again.

        A login is begun again once: then either this browser keeps no cookies, or
        somebody plays with it. Our own states do not tell where they lead.
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
        """The login that *parameter* belongs to, in this browser, once.

        Raises `LoginStateError` when the login is unknown here, too old, or was taken
        before.
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
                ended = self._writer(name).clear(host=host, present=())
                return ConsumedLogin(login, ended)
        raise LoginStateError("this browser has no login under way with this state")

    def _parse_parameter(self, parameter: str) -> tuple[bytes, str]:
        """The hash in the state parameter, and oauth2-proxy's rd behind it."""
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
            raise LoginStateError("the state is not one of ours")
        return state_hash.encode(), rd

    def _read(
        self, cookies: Sequence[tuple[bytes, bytes]], name: bytes, rd: str
    ) -> LoginState | None:
        value = next((value for known, value in cookies if known == name), None)
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
            raise LoginStateError("this login was finished before")
        if len(self._used) >= MAX_USED_STATES:
            del self._used[next(iter(self._used))]
        self._used[state_hash] = None


def _limit_rd(rd: str) -> str:
    """*rd*, without its query when it is too long, or home when it still is."""
    for target in (rd, rd.partition("#")[0], rd.partition("?")[0]):
        if len(target.encode("utf-8", "surrogateescape")) <= MAX_RD_BYTES:
            return target
    return "/"
