"""``authproxy sessions``: list, show and revoke the sessions of a deployment.

The command uses the store of the running servers, with their configuration; the store
notifies them of changes. Tokens are not in the session index, so they are never shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from authproxy_core.drive import drive
from authproxy_core.errors import StoreError
from authproxy_core.sessions.index import RevocationResult, SessionIndex, SessionInfo

from ..config.read.resolved import UsageError
from ..config.read.sources import requests_help
from ..net.idp_client import HttpClient
from ..serve.performer import Performer
from ..server_settings import ServerSettings
from ..stores.base import MAX_MEMBERS, Store
from ..stores.create import create

ACTIONS = ("list", "show", "revoke")
USAGE = (
    "usage: authproxy sessions list [--user USER] [--sid SID] [--json] --config FILE",
    "       authproxy sessions show (--user USER | --sid SID) --config FILE",
    "       authproxy sessions revoke (--user USER | --sid SID | --all) --config FILE",
)
HELP = (
    "Lists, shows or ends sessions in the store of the running servers.",
    "",
    "  --user USER   user name, email or subject of the sessions",
    "  --sid SID     session ID of the provider",
    "  --all         all sessions (revoke)",
    "  --json        JSON for scripts (list)",
    "",
    "All flags of the configuration are accepted: authproxy --help-all.",
)
STORE_TIMEOUT = 5.0  # seconds until the store must be available
SHOWN_DIGITS = 12  # of a session ID, which is enough to distinguish sessions
COLUMNS = ("session", "user", "email", "provider", "login", "refreshed")


class SessionsCommand(NamedTuple):
    """The action and its filters: a user, a provider session (sid), or everything."""

    action: str
    user: str
    sid: str
    everything: bool
    as_json: bool


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code. Raises `ConfigError`."""
    from ..config.load import load_settings

    if requests_help(arguments):
        sys.stdout.write("\n".join((*USAGE, "", *HELP, "")))
        return 0
    command, flags = parse_arguments(arguments)
    settings = load_settings(flags, os.environ)
    try:
        return asyncio.run(_run(command, settings))
    except StoreError as error:
        sys.stderr.write(f"authproxy sessions: {error}\n")
        return 1


def parse_arguments(arguments: Sequence[str]) -> tuple[SessionsCommand, list[str]]:
    """Return the command, and the remaining flags for the configuration.

    Raises `UsageError`.
    """
    filters = {"--user": "", "--sid": ""}
    switches = {"--all": False, "--json": False}
    rest: list[str] = []
    action, *others = arguments or ("",)
    iterator = iter(others)
    for argument in iterator:
        name, equals, value = argument.partition("=")
        if name in filters:
            filters[name] = value if equals else next(iterator, "")
            if not filters[name]:
                raise UsageError((f"{name}: missing value", *USAGE))
        elif argument in switches:
            switches[argument] = True
        else:
            rest.append(argument)
    command = SessionsCommand(
        action,
        filters["--user"],
        filters["--sid"],
        switches["--all"],
        switches["--json"],
    )
    _validate(command)
    return command, rest


def _validate(command: SessionsCommand) -> None:
    """Raise `UsageError` unless the filters fit the action."""
    filtered = bool(command.user or command.sid)
    if (
        command.action not in ACTIONS
        or (command.everything and (filtered or command.action != "revoke"))
        or (command.as_json and command.action != "list")
        or (command.action == "show" and not filtered)
        or (command.action == "revoke" and not filtered and not command.everything)
    ):
        raise UsageError(USAGE)


async def _run(command: SessionsCommand, settings: ServerSettings) -> int:
    async with _open_store(settings) as store:
        performer = Performer(HttpClient(settings.client), store)
        index = SessionIndex(settings.core, clock=time.time, random_bytes=os.urandom)
        if command.action == "revoke":
            _require_revocable(settings)
            await _revoke(command, index, performer)
            return 0
        flow = index.find(user=command.user, sid=command.sid)
        sessions = await drive(flow, performer.perform)
    for line in _format_sessions(command, sessions):
        sys.stdout.write(line + "\n")
    if settings.core.sessions.backend == "cookie":
        sys.stderr.write(
            "cookie sessions are not listed, because only browsers store them\n"
        )
    return 0


@asynccontextmanager
async def _open_store(settings: ServerSettings) -> AsyncIterator[Store]:
    """Open the deployment's store and wait for it. Raises `StoreError`."""
    store_settings = settings.store
    if store_settings.kind == "sqlite" and not store_settings.path:
        raise StoreError(
            "the shared state is in a temporary file of the server; set sqlite_path, or "
            "shared_state = 'redis'"
        )
    store = create(store_settings, settings.core.cookie.name)
    if store is None:
        raise StoreError("no session store: set session_store_type or shared_state")
    available = asyncio.Event()

    def on_state_change() -> None:
        if store.available:
            available.set()

    await store.start(lambda _: None, on_state_change)
    try:
        on_state_change()
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await available.wait()
        except TimeoutError:
            raise StoreError(f"session store unavailable: {store.error}") from None
        yield store
    finally:
        await store.close()


def _require_revocable(settings: ServerSettings) -> None:
    sessions = settings.core.sessions
    if sessions.backend == "cookie" and not sessions.revocable:
        raise StoreError(
            "cookie sessions can't be revoked without session_revocation; to end all of "
            "them, change cookie_secret"
        )


async def _revoke(
    command: SessionsCommand, index: SessionIndex, performer: Performer
) -> None:
    count, cookies_revoked = 0, False
    while True:
        flow = index.revoke(
            user=command.user, sid=command.sid, everything=command.everything
        )
        result: RevocationResult = await drive(flow, performer.perform)
        count += result.count
        cookies_revoked = cookies_revoked or result.cookie_sessions_revoked
        if result.count < MAX_MEMBERS:  # the last batch
            break
    sys.stdout.write(f"{count} session{'' if count == 1 else 's'} revoked\n")
    if cookies_revoked:
        sys.stdout.write("cookie sessions created before now are rejected\n")


def _format_sessions(
    command: SessionsCommand, sessions: tuple[SessionInfo, ...]
) -> Iterator[str]:
    if command.as_json:
        yield json.dumps([_fields(info) for info in sessions], indent=2)
    elif command.action == "show":
        yield from _format_details(sessions)
    else:
        yield from _format_table(sessions)


def _fields(info: SessionInfo) -> dict[str, str]:
    """Return the printed fields of a session by name."""
    fields = {
        "session": info.id[:SHOWN_DIGITS],
        "user": info.user,
        "email": info.email,
        "preferred_username": info.preferred_username,
        "subject": info.subject,
        "provider": info.provider,
        "sid": info.sid,
        "login": _format_time(info.login_at),
        "refreshed": _format_time(info.created_at) if _was_refreshed(info) else "",
    }
    return {name: _printable(text) for name, text in fields.items()}


def _was_refreshed(info: SessionInfo) -> bool:
    return info.created_at > info.login_at


def _format_time(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _printable(text: str) -> str:
    """Replace control characters, which could be terminal escape sequences."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def _format_table(sessions: tuple[SessionInfo, ...]) -> Iterator[str]:
    rows = [COLUMNS, *([_fields(info)[name] for name in COLUMNS] for info in sessions)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _format_details(sessions: tuple[SessionInfo, ...]) -> Iterator[str]:
    if not sessions:
        yield "no session"
    for number, info in enumerate(sessions):
        if number:
            yield ""
        for name, text in _fields(info).items():
            if text:
                yield f"{name}: {text}"
