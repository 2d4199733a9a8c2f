"""Settings for a reload: which of them may change, and how they reach the workers.

A reload is a two-phase commit, so that all workers change together or none changes.
Each worker *prepares* the checked settings, which is everything that can fail. When all
workers are prepared, each *commits*, which is a few assignments. Requests in flight
keep the settings that they started with.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from ssl import SSLContext
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from authproxy_core.errors import AuthProxyError, SettingsError
from authproxy_core.proxy import AuthProxy
from authproxy_core.settings.root import Settings

from ..logs.logger import Logs
from ..net.tls import ListenerContext, server_context
from ..server_settings import Listener, ServerSettings

WATCH_INTERVAL = 1.0  # seconds between two polls of the watched files
FAILED = "reload failed, the old configuration stays in effect:"
NO_SOURCE = "reload ignored: no configuration to reload"
RELOADED = "configuration reloaded"
DISPLAY_NAMES = {
    "forward": "upstream connection limits",
    "store": "session store",
    "tracing": "traces",
}

# Reads the configuration again; raises `SettingsError`.
Rebuild: TypeAlias = Callable[[], ServerSettings]


class ConfigSource(NamedTuple):
    """The settings read at the start, and the function that reads them again."""

    first: ServerSettings
    read: Rebuild


class Candidate(NamedTuple):
    """Settings for a reload, and the warnings to log once they are in effect."""

    settings: ServerSettings
    warnings: tuple[str, ...]


class PreparedReload(Struct, frozen=True):
    """Everything that a worker builds from new settings before it commits them.

    ``contexts`` has one entry for each listener, None without TLS.
    """

    settings: ServerSettings
    application: AuthProxy
    contexts: tuple[ListenerContext | None, ...]
    client_context: SSLContext
    logs: Logs


def read_candidate(current: ServerSettings, source: ConfigSource) -> Candidate:
    """Read the configuration again; raises `SettingsError` with all its problems."""
    fresh = source.read()
    settings, fixed = merge_settings(source.first, current, fresh)
    added = [text for text in fresh.warnings if text not in current.warnings]
    return Candidate(settings, (*fixed, *added))


def merge_settings(
    first: ServerSettings, current: ServerSettings, fresh: ServerSettings
) -> tuple[ServerSettings, tuple[str, ...]]:
    """Return the *current* settings updated by the reloadable ones of *fresh*.

    Sockets, and the connections behind them, stay. The second result has a warning for
    each setting that differs from *first* but requires a restart. *first* was read at
    the start; *current* may have been completed since.
    """
    merged = replace(
        current,
        client=fresh.client,
        core=fresh.core,
        files=fresh.files,
        limits=fresh.limits,
        listeners=fresh.listeners,
        logs=fresh.logs,
        proxy_protocol_from=fresh.proxy_protocol_from,
        reload_on_change=fresh.reload_on_change,
        request_id_header=fresh.request_id_header,
        warnings=fresh.warnings,
    )
    fixed = [
        DISPLAY_NAMES.get(name, name)
        for name in fresh.__struct_fields__
        if getattr(fresh, name) != getattr(first, name)
        and getattr(fresh, name) != getattr(merged, name)
    ]
    if list(map(_socket_of, fresh.listeners)) != list(map(_socket_of, first.listeners)):
        merged = replace(merged, listeners=current.listeners)
        fixed.append("listeners")
    if fresh.logs.file != current.logs.file:  # the open file
        merged = replace(merged, logs=replace(fresh.logs, file=current.logs.file))
        fixed.append("logging_filename and its rotation")
    core, fixed_of_core = _merge_core(current.core, fresh.core)
    notes = [
        f"{name}: a change requires a restart; the old value stays in effect"
        for name in (*fixed, *fixed_of_core)
    ]
    return replace(merged, core=core), tuple(notes)


def _merge_core(current: Settings, fresh: Settings) -> tuple[Settings, list[str]]:
    """Return *fresh* with the values bound to the open store; and what that changed.

    The cookie's name is one of them, because it is the prefix of the store's keys.
    """
    fixed = []
    bound = current.sessions
    sessions = replace(
        fresh.sessions,
        backend=bound.backend,
        shared=bound.shared,
        revocable=bound.revocable,
    )
    if sessions != fresh.sessions:
        fixed.append("session backend or shared store")
    cookie = replace(fresh.cookie, name=current.cookie.name)
    if cookie != fresh.cookie:
        fixed.append("cookie_name")
    return replace(fresh, sessions=sessions, cookie=cookie), fixed


def _socket_of(listener: Listener) -> tuple[Listener, bool]:
    """Return the part of *listener* that the open socket fixes: not the TLS files."""
    return replace(listener, tls=None), listener.tls is not None


def listener_contexts(settings: ServerSettings) -> tuple[ListenerContext | None, ...]:
    """Return the TLS context of each listener; raises as `server_context`."""
    return tuple(
        server_context(listener.tls) if listener.tls is not None else None
        for listener in settings.listeners
    )


def error_lines(error: BaseException) -> tuple[str, ...]:
    """Return the problems that *error* reports, one line each."""
    if isinstance(error, SettingsError):
        return error.problems
    if isinstance(error, (AuthProxyError, OSError, KeyError, ValueError)):
        return (str(error),)
    return (repr(error),)


def serialize_settings(settings: ServerSettings) -> int:
    """Write *settings* to an anonymous file; returns its descriptor.

    The file is in memory if the system supports that, because it contains secrets.
    """
    import pickle  # not needed before a reload

    data = pickle.dumps(settings)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("settings")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def deserialize_settings(descriptor: int) -> ServerSettings:
    """Read the settings that `serialize_settings` wrote; closes *descriptor*.

    Raises `TypeError` if the file contains another object.
    """
    import pickle

    try:
        size = os.fstat(descriptor).st_size
        # Trusted: the supervisor writes it and sends it over a private socket pair.
        settings = pickle.loads(os.pread(descriptor, size, 0))  # noqa: S301
    finally:
        os.close(descriptor)
    if not isinstance(settings, ServerSettings):
        raise TypeError("expected ServerSettings")
    return settings
