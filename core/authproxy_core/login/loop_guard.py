"""Detection of login loops: the browser never returns the session cookie.

With single sign-on every login succeeds at once, so the browser would be redirected
until it gives up. A second login of a user within seconds sets a cookie that counts
the logins; a loop is a counter above the threshold without a session. An ordinary
login sets no such cookie.

Logins are also repeated if they are denied and the gateway turns 403 into a redirect to
the sign-in page. The gateway may drop the cookies of that 403, so these logins are
counted per user and client: in the store that the processes share, else in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..effects import Flow, Load, Lock, Save
from ..errors import StoreError
from ..messages import Header, Headers
from ..sessions.cookies import CookieWriter, read_cookies
from ..sessions.sessions import Sessions
from ..settings.root import Settings

LOOP_COOKIE_SUFFIX = b"_loop_csrf"
REPEAT_WINDOW = 15.0  # seconds between two logins of one user that start the counter
COUNTER_TTL = 60.0  # seconds
LOOP_THRESHOLD = 3  # logins in a row without a session, or denied ones
SIGNED_IN_THRESHOLD = 5  # logins in a row that start with a valid session
SIGNED_IN_WINDOW = 5.0  # seconds between two of them; a human needs longer
MAX_COUNT = 9  # one digit
MAX_USERS = 2000  # the oldest are evicted


class LoginLoopDetector:
    """Counts logins per browser in a cookie, and logins per user in the store.

    An unavailable store hides the logins at other processes, and fails no login.
    """

    def __init__(
        self, settings: Settings, sessions: Sessions, clock: Callable[[], float]
    ) -> None:
        self.name = settings.cookie.name.encode() + LOOP_COOKIE_SUFFIX
        samesite = settings.cookie.csrf_samesite or settings.cookie.samesite
        self._writer = CookieWriter(self.name.decode(), settings.cookie, samesite)
        self._prefix = settings.cookie.name
        self._has_store = sessions.has_store
        self._key_hashes = sessions.formats.key_hashes
        self._clock = clock
        self._logged_in_at: dict[str, float] = {}
        self._repeated: dict[tuple[str, ...], tuple[int, float]] = {}

    def record_login(
        self, headers: Iterable[Header], user: str, client: str, host: str
    ) -> Flow[Headers]:
        """Record a successful login; return the counter cookie if it is a repeated one.

        *client* is the address of the client, *host* the original host.
        """
        now, key = self._clock(), f"{user} {client}"
        before = self._logged_in_at.pop(key, float("-inf"))
        if len(self._logged_in_at) >= MAX_USERS:
            del self._logged_in_at[next(iter(self._logged_in_at))]
        self._logged_in_at[key] = now
        count = self._read_count(headers)
        is_repeated = bool(count) or now - before <= REPEAT_WINDOW
        if not is_repeated and self._has_store:
            is_repeated = yield from self._is_repeated(user, client)
        if not is_repeated:
            return ()
        value = b"%d" % min(max(count, 1) + 1, MAX_COUNT)
        return self._writer.set(value, host=host, max_age=COUNTER_TTL)

    def login_count(self, headers: Iterable[Header]) -> int:
        """Return the counted logins of a browser in a loop; 0 below the threshold."""
        count = self._read_count(headers)
        return count if count >= LOOP_THRESHOLD else 0

    def count_denied(self, user: str, client: str) -> Flow[int]:
        """Count a denied login; return how many there were in a row."""
        return self._count(REPEAT_WINDOW, LOOP_THRESHOLD, "denied", user, client)

    def count_signed_in(self, user: str, client: str) -> Flow[int]:
        """Count a login that starts with a valid session; return how many in a row."""
        key = ("signed in", user, client)
        return self._count(SIGNED_IN_WINDOW, SIGNED_IN_THRESHOLD, *key)

    def _count(self, window: float, threshold: int, *key: str) -> Flow[int]:
        now = self._clock()
        count, last = self._repeated.pop(key, (0, 0.0))
        if len(self._repeated) >= MAX_USERS:
            del self._repeated[next(iter(self._repeated))]
        count = count + 1 if now - last <= window else 1
        self._repeated[key] = (count, now)
        # Above the threshold, a flood of requests causes no store operations.
        if count < threshold and self._has_store:
            try:
                shared = yield from self._count_shared(window, key)
            except StoreError:
                return count
            count = max(count, shared)
        return count

    def _count_shared(self, window: float, key: tuple[str, ...]) -> Flow[int]:
        """Count in the store; of concurrent logins, some may not be counted."""
        store_key = self._store_key(*key)
        value = yield from Load(store_key)
        count = int(value) + 1 if value and len(value) == 1 and value.isdigit() else 1
        yield from Save(store_key, b"%d" % min(count, MAX_COUNT), window)
        return count

    def _is_repeated(self, user: str, client: str) -> Flow[bool]:
        """Return whether the user logged in within `REPEAT_WINDOW`, at any process."""
        try:
            first = yield from Lock(
                self._store_key("login", user, client), REPEAT_WINDOW, 0.0
            )
        except StoreError:
            return False
        return not first

    def _store_key(self, *key: str) -> str:
        return f"{self._prefix}-loop:{self._key_hashes('loop', *key)[0]}"

    def clear_counter(self, host: str) -> Headers:
        """Return the cookie that clears the counter, so the next login is allowed."""
        return self._writer.clear(host=host, present=())

    def _read_count(self, headers: Iterable[Header]) -> int:
        return max(
            (
                int(value)
                for name, value in read_cookies(headers)
                if name == self.name and len(value) == 1 and value in b"123456789"
            ),
            default=0,
        )
