"""Rows of the option table: where sessions are kept, and what the workers share."""

from __future__ import annotations

from ...server_settings import ServerSettings, StoreSettings
from .option import Kind, Option, Value, in_group


def _redis(key: str, help_: str, kind: Kind = "string", default: Value = "") -> Option:
    secret = "password" in key or "url" in key
    return Option(key, kind, default, help_, StoreSettings.redis, secret=secret)


STORE_OPTIONS = in_group(
    "Session store",
    Option(
        "session_store_type",
        "string",
        "cookie",
        "where sessions are kept: in cookies, or in a store while cookies hold tickets",
        ServerSettings.store,
        choices=("cookie", "redis", "sqlite"),
        note="sqlite is not in oauth2-proxy",
    ),
    Option(
        "sqlite_path",
        "string",
        "",
        "file of the embedded store, shared by the workers of one machine; without one, "
        "what they share for cookie sessions is kept as long as the server runs",
        StoreSettings.path,
        is_extension=True,
    ),
    Option(
        "shared_state",
        "string",
        "",
        "where workers keep what they share about cookie sessions (who refreshes one, "
        "renewed and revoked ones); empty means redis or sqlite as session_store_type, "
        "else sqlite with several workers or with cookie_refresh",
        ServerSettings.store,
        choices=("", "none", "sqlite", "redis"),
        is_extension=True,
    ),
    _redis("redis_connection_url", "address of Redis: redis://, rediss:// or unix://"),
    _redis("redis_username", "user name at Redis, instead of the address's"),
    _redis("redis_password", "password at Redis, instead of the address's"),
    _redis("redis_use_sentinel", "find Redis through sentinels", "bool", False),
    _redis("redis_sentinel_password", "password at the sentinels"),
    _redis("redis_sentinel_master_name", "name of the master at the sentinels"),
    _redis("redis_sentinel_connection_urls", "addresses of the sentinels", "list", ()),
    _redis("redis_use_cluster", "Redis is a cluster", "bool", False),
    _redis("redis_cluster_connection_urls", "addresses of the cluster", "list", ()),
    _redis(
        "redis_ca_path",
        "PEM file of authorities for Redis, beside the system's; switches TLS on",
    ),
    _redis(
        "redis_insecure_skip_tls_verify",
        "do not verify the certificate of Redis; switches TLS on",
        "bool",
        False,
    ),
    _redis(
        "redis_connection_idle_timeout",
        "seconds that a connection to Redis may idle; 0 means for ever",
        "int",
        0,
    ),
)
