"""Where sessions are kept, and what the workers share."""

from __future__ import annotations

import os
from typing import Any

from authproxy_core.settings.root import SessionSettings

from ...server_settings import StoreSettings
from ..options.table import OPTIONS
from ..read.resolved import ResolvedOptions
from .redis import redis

FOR_REDIS = "only read when session_store_type or shared_state is redis"
FOR_SQLITE = "only read when session_store_type or shared_state is sqlite"


def store(collected: ResolvedOptions) -> StoreSettings:
    """The store, if there is to be one."""
    kind = _kind(collected)
    _warn_of_unread(collected, kind)
    match kind:
        case "sqlite":
            return StoreSettings(kind="sqlite", path=_path(collected))
        case "redis":
            return StoreSettings(kind="redis", redis=redis(collected))
    return StoreSettings()


def _kind(collected: ResolvedOptions) -> str:
    kept_in = collected.string("session_store_type")
    shared = collected.string("shared_state")
    if kept_in == "cookie":
        return shared or ("sqlite" if _is_needed(collected) else "none")
    if shared not in ("", kept_in):
        collected.add_problem(
            "shared_state",
            f"got {shared!r}, but sessions are kept in {kept_in}, which is shared",
        )
    return kept_in


def _is_needed(collected: ResolvedOptions) -> bool:
    """Whether cookie sessions need something that outlives a worker.

    Several workers must not refresh one session at the same time, and a session that
    was ended at one of them has ended for all.
    """
    several = collected.integer("workers") != 1
    return (
        several
        or bool(collected.seconds("cookie_refresh"))
        or bool(collected.seconds("session_refresh_before"))
        or collected.boolean("session_revocation")
        or not collected.is_default("sqlite_path")
    )


def _path(collected: ResolvedOptions) -> str:
    key = "sqlite_path"
    path = collected.string(key)
    if not path:
        if collected.string("session_store_type") == "sqlite":
            collected.add_problem(key, "missing; expected a file for the sessions")
        return ""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        collected.add_problem(key, f"{path} is a folder, expected a file")
    elif not os.path.isdir(os.path.dirname(path)):
        collected.add_problem(key, f"the folder {os.path.dirname(path)} does not exist")
    return path


def _warn_of_unread(collected: ResolvedOptions, kind: str) -> None:
    for option in OPTIONS:
        key = option.key
        if collected.is_default(key) or key in collected.failed:
            continue
        if key.startswith("redis_") and kind != "redis":
            collected.add_warning(key, f"has no effect: {FOR_REDIS}")
        elif key == "sqlite_path" and kind != "sqlite":
            collected.add_warning(key, f"has no effect: {FOR_SQLITE}")


def sessions(
    collected: ResolvedOptions, plain: dict[str, Any], kind: str
) -> SessionSettings:
    """The core's part; *plain* holds the fields that are options as they are."""
    in_cookies = collected.string("session_store_type") == "cookie"
    return SessionSettings(
        **{
            **plain,
            "backend": "cookie" if in_cookies else "store",
            "shared": kind != "none",
        }
    )
