"""Create the store that the settings name; import only its modules."""

from __future__ import annotations

from ..server_settings import StoreSettings
from .base import Store


def create(settings: StoreSettings, name: str) -> Store | None:
    """Return the store, not yet started; None if the settings name no store.

    *name* is the name of the session cookie, the prefix of all keys.
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
