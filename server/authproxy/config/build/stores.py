"""Build the settings of the session store and of the state that workers share."""

from __future__ import annotations

import os
from typing import Any

from authproxy_core.settings import SessionSettings

from ...server_settings import StoreSettings
from ..options.table import OPTIONS
from ..read.resolved import ResolvedOptions
from .redis import build_redis


def build_store(options: ResolvedOptions) -> StoreSettings:
    """Build the store; its kind is "none" if sessions and workers need no store."""
    kind = _store_kind(options)
    _warn_unused_options(options, kind)
    match kind:
        case "sqlite":
            return StoreSettings(kind="sqlite", path=_sqlite_path(options))
        case "redis":
            return StoreSettings(kind="redis", redis=build_redis(options))
    return StoreSettings()


def _store_kind(options: ResolvedOptions) -> str:
    backend = options.string("session_store_type")
    shared = options.string("shared_state")
    if backend == "cookie":
        return shared or ("sqlite" if _needs_shared_state(options) else "none")
    if shared not in ("", backend):
        options.add_problem(
            "shared_state",
            f"got {shared!r}, expected {backend!r} as in session_store_type",
        )
    return backend


def _needs_shared_state(options: ResolvedOptions) -> bool:
    """Return whether cookie sessions need state outside of a worker.

    Workers must not refresh the same session at once, and must know the sessions that
    another worker revoked.
    """
    several = options.integer("workers") != 1
    return (
        several
        or bool(options.seconds("cookie_refresh"))
        or bool(options.seconds("session_refresh_before"))
        or options.boolean("session_revocation")
        or not options.is_default("sqlite_path")
    )


def _sqlite_path(options: ResolvedOptions) -> str:
    key = "sqlite_path"
    path = options.string(key)
    if not path:
        if options.string("session_store_type") == "sqlite":
            options.add_problem(key, "missing; expected a file for the sessions")
        return ""
    path = os.path.abspath(path)
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        options.add_problem(key, f"{path} is a directory, expected a file")
    elif not os.path.isdir(directory):
        options.add_problem(key, f"no directory {directory}")
    elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
        options.add_problem(key, f"no permission to write {path}")
    return path


def _warn_unused_options(options: ResolvedOptions, kind: str) -> None:
    for option in OPTIONS:
        key = option.key
        if options.is_default(key) or key in options.failed:
            continue
        if key.startswith("redis_"):
            required = "redis"
        elif key == "sqlite_path":
            required = "sqlite"
        else:
            continue
        if kind != required:
            options.add_warning(
                key,
                "has no effect: only read if session_store_type or shared_state is "
                f"{required}",
            )


def build_sessions(
    options: ResolvedOptions, fields: dict[str, Any], kind: str
) -> SessionSettings:
    """Build the core's settings of sessions for a store of *kind*.

    *fields* are the values of the options set unchanged.
    """
    in_cookies = options.string("session_store_type") == "cookie"
    return SessionSettings(
        **{
            **fields,
            "backend": "cookie" if in_cookies else "store",
            "shared": kind != "none",
        }
    )
