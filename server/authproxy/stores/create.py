"""From settings to the store; what one kind needs is imported for that kind alone."""

from __future__ import annotations

from ..server_settings import StoreSettings
from .base import Store


def create(settings: StoreSettings, name: str) -> Store | None:
    """The store, not yet started; None when there is none.

    *name* is the cookie's, with which all keys begin.
    """
    match settings.kind:
        case "none":
            return None
        case "sqlite":
            from .sqlite import SqliteStore

            return SqliteStore(settings.path)
        case "redis":
            from .redis import RedisStore

            return RedisStore(settings.redis, name)
