"""Detection of login loops: the browser never returns the session cookie.

With single sign-on every login succeeds at once, so the browser would be redirected
until it gives up. A second login of a user within seconds sets a cookie that counts
the logins; a loop is a counter above the threshold without a session. An ordinary
login sets no such cookie.

Logins are also repeated if they are denied and the gateway turns 403 into a redirect to
the sign-in page. The gateway may drop the cookies of that 403, so these logins are
counted in memory, per user and client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..messages import Header, Headers
from ..sessions.cookies import CookieWriter, read_cookies
from ..settings.root import Settings

LOOP_COOKIE_SUFFIX = b"_loop_csrf"
REPEAT_WINDOW = 15.0  # seconds between two logins of one user that start the counter
COUNTER_TTL = 60.0  # seconds
LOOP_THRESHOLD = 3  # logins in a row without a session, or denied ones
SIGNED_IN_THRESHOLD = 5  # logins in a row that start with a valid session
SIGNED_IN_WINDOW = 5.0  # seconds between two of them; a human needs longer
MAX_USERS = 2000  # the oldest are evicted


class LoginLoopDetector:
    """Counts logins per browser in a cookie, and caches the last login per user."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.name = settings.cookie.name.encode() + LOOP_COOKIE_SUFFIX
        samesite = settings.cookie.csrf_samesite or settings.cookie.samesite
        self._writer = CookieWriter(self.name.decode(), settings.cookie, samesite)
        self._clock = clock
        self._logged_in_at: dict[str, float] = {}
        self._repeated: dict[tuple[str, ...], tuple[int, float]] = {}

    def record_login(
        self, headers: Iterable[Header], user: str, client: str, host: str
    ) -> Headers:
        """Record a successful login; return the counter cookie if it is a repeated one.

        *client* is the address of the client, *host* the original host.
        """
        now, key = self._clock(), f"{user} {client}"
        before = self._logged_in_at.pop(key, float("-inf"))
        if len(self._logged_in_at) >= MAX_USERS:
            del self._logged_in_at[next(iter(self._logged_in_at))]
        self._logged_in_at[key] = now
        count = self._read_count(headers)
        if not count and now - before > REPEAT_WINDOW:
            return ()
        value = b"%d" % min(max(count, 1) + 1, 9)
        return self._writer.set(value, host=host, max_age=COUNTER_TTL)

    def login_count(self, headers: Iterable[Header]) -> int:
        """Return the counted logins of a browser in a loop; 0 below the threshold."""
        count = self._read_count(headers)
        return count if count >= LOOP_THRESHOLD else 0

    def count_denied(self, user: str, client: str) -> int:
        """Count a denied login; return how many there were in a row."""
        return self._count(REPEAT_WINDOW, "denied", user, client)

    def count_signed_in(self, user: str, client: str) -> int:
        """Count a login that starts with a valid session; return how many in a row."""
        return self._count(SIGNED_IN_WINDOW, "signed in", user, client)

    def _count(self, window: float, *key: str) -> int:
        now = self._clock()
        count, last = self._repeated.pop(key, (0, 0.0))
        if len(self._repeated) >= MAX_USERS:
            del self._repeated[next(iter(self._repeated))]
        count = count + 1 if now - last <= window else 1
        self._repeated[key] = (count, now)
        return count

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
