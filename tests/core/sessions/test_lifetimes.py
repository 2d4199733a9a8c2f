"""Session deadlines for all options, and the settings that exclude each other."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from authproxy_core import CookieSettings, SessionSettings, Settings, SettingsError
from authproxy_core.session import Session
from authproxy_core.sessions.lifetimes import MAX_LIFETIME, Lifetimes, SessionDeadlines
from authproxy_core.settings.root import LogoutSettings, check
from support.harness import settings

T = 1_790_000_000.0  # the login
HOUR = 3600.0


def lifetimes(**given: float) -> Lifetimes:
    cookie = {name: given.pop(name) for name in ("expire", "refresh") if name in given}
    return Lifetimes(
        Settings(
            cookie=CookieSettings(**({"expire": 0.0} | cookie)),
            sessions=SessionSettings(**given),
        )
    )


def session(**given: Any) -> Session:
    return Session(**({"created_at": T, "login_at": T, "refresh_token": "RT"} | given))


@pytest.mark.parametrize(
    ("options", "given", "refresh_from", "refresh_due", "touch_due", "ends"),
    [
        ({}, {}, inf, inf, inf, inf),
        ({"expire": 100}, {}, inf, inf, inf, 100),
        ({"expire": 100, "refresh": 60}, {}, 60, 60, inf, 100),
        # Without a refresh token, the session expires with its tokens.
        ({"refresh": 60}, {"refresh_token": ""}, inf, inf, inf, inf),
        (
            {"refresh": 60},
            {"refresh_token": "", "expires_at": T + 300},
            inf,
            inf,
            inf,
            300,
        ),
        ({}, {"refresh_token": "", "expires_at": T + 300}, inf, inf, inf, inf),
        # max_lifetime counts from the login, regardless of refreshes.
        (
            {"expire": 100, "max_lifetime": 150},
            {"created_at": T + 90},
            inf,
            inf,
            inf,
            150,
        ),
        # A refresh before the access token expires.
        ({"refresh_before": 30}, {"expires_at": T + 300}, 270, 300, inf, inf),
        ({"refresh_before": 30}, {}, inf, inf, inf, inf),
        # A token that lives shorter than refresh_before is refreshed at half time.
        ({"refresh_before": 900}, {"expires_at": T + 300}, 150, 300, inf, inf),
        (
            {"refresh_before": 30, "refresh": 60},
            {"expires_at": T + 300},
            60,
            60,
            inf,
            inf,
        ),
        (
            {"refresh_before": 30, "refresh": 600},
            {"expires_at": T + 300},
            270,
            300,
            inf,
            inf,
        ),
        # Idle timeout: ten touches per timeout.
        ({"idle_timeout": 600}, {}, inf, inf, 60, 600),
        ({"idle_timeout": 600}, {"last_used_at": T + 100}, inf, inf, 160, 700),
        ({"idle_timeout": 5}, {}, inf, inf, 1, 5),
    ],
)
def test_deadlines_of_all_options(
    options: dict[str, float],
    given: dict[str, Any],
    refresh_from: float,
    refresh_due: float,
    touch_due: float,
    ends: float,
) -> None:
    found = session(**given)
    deadlines = lifetimes(**options).deadlines(found, found.created_at)
    assert deadlines == SessionDeadlines(
        T + refresh_from, T + refresh_due, T + touch_due, T + ends
    )
    assert deadlines.fresh_until == T + min(refresh_from, touch_due, ends)


def test_max_age_ends_with_session() -> None:
    for stored in (False, True):
        life = lifetimes(expire=HOUR, max_lifetime=2 * HOUR)
        assert int(life.max_age(session(), T, stored=stored)) == HOUR
        late = session(created_at=T + 1.5 * HOUR)
        assert int(life.max_age(late, T + 1.5 * HOUR, stored=stored)) == HOUR / 2
        assert int(life.max_age(late, T + 9 * HOUR, stored=stored)) == 1
        without_expiry = lifetimes(max_lifetime=2 * HOUR)
        assert without_expiry.max_age(session(), T, stored=stored) == 0
    idle = lifetimes(expire=HOUR, idle_timeout=60)
    assert int(idle.max_age(session(), T, stored=False)) == 60
    assert int(idle.max_age(session(), T, stored=True)) == HOUR


def test_store_ttl_covers_remaining_lifetime() -> None:
    assert int(lifetimes(expire=HOUR).store_ttl(session(), T)) == HOUR
    assert lifetimes().store_ttl(session(), T) == MAX_LIFETIME
    assert int(lifetimes(max_lifetime=HOUR).store_ttl(session(), T + 60)) == HOUR - 60
    assert lifetimes().max_lifetime == MAX_LIFETIME
    assert lifetimes(expire=HOUR, max_lifetime=60).max_lifetime == 60


STORE = {"shared": True, "backend": "store"}


@pytest.mark.parametrize(
    ("cookie", "sessions", "logout", "problem"),
    [
        ({"minimal": True, "refresh": 60.0}, {}, {}, "session_cookie_minimal"),
        ({"minimal": True}, {"refresh_before": 60.0}, {}, "session_refresh_before"),
        ({}, {"idle_timeout": 9.0}, {}, "session_idle_timeout"),
        ({}, {"revocable": True}, {}, "session_revocation"),
        ({}, {"shared": True}, {"back_channel": True}, "backchannel_logout"),
        (
            {"format": "oauth2-proxy"},
            {"idle_timeout": 60.0},
            {},
            "session_idle_timeout",
        ),
        (
            {"format": "oauth2-proxy"},
            {"max_lifetime": 60.0},
            {},
            "session_max_lifetime",
        ),
        ({"minimal": True, "refresh": 60.0}, STORE, {}, ""),
        ({}, {"idle_timeout": 10.0, "max_lifetime": 60.0}, {}, ""),
        ({}, {"revocable": True, "shared": True}, {"back_channel": True}, ""),
        ({"format": "oauth2-proxy"}, STORE, {"back_channel": True}, ""),
        ({}, {}, {"front_channel": True, "at_provider": True}, ""),
    ],
)
def test_check_unsupported_settings_rejected(
    cookie: dict[str, Any],
    sessions: dict[str, Any],
    logout: dict[str, bool],
    problem: str,
) -> None:
    given = settings(
        cookie=cookie,
        sessions=SessionSettings(**sessions),
        logout=LogoutSettings(**logout),
        inject_response_headers=(),
    )
    if not problem:
        check(given)
        return
    with pytest.raises(SettingsError) as error:
        check(given)
    [line] = error.value.problems
    assert problem in line
