"""Build `RedisSettings` from the Redis options and URLs.

URLs have the form that oauth2-proxy accepts: ``redis://``, ``rediss://`` (TLS) and
``unix://``, with ``user:password@``, ``/db`` and a query of further options.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from authproxy_core.settings import Secret

from ...server_settings import RedisAddress, RedisSettings
from ..read.resolved import ResolvedOptions
from ..read.values import parse_duration

# Query options of oauth2-proxy's Redis client that have no effect: each worker
# pipelines all commands on one connection, so there is no pool.
IGNORED_OPTIONS = frozenset(
    [
        "protocol",
        "max_retries",
        "min_retry_backoff",
        "max_retry_backoff",
        "pool_fifo",
        "pool_size",
        "pool_timeout",
        "min_idle_conns",
        "max_idle_conns",
        "max_active_conns",
        "max_concurrent_dials",
        "conn_max_lifetime",
        "max_conn_age",
        "conn_max_lifetime_jitter",
    ]
)
TIMEOUT_FIELDS = {
    "dial_timeout": "connect_timeout",
    "read_timeout": "response_timeout",
    "write_timeout": "response_timeout",
    "conn_max_idle_time": "idle_timeout",
    "idle_timeout": "idle_timeout",
}
TCP_FORM = "redis://HOST:PORT, rediss://HOST:PORT"
FORM = f"a URL such as {TCP_FORM} or unix:///PATH"


class ParsedUrl(NamedTuple):
    """The address of one URL, and its other fields of `RedisSettings`."""

    address: RedisAddress
    fields: dict[str, Any]


def build_redis(options: ResolvedOptions) -> RedisSettings:
    """Build the settings; the ``redis_*`` options override the URLs."""
    sentinel = options.boolean("redis_use_sentinel")
    cluster = options.boolean("redis_use_cluster")
    if sentinel and cluster:
        options.add_problem(
            "redis_use_cluster", "can't be used with redis_use_sentinel"
        )
    if sentinel:
        fields = _fields_of_urls(options, "redis_sentinel_connection_urls")
        fields |= {
            "mode": "sentinel",
            "master_name": _master_name(options),
            "sentinel_password": Secret(options.string("redis_sentinel_password")),
        }
    elif cluster:
        fields = _fields_of_urls(options, "redis_cluster_connection_urls")
        fields |= {"mode": "cluster"}
    else:
        fields = _fields_of_single_url(options)
    return RedisSettings(**{**fields, **_overrides(options)})


def _master_name(options: ResolvedOptions) -> str:
    key = "redis_sentinel_master_name"
    name = options.string(key)
    if not name:
        options.add_problem(key, "missing; required by redis_use_sentinel")
    return name


def _fields_of_single_url(options: ResolvedOptions) -> dict[str, Any]:
    key = "redis_connection_url"
    url = options.string(key)
    if not url:
        options.add_problem(key, f"missing; expected {FORM}")
        return {}
    parsed = _parse_url(options, key, url)
    return {} if parsed is None else {**parsed.fields, "addresses": (parsed.address,)}


def _fields_of_urls(options: ResolvedOptions, key: str) -> dict[str, Any]:
    """Return the addresses of all URLs, and the credentials and TLS of the last one."""
    urls = options.strings(key)
    if not urls:
        options.add_problem(key, "missing; expected at least one URL")
    parsed = [
        result for url in urls if (result := _parse_url(options, key, url)) is not None
    ]
    if any(result.address.path for result in parsed):
        options.add_problem(key, f"unix sockets are not supported, expected {TCP_FORM}")
    last = parsed[-1].fields if parsed else {}
    names = ("username", "password", "tls", "verify")
    return {
        "addresses": tuple(result.address for result in parsed),
        **{name: last[name] for name in names if name in last},
    }


def _overrides(options: ResolvedOptions) -> dict[str, Any]:
    """Return the fields of the options that override the URLs."""
    fields: dict[str, Any] = {}
    if username := options.string("redis_username"):
        fields["username"] = username
    if password := options.string("redis_password"):
        fields["password"] = Secret(password)
    if idle := options.integer("redis_connection_idle_timeout"):
        fields["idle_timeout"] = float(idle)
    if options.boolean("redis_insecure_skip_tls_verify"):
        options.add_warning(
            "redis_insecure_skip_tls_verify",
            "the certificate of Redis is not verified: sessions can be read and changed "
            "in transit",
        )
        fields |= {"tls": True, "verify": False}
    if path := options.string("redis_ca_path"):
        _check_ca_file(options, path)
        fields |= {"tls": True, "ca_file": path}
    return fields


def _check_ca_file(options: ResolvedOptions, path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        options.add_problem("redis_ca_path", f"{path} contains no PEM certificate")
    except OSError as error:
        options.add_problem("redis_ca_path", f"can't read {path}: {error.strerror}")


def _parse_url(options: ResolvedOptions, key: str, url: str) -> ParsedUrl | None:
    """Parse *url*; None if it is invalid, which is added as a problem of *key*."""
    try:
        return _parse_parts(options, key, urlsplit(url))
    except _UrlError as error:
        reason = str(error)
    except ValueError:  # from the parser, whose text may quote a password
        reason = "malformed URL"
    options.add_problem(key, f"{reason}; expected {FORM}")
    return None


class _UrlError(ValueError):
    """An invalid URL; the message contains no secret."""


def _parse_parts(options: ResolvedOptions, key: str, parts: SplitResult) -> ParsedUrl:
    fields: dict[str, Any] = {}
    if parts.username:
        fields["username"] = unquote(parts.username)
    if parts.password:
        fields["password"] = Secret(unquote(parts.password))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "unix":
        address = RedisAddress(path=unquote(parts.path))
        if not parts.path:
            raise _UrlError("no path after unix://")
    elif parts.scheme in ("redis", "rediss"):
        address = RedisAddress(
            host=parts.hostname or "localhost", port=parts.port or 6379
        )
        if number := parts.path.strip("/"):
            query["db"] = number
        fields |= {"tls": parts.scheme == "rediss"}
    else:
        raise _UrlError(f"got the scheme {parts.scheme!r}")
    return ParsedUrl(address, fields | _query_fields(options, key, parts.scheme, query))


def _query_fields(
    options: ResolvedOptions, key: str, scheme: str, query: Mapping[str, str]
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, text in query.items():
        if name == "db":
            if not (text.isascii() and text.isdigit()):
                raise _UrlError(f"got the database {text!r}, expected a number")
            fields["db"] = int(text)
        elif name == "client_name":
            fields["client_name"] = text
        elif name in TIMEOUT_FIELDS:
            if seconds := _parse_timeout(name, text):
                fields[TIMEOUT_FIELDS[name]] = seconds
        elif name == "skip_verify" and scheme == "rediss":
            fields["verify"] = text not in ("1", "true")
        elif name in IGNORED_OPTIONS:
            options.add_warning(key, f"the URL option {name} has no effect")
        else:
            raise _UrlError(f"got the unknown URL option {name!r}")
    return fields


def _parse_timeout(name: str, text: str) -> float:
    """Return the seconds of a duration or an integer; 0 if it is negative."""
    try:
        digits = text.removeprefix("-")
        whole = digits.isascii() and digits.isdigit()
        return max(0.0, float(text) if whole else parse_duration(text))
    except ValueError:
        raise _UrlError(
            f"got {name}={text!r}, expected a duration such as 5s"
        ) from None
