"""Create the store that the settings name; import only its modules."""

from __future__ import annotations

from collections.abc import Callable

from ..server_settings import StoreSettings
from .base import Store


def create(settings: StoreSettings, name: str) -> Store | None:
    """Return the store, not yet started; None if the settings name no store.

    *name* is the name of the session cookie, the prefix of all keys.
    """
    factory = store_factory(settings)
    return factory(settings, name) if factory is not None else None


def store_factory(
    settings: StoreSettings,
) -> Callable[[StoreSettings, str], Store] | None:
    """Import the store that *settings* name, and return what creates it."""
    match settings.kind:
        case "sqlite":
            from .sqlite import SqliteStore

            return lambda settings, _: SqliteStore(settings.path)
        case "redis":
            from .redis import RedisStore

            return lambda settings, name: RedisStore(settings.redis, name)
    return None
