"""New settings for a running server: what may change, and how they travel.

A reload has two steps, so that all workers change at once or none does: settings that
were read and checked are *prepared* (everything that can fail is made), and only when
every worker has said that it is ready do they *switch*, which is a few assignments.
Requests in flight keep what they began with.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from ssl import SSLContext
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from authproxy_core.errors import AuthProxyError, SettingsError
from authproxy_core.proxy import AuthProxy

from ..logs.logger import Logs
from ..net.tls import server_context
from ..server_settings import Listener, ServerSettings

# Reads the configuration again; raises `SettingsError`.
Rebuild: TypeAlias = Callable[[], ServerSettings]


class ConfigSource(NamedTuple):
    """The settings as they were read at the start, and what reads them again."""

    first: ServerSettings
    read: Rebuild


# What a reload changes; the sockets and what is connected to them stay.
RELOADABLE = frozenset(
    {
        "client",
        "core",
        "files",
        "limits",
        "listeners",
        "logs",
        "proxy_protocol_from",
        "reload_on_change",
        "request_id_header",
        "warnings",
    }
)
DISPLAY_NAMES = {
    "forward": "limits of upstream connections",
    "store": "the session store",
}
# Of the core's sessions; they go with the store, which is opened once, and which knows
# the cookie's name, for its keys begin with it.
STORE_BOUND_FIELDS = ("backend", "shared", "revocable")


class Candidate(NamedTuple):
    """Settings that may be switched to, and what is to be said about them."""

    settings: ServerSettings
    notes: tuple[str, ...]


class Prepared(Struct, frozen=True):
    """Everything that a worker makes from new settings before it switches to them.

    ``contexts`` go with the listeners.
    """

    settings: ServerSettings
    application: AuthProxy
    contexts: tuple[SSLContext | None, ...]
    client_context: SSLContext
    logs: Logs


def candidate(current: ServerSettings, source: ConfigSource) -> Candidate:
    """Read the configuration again; raises `SettingsError` with all its problems."""
    fresh = source.read()
    settings, fixed = merged(source.first, current, fresh)
    news = [text for text in fresh.warnings if text not in current.warnings]
    notes = [f"warning: {text}" for text in (*fixed, *news)]
    return Candidate(settings, tuple(notes))


def merged(
    first: ServerSettings, current: ServerSettings, fresh: ServerSettings
) -> tuple[ServerSettings, tuple[str, ...]]:
    """*fresh* with the *current* values of what only a restart can change.

    Also a sentence about each of these that is not as in *first*, which was read when
    the server started; *current* may have been completed since.
    """
    fixed = [name for name in fresh.__struct_fields__ if name not in RELOADABLE]
    changed = [name for name in fixed if getattr(fresh, name) != getattr(first, name)]
    kept = {name: getattr(current, name) for name in fixed}
    if list(map(_place, fresh.listeners)) != list(map(_place, first.listeners)):
        kept["listeners"] = current.listeners
        changed.append("listeners")
    if fresh.logs.file != current.logs.file:  # which is open
        kept["logs"] = replace(fresh.logs, file=current.logs.file)
        changed.append("logging_filename and its rotation")
    core = fresh.core
    sessions = core.sessions
    for name in STORE_BOUND_FIELDS:
        sessions = replace(sessions, **{name: getattr(current.core.sessions, name)})
    if sessions != core.sessions:
        changed.append("where sessions are kept")
    cookie = replace(core.cookie, name=current.core.cookie.name)
    if cookie != core.cookie:
        changed.append("cookie_name")
    kept["core"] = replace(core, sessions=sessions, cookie=cookie)
    notes = [
        f"{DISPLAY_NAMES.get(name, name)} can't be changed by a reload; restart for it"
        for name in changed
    ]
    return replace(fresh, **kept), tuple(notes)


def _place(listener: Listener) -> tuple[Listener, bool]:
    """What of a listener is bound to its socket: all but the contents of its TLS."""
    return replace(listener, tls=None), listener.tls is not None


def contexts(settings: ServerSettings) -> tuple[SSLContext | None, ...]:
    """The TLS contexts of the listeners; raises as `server_context`."""
    return tuple(
        server_context(listener.tls) if listener.tls is not None else None
        for listener in settings.listeners
    )


def error_lines(error: Exception) -> tuple[str, ...]:
    """Why settings can't be used, one line each."""
    if isinstance(error, SettingsError):
        return error.problems
    if isinstance(error, (AuthProxyError, OSError, KeyError, ValueError)):
        return (str(error),)
    return (repr(error),)


def serialize_settings(settings: ServerSettings) -> int:
    """A descriptor of a nameless file with *settings*, for the workers to read.

    In memory where the system can do that: there are secrets in it.
    """
    data = pickle.dumps(settings)
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("settings")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return descriptor


def deserialize_settings(descriptor: int) -> ServerSettings:
    """What `packed` wrote; closes the descriptor."""
    try:
        size = os.fstat(descriptor).st_size
        # Written by the supervisor, and passed on over a socket that only we have.
        settings = pickle.loads(os.pread(descriptor, size, 0))  # noqa: S301
    finally:
        os.close(descriptor)
    if not isinstance(settings, ServerSettings):
        raise TypeError("expected settings")
    return settings
