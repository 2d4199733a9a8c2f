"""The options about Redis, as `RedisSettings`.

Addresses are URLs in the form that oauth2-proxy reads: ``redis://``, ``rediss://`` (TLS)
and ``unix://``, with ``user:password@``, ``/db`` and options behind a question mark.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from authproxy_core.settings.root import Secret

from ...server_settings import RedisAddress, RedisSettings
from ..read.resolved import ResolvedOptions
from ..read.values import parse_duration

# Options of URLs that oauth2-proxy's client knows. Those of its pool of connections and
# of its repetitions have no meaning here: one connection carries all that is asked.
WITHOUT_MEANING = frozenset(
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
TIMES = {
    "dial_timeout": "connect_timeout",
    "read_timeout": "answer_timeout",
    "write_timeout": "answer_timeout",
    "conn_max_idle_time": "idle_timeout",
    "idle_timeout": "idle_timeout",
}
WEB_FORM = "redis://HOST:PORT, rediss://HOST:PORT"
FORM = f"an address such as {WEB_FORM} or unix:///PATH"


class Address(NamedTuple):
    """What one URL says: where, and fields of `RedisSettings`."""

    address: RedisAddress
    fields: dict[str, Any]


def redis(collected: ResolvedOptions) -> RedisSettings:
    """The settings; problems are noted."""
    sentinel = collected.boolean("redis_use_sentinel")
    cluster = collected.boolean("redis_use_cluster")
    if sentinel and cluster:
        collected.add_problem(
            "redis_use_cluster", "can't be used together with redis_use_sentinel"
        )
    if sentinel:
        fields = _several(collected, "redis_sentinel_connection_urls")
        fields |= {
            "mode": "sentinel",
            "master_name": _needed(collected, "redis_sentinel_master_name"),
            "sentinel_password": Secret(collected.string("redis_sentinel_password")),
        }
    elif cluster:
        fields = _several(collected, "redis_cluster_connection_urls")
        fields |= {"mode": "cluster"}
    else:
        fields = _single(collected)
    return RedisSettings(**{**fields, **_overrides(collected)})


def _needed(collected: ResolvedOptions, key: str) -> str:
    text = collected.string(key)
    if not text:
        collected.add_problem(key, "missing; needed with redis_use_sentinel")
    return text


def _single(collected: ResolvedOptions) -> dict[str, Any]:
    key = "redis_connection_url"
    url = collected.string(key)
    if not url:
        collected.add_problem(key, f"missing; expected {FORM}")
        return {}
    found = _read(collected, key, url)
    return {} if found is None else {**found.fields, "addresses": (found.address,)}


def _several(collected: ResolvedOptions, key: str) -> dict[str, Any]:
    """The addresses of all URLs; user, password and TLS are the last one's."""
    urls = collected.strings(key)
    if not urls:
        collected.add_problem(key, "missing; at least one address is needed")
    found = [_read(collected, key, url) for url in urls]
    good = [one for one in found if one is not None]
    if any(one.address.path for one in good):
        collected.add_problem(
            key, f"unix sockets can't be used here, expected {WEB_FORM}"
        )
    last = good[-1].fields if good else {}
    kept = ("username", "password", "tls", "verify")
    return {
        "addresses": tuple(one.address for one in good),
        **{name: last[name] for name in kept if name in last},
    }


def _overrides(collected: ResolvedOptions) -> dict[str, Any]:
    """What options say beside the URLs."""
    fields: dict[str, Any] = {}
    if username := collected.string("redis_username"):
        fields["username"] = username
    if password := collected.string("redis_password"):
        fields["password"] = Secret(password)
    if idle := collected.integer("redis_connection_idle_timeout"):
        fields["idle_timeout"] = float(idle)
    if collected.boolean("redis_insecure_skip_tls_verify"):
        collected.add_warning(
            "redis_insecure_skip_tls_verify",
            "the certificate of Redis is not verified, so whoever is between may read "
            "and change sessions",
        )
        fields |= {"tls": True, "verify": False}
    if path := collected.string("redis_ca_path"):
        _check_authorities(collected, path)
        fields |= {"tls": True, "ca_file": path}
    return fields


def _check_authorities(collected: ResolvedOptions, path: str) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        collected.add_problem("redis_ca_path", f"{path} holds no PEM certificate")
    except OSError as error:
        collected.add_problem("redis_ca_path", f"can't read {path}: {error.strerror}")


def _read(collected: ResolvedOptions, key: str, url: str) -> Address | None:
    """What *url* says; None when it can't be read, which is noted."""
    try:
        return _parsed(collected, key, urlsplit(url))
    except ValueError as error:
        # Its text is ours or the parser's; a password is never part of it.
        collected.add_problem(key, f"{_reason(error)}; expected {FORM}")
        return None


class _BadUrl(ValueError):
    """Says what is wrong without a secret."""


def _reason(error: ValueError) -> str:
    return str(error) if isinstance(error, _BadUrl) else "an address can't be read"


def _parsed(collected: ResolvedOptions, key: str, parts: SplitResult) -> Address:
    fields: dict[str, Any] = {}
    if parts.username:
        fields["username"] = unquote(parts.username)
    if parts.password:
        fields["password"] = Secret(unquote(parts.password))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme == "unix":
        address = RedisAddress(path=unquote(parts.path))
        if not parts.path:
            raise _BadUrl("a path is missing behind unix://")
    elif parts.scheme in ("redis", "rediss"):
        address = RedisAddress(
            host=parts.hostname or "localhost", port=parts.port or 6379
        )
        options = _database_of(parts, options)
        fields |= {"tls": parts.scheme == "rediss"}
    else:
        raise _BadUrl(f"got the scheme {parts.scheme!r}")
    return Address(address, fields | _optional(collected, key, parts.scheme, options))


def _database_of(parts: SplitResult, options: dict[str, str]) -> dict[str, str]:
    """The options, with the number of the database that the path says."""
    number = parts.path.strip("/")
    return {**options, "db": number} if number else options


def _optional(
    collected: ResolvedOptions, key: str, scheme: str, options: Mapping[str, str]
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, text in options.items():
        if name == "db":
            if not (text.isascii() and text.isdigit()):
                raise _BadUrl(f"got the database {text!r}, expected a number")
            fields["db"] = int(text)
        elif name == "client_name":
            fields["client_name"] = text
        elif name in TIMES:
            if seconds := _seconds(name, text):
                fields[TIMES[name]] = seconds
        elif name == "skip_verify" and scheme == "rediss":
            fields["verify"] = text not in ("1", "true")
        elif name in WITHOUT_MEANING:
            collected.add_warning(key, f"the option {name} has no effect")
        else:
            raise _BadUrl(f"got the unknown option {name!r}")
    return fields


def _seconds(name: str, text: str) -> float:
    """A duration in Go's syntax or whole seconds; 0 when there is to be none."""
    try:
        digits = text.removeprefix("-")
        whole = digits.isascii() and digits.isdigit()
        return max(0.0, float(text) if whole else parse_duration(text))
    except ValueError:
        raise _BadUrl(f"got {name}={text!r}, expected a duration such as 5s") from None
