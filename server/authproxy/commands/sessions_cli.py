"""``authproxy sessions``: list, show and revoke the sessions of a running deployment.

It works on the store that the servers use, with the same configuration: they hear of
what has changed there. Tokens are never read, so they can't be shown.
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
STORE_TIMEOUT = 5.0  # seconds until the store has to answer
SHOWN_DIGITS = 12  # of a ticket, enough to tell sessions apart
COLUMNS = ("session", "user", "email", "provider", "login", "refreshed")


class SessionsCommand(NamedTuple):
    """What is to be done, and with whose sessions."""

    action: str
    user: str
    sid: str
    everything: bool
    as_json: bool


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code. Raises `ConfigError`."""
    from ..config.load import load_settings

    order, flags = parse(arguments)
    settings = load_settings(flags, os.environ)
    try:
        return asyncio.run(_run(order, settings))
    except StoreError as error:
        sys.stderr.write(f"authproxy sessions: {error}\n")
        return 1


def parse(arguments: Sequence[str]) -> tuple[SessionsCommand, list[str]]:
    """The order, and the flags that are left for the configuration.

    Raises `UsageError`.
    """
    said = {"--user": "", "--sid": ""}
    switches = {"--all": False, "--json": False}
    rest: list[str] = []
    action, *others = arguments or ("",)
    given = iter(others)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name in said:
            said[name] = value if equals else next(given, "")
            if not said[name]:
                raise UsageError((f"{name}: a value is missing", *USAGE))
        elif argument in switches:
            switches[argument] = True
        else:
            rest.append(argument)
    order = SessionsCommand(
        action, said["--user"], said["--sid"], switches["--all"], switches["--json"]
    )
    _validate(order)
    return order, rest


def _validate(order: SessionsCommand) -> None:
    """Raise `UsageError` unless it is clear whose sessions are meant."""
    named = bool(order.user or order.sid)
    if (
        order.action not in ACTIONS
        or (order.everything and (named or order.action != "revoke"))
        or (order.as_json and order.action != "list")
        or (order.action == "show" and not named)
        or (order.action == "revoke" and not named and not order.everything)
    ):
        raise UsageError(USAGE)


async def _run(order: SessionsCommand, settings: ServerSettings) -> int:
    async with _store(settings) as store:
        performer = Performer(HttpClient(settings.client), store)
        index = SessionIndex(settings.core, clock=time.time, random_bytes=os.urandom)
        if order.action == "revoke":
            _judge_cookies(settings)
            await _revoke(order, index, performer)
            return 0
        flow = index.find(user=order.user, sid=order.sid)
        found = await drive(flow, performer.perform)
    for line in _format_sessions(order, found):
        sys.stdout.write(line + "\n")
    if settings.core.sessions.backend == "cookie":
        sys.stderr.write(
            "sessions in cookies are not listed: only browsers know them\n"
        )
    return 0


@asynccontextmanager
async def _store(settings: ServerSettings) -> AsyncIterator[Store]:
    """The deployment's store, once it answers. Raises `StoreError`."""
    given = settings.store
    if given.kind == "sqlite" and not given.path:
        raise StoreError(
            "what the workers share is in a file that only they know; set sqlite_path, "
            "or shared_state = 'redis'"
        )
    store = create(given, settings.core.cookie.name)
    if store is None:
        raise StoreError(
            "there is no store: sessions are in cookies, and nothing is shared "
            "(session_store_type, shared_state)"
        )
    answered = asyncio.Event()

    def noted() -> None:
        if store.available:
            answered.set()

    await store.start(lambda _: None, noted)
    try:
        noted()
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await answered.wait()
        except TimeoutError:
            raise StoreError(f"the session store is away: {store.error}") from None
        yield store
    finally:
        await store.close()


def _judge_cookies(settings: ServerSettings) -> None:
    sessions = settings.core.sessions
    if sessions.backend == "cookie" and not sessions.revocable:
        raise StoreError(
            "sessions in cookies can't be revoked without session_revocation; to end "
            "all of them, change the cookie secret"
        )


async def _revoke(
    order: SessionsCommand, index: SessionIndex, performer: Performer
) -> None:
    count, listed = 0, False
    while True:
        flow = index.revoke(user=order.user, sid=order.sid, everything=order.everything)
        done: RevocationResult = await drive(flow, performer.perform)
        count += done.count
        listed = listed or done.cookie_sessions_revoked
        if done.count < MAX_MEMBERS:  # there were not more than are found at once
            break
    sys.stdout.write(f"{count} session{'' if count == 1 else 's'} ended\n")
    if listed:
        sys.stdout.write("sessions in cookies that began before are refused\n")


# -- what is said of sessions


def _format_sessions(
    order: SessionsCommand, found: tuple[SessionInfo, ...]
) -> Iterator[str]:
    if order.as_json:
        yield json.dumps([_fields(info) for info in found], indent=2)
    elif order.action == "show":
        yield from _details(found)
    else:
        yield from _table(found)


def _fields(info: SessionInfo) -> dict[str, str]:
    """What is said of a session, by name."""
    fields = {
        "session": info.id[:SHOWN_DIGITS],
        "user": info.user,
        "email": info.email,
        "preferred_username": info.preferred_username,
        "subject": info.subject,
        "provider": info.provider,
        "sid": info.sid,
        "login": _moment(info.login_at),
        "refreshed": _moment(info.created_at) if _was_refreshed(info) else "",
    }
    return {name: _printable(text) for name, text in fields.items()}


def _was_refreshed(info: SessionInfo) -> bool:
    return info.created_at > info.login_at


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _printable(text: str) -> str:
    """*text* without what would steer a terminal."""
    return "".join(one if one.isprintable() else "\ufffd" for one in text)


def _table(found: tuple[SessionInfo, ...]) -> Iterator[str]:
    rows = [COLUMNS, *([_fields(info)[name] for name in COLUMNS] for info in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _details(found: tuple[SessionInfo, ...]) -> Iterator[str]:
    if not found:
        yield "no session"
    for number, info in enumerate(found):
        if number:
            yield ""
        for name, text in _fields(info).items():
            if text:
                yield f"{name}: {text}"
