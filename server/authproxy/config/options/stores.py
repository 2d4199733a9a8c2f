"""Options of the session store and of state shared by workers."""

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
        "location of sessions: sealed cookies, or a store with tickets in cookies",
        ServerSettings.store,
        choices=("cookie", "redis", "sqlite"),
        note="sqlite is not in oauth2-proxy",
    ),
    Option(
        "sqlite_path",
        "string",
        "",
        "file of the SQLite store, shared by all workers of a host; empty: with "
        "cookie sessions, shared state is in a temporary file that is deleted at exit",
        StoreSettings.path,
        is_extension=True,
    ),
    Option(
        "shared_state",
        "string",
        "",
        "store for refresh locks and revocations of cookie sessions; empty: "
        "session_store_type, else sqlite if several workers, refreshes or revocations "
        "require it",
        ServerSettings.store,
        choices=("", "none", "sqlite", "redis"),
        is_extension=True,
    ),
    _redis(
        "redis_connection_url", "URL of Redis: redis://, rediss:// (TLS) or unix://"
    ),
    _redis("redis_username", "username at Redis; overrides the URL"),
    _redis("redis_password", "password at Redis; overrides the URL"),
    _redis(
        "redis_use_sentinel", "find the Redis master through sentinels", "bool", False
    ),
    _redis("redis_sentinel_password", "password at the sentinels"),
    _redis("redis_sentinel_master_name", "name of the master at the sentinels"),
    _redis("redis_sentinel_connection_urls", "URLs of the sentinels", "list", ()),
    _redis("redis_use_cluster", "use Redis Cluster", "bool", False),
    _redis("redis_cluster_connection_urls", "URLs of some cluster nodes", "list", ()),
    _redis(
        "redis_ca_path",
        "PEM file with CA certificates to trust for Redis, in addition to the "
        "system's; enables TLS",
    ),
    _redis(
        "redis_insecure_skip_tls_verify",
        "skip the verification of Redis' certificate (insecure); enables TLS",
        "bool",
        False,
    ),
    _redis(
        "redis_connection_idle_timeout",
        "close Redis connections that are idle for this number of seconds; 0 disables "
        "it",
        "int",
        0,
    ),
)
