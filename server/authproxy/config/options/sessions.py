"""Rows of the option table: how long sessions live, and how they end."""

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
        "leave the tokens out of the session cookie",
        CookieSettings.minimal,
    ),
    Option(
        "session_cookie_max_parts",
        "int",
        10,
        "how many cookies a session may be split over",
        CookieSettings.max_parts,
        minimum=1,
        maximum=64,
        is_extension=True,
    ),
    Option(
        "session_idle_timeout",
        "duration",
        0.0,
        "end a session that was not used for so long; 0 means never. Use is noted ten "
        "times in that time, so a session may end a tenth earlier",
        SessionSettings.idle_timeout,
        is_extension=True,
    ),
    Option(
        "session_max_lifetime",
        "duration",
        0.0,
        "end a session so long after its login, however often it was refreshed; 0 means "
        "never",
        SessionSettings.max_lifetime,
        is_extension=True,
    ),
    Option(
        "session_refresh_before",
        "duration",
        0.0,
        "refresh a session so long before its access token ends, by one request while "
        "others go on; tokens that are shorter are refreshed at half of their life. 0 "
        "means that only cookie_refresh counts",
        SessionSettings.refresh_before,
        is_extension=True,
    ),
    Option(
        "session_revocation",
        "bool",
        False,
        "refuse sessions in cookies (and those that oauth2-proxy wrote) that were signed "
        "out or revoked: each is looked up in the store when it is first seen",
        SessionSettings.revocable,
        is_extension=True,
    ),
    Option(
        "sign_out_at_provider",
        "bool",
        False,
        "signing out goes on to the provider's own logout (RP-Initiated Logout); the "
        "address to come back to has to be registered there",
        LogoutSettings.at_provider,
        is_extension=True,
    ),
    Option(
        "revoke_tokens_at_sign_out",
        "bool",
        False,
        "signing out revokes the refresh token at the provider (RFC 7009); with Keycloak "
        "that ends the user's other sessions of this client as well",
        LogoutSettings.revokes_tokens,
        is_extension=True,
    ),
    Option(
        "backchannel_logout",
        "bool",
        False,
        "end sessions when the provider says so (Back-Channel Logout) at "
        "PREFIX/backchannel-logout; needs session_revocation, or sessions in a store",
        LogoutSettings.back_channel,
        is_extension=True,
    ),
    Option(
        "frontchannel_logout",
        "bool",
        False,
        "end the browser's session in the provider's iframe (Front-Channel Logout) at "
        "PREFIX/frontchannel-logout",
        LogoutSettings.front_channel,
        is_extension=True,
    ),
    Option(
        "session_cache_size",
        "int",
        16 << 20,
        "bytes of unsealed sessions kept in memory, per worker; 0 disables the cache",
        Settings.session_cache_bytes,
        is_extension=True,
    ),
)
