"""Options of session lifetimes, revocation and logout."""

from __future__ import annotations

from authproxy_core.settings.root import (
    CookieSettings,
    LogoutSettings,
    SessionSettings,
    Settings,
)

from .option import Option, in_group

SESSION_OPTIONS = in_group(
    "Sessions",
    Option(
        "session_cookie_minimal",
        "bool",
        False,
        "store no tokens in the session cookie; can't be used with options that need "
        "them",
        CookieSettings.minimal,
    ),
    Option(
        "session_cookie_max_parts",
        "int",
        10,
        "maximum number of cookies for one session",
        CookieSettings.max_parts,
        minimum=1,
        maximum=64,
        is_extension=True,
    ),
    Option(
        "session_idle_timeout",
        "duration",
        0.0,
        "end a session that was not used for this time; 0 disables it; the last use "
        "is recorded ten times per timeout, so a session may end up to a tenth "
        "earlier",
        SessionSettings.idle_timeout,
        is_extension=True,
    ),
    Option(
        "session_max_lifetime",
        "duration",
        0.0,
        "end a session this time after its login, regardless of refreshes; 0 disables "
        "it",
        SessionSettings.max_lifetime,
        is_extension=True,
    ),
    Option(
        "session_refresh_before",
        "duration",
        0.0,
        "refresh a session in the background this time before its access token "
        "expires; tokens with a shorter lifetime are refreshed at half of it; 0: only "
        "cookie_refresh applies",
        SessionSettings.refresh_before,
        is_extension=True,
    ),
    Option(
        "session_revocation",
        "bool",
        False,
        "check cookie sessions (and sessions written by oauth2-proxy) against the "
        "revocations in the store, so signed-out and revoked sessions are rejected; "
        "requires a store",
        SessionSettings.revocable,
        is_extension=True,
    ),
    Option(
        "sign_out_at_provider",
        "bool",
        False,
        "redirect to the provider's logout at sign-out (RP-Initiated Logout); the URL "
        "to return to must be registered at the provider",
        LogoutSettings.at_provider,
        is_extension=True,
    ),
    Option(
        "signed_out_page",
        "bool",
        False,
        "redirect to the page PREFIX/signed_out at a sign-out without rd, instead of the "
        "application, where the login would begin again",
        LogoutSettings.shows_page,
        is_extension=True,
    ),
    Option(
        "revoke_tokens_at_sign_out",
        "bool",
        False,
        "revoke the refresh token at the provider at sign-out (RFC 7009); Keycloak "
        "also ends the user's other sessions of this client",
        LogoutSettings.revokes_tokens,
        is_extension=True,
    ),
    Option(
        "backchannel_logout",
        "bool",
        False,
        "end sessions at PREFIX/backchannel-logout when the provider requests it "
        "(Back-Channel Logout); requires session_revocation or stored sessions",
        LogoutSettings.back_channel,
        is_extension=True,
    ),
    Option(
        "frontchannel_logout",
        "bool",
        False,
        "end the browser's session at PREFIX/frontchannel-logout, which the provider "
        "loads in an iframe (Front-Channel Logout)",
        LogoutSettings.front_channel,
        is_extension=True,
    ),
    Option(
        "session_cache_size",
        "int",
        16 << 20,
        "size of the cache of unsealed sessions in bytes, per worker; 0 disables it",
        Settings.session_cache_bytes,
        is_extension=True,
    ),
)
