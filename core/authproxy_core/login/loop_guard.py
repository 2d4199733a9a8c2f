"""A browser that logs in again and again, because its session never comes back.

With single sign-on each login succeeds at once, so it would go round until the browser
gives up without a word. Whoever logs in a second time within seconds gets a cookie that
counts from then on; when that comes back and the session still does not, it is a loop.
Nothing is set in a usual login.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..messages import Header, Headers
from ..sessions.cookies import CookieWriter, read_cookies
from ..settings.root import Settings

LOOP_COOKIE_SUFFIX = b"_loop_csrf"  # of the cookie's name, which is one of our own
REPEAT_WINDOW = 15.0  # seconds between two logins of one user that look odd
COUNTER_TTL = 60.0  # seconds that the cookie counts
LOOP_THRESHOLD = 3  # logins, each without a session after it
MAX_USERS = 2000  # users; the oldest are forgotten


class LoginLoopDetector:
    """Notices loops; its memory is only what sets a cookie a login earlier."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self.name = settings.cookie.name.encode() + LOOP_COOKIE_SUFFIX
        samesite = settings.cookie.csrf_samesite or settings.cookie.samesite
        self._writer = CookieWriter(self.name.decode(), settings.cookie, samesite)
        self._clock = clock
        self._logged_in_at: dict[str, float] = {}

    def record_login(
        self, headers: Iterable[Header], user: str, client: str, host: str
    ) -> Headers:
        """Note a login that succeeded; the cookie that counts it, if it looks odd."""
        now, who = self._clock(), f"{user} {client}"
        before = self._logged_in_at.pop(who, float("-inf"))
        if len(self._logged_in_at) >= MAX_USERS:
            del self._logged_in_at[next(iter(self._logged_in_at))]
        self._logged_in_at[who] = now
        count = self._read_count(headers)
        if not count and now - before > REPEAT_WINDOW:
            return ()
        value = b"%d" % min(max(count, 1) + 1, 9)
        return self._writer.set(value, host=host, max_age=COUNTER_TTL)

    def login_count(self, headers: Iterable[Header]) -> int:
        """How many logins a browser has behind it that begins another; 0: no loop."""
        count = self._read_count(headers)
        return count if count >= LOOP_THRESHOLD else 0

    def clear_counter(self, host: str) -> Headers:
        """The cookie that ends counting, so that the next try is a fresh one."""
        return self._writer.clear(host=host, present=())

    def _read_count(self, headers: Iterable[Header]) -> int:
        value = dict(read_cookies(headers)).get(self.name, b"")
        return int(value) if len(value) == 1 and value in b"123456789" else 0
