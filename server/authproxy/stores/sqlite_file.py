"""The file of the embedded store: its layout, and what is asked of it.

Everything here is synchronous and runs on the threads of `sqlite.SqliteStore`. An end
is in seconds since the epoch; `NEVER` for what has none.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from math import inf
from typing import NamedTuple

from authproxy_core.errors import StoreError

from .base import MAX_MEMBERS, MAX_VALUE

BUSY = 1.5  # seconds that a writer waits for another one
NEVER = inf
VERSION = 1  # of the layout
MAX_CHANGES = 1000  # changes that are told one by one; more of them mean "everything"
CHANGE_RETENTION = (
    60.0  # seconds; who has not looked for longer has to forget everything
)
PURGE_BATCH = 500  # rows, so that other writers get their turn in between

# No thread opens a file that another one has just made, and has not closed yet.
_OPENING = threading.Lock()
LAYOUT = """
CREATE TABLE entry (key TEXT PRIMARY KEY, value BLOB NOT NULL, ends_at REAL NOT NULL);
CREATE INDEX entry_ends_at ON entry (ends_at);
CREATE TABLE member (
    key TEXT NOT NULL, member BLOB NOT NULL, ends_at REAL NOT NULL,
    PRIMARY KEY (key, member)
) WITHOUT ROWID;
CREATE INDEX member_ends_at ON member (ends_at);
CREATE TABLE lock (
    key TEXT PRIMARY KEY, token TEXT NOT NULL, ends_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE change (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, made_at REAL NOT NULL
);
"""


class ChangeBatch(NamedTuple):
    """What was changed up to the change *seen*; ``keys`` None: more than can be told.

    ``version`` is SQLite's count of commits by others: the same means no news.
    """

    version: int
    seen: int
    keys: tuple[str, ...] | None = ()


def open_database(path: str) -> sqlite3.Connection:
    """A connection to the file, which is made when missing, readable by us alone.

    Raises `StoreError` when the file is somebody else's or of a later version, and
    sqlite3.Error or OSError when it can't be used.
    """
    with _OPENING:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=BUSY, isolation_level=None, check_same_thread=False
        )
    try:
        [(mode,)] = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreError(f"{path}: this file system can't share memory (WAL)")
        # A crash of the machine may lose the last moments, never the file's order.
        connection.execute("PRAGMA synchronous = NORMAL")
        _lay_out(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_private(path: str) -> None:
    """Make the file if there is none; SQLite gives those beside it the same mode.

    A file that exists must not be opened here: closing it would take away the locks by
    which SQLite's connections of this process tell others that they are there.
    """
    try:
        os.close(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
    except FileExistsError:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise StoreError(f"{path}: expected a file of our own user") from None
        if found.st_mode & 0o077:
            os.chmod(path, 0o600)


def _lay_out(connection: sqlite3.Connection, path: str) -> None:
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)  # another worker may have been faster
        if version > VERSION:
            raise StoreError(f"{path}: made by a later version ({version})")
        if version == 0:
            for statement in filter(str.strip, LAYOUT.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version")
    return int(version)


def is_current(path: str, identity: tuple[int, int]) -> bool:
    """Whether the file at *path* is still the one that was opened."""
    try:
        return identity_of(path) == identity
    except OSError:
        return False


def identity_of(path: str) -> tuple[int, int]:
    """What tells the file at *path* from another one. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


# -- reading


def load(
    connection: sqlite3.Connection, keys: tuple[str, ...], now: float
) -> tuple[bytes | None, ...]:
    """The values under *keys* that have not ended."""
    return tuple(_load(connection, key, now) for key in keys)


def _load(connection: sqlite3.Connection, key: str, now: float) -> bytes | None:
    rows = connection.execute(
        "SELECT length(value), CASE WHEN length(value) <= ? THEN value END FROM entry "
        "WHERE key = ? AND ends_at > ?",
        (MAX_VALUE, key, now),
    ).fetchall()
    if not rows:
        return None
    size, value = rows[0]
    if value is None:
        raise StoreError(f"got a value of {size} bytes, expected at most {MAX_VALUE}")
    return bytes(value)


def members(connection: sqlite3.Connection, key: str, now: float) -> tuple[bytes, ...]:
    """The members of a set that have not ended."""
    rows = connection.execute(
        "SELECT member FROM member WHERE key = ? AND ends_at > ? LIMIT ?",
        (key, now, MAX_MEMBERS),
    )
    return tuple(bytes(member) for (member,) in rows.fetchall())


def lock_is_free(connection: sqlite3.Connection, key: str, now: float) -> bool:
    """Whether nobody holds a lock."""
    rows = connection.execute(
        "SELECT 1 FROM lock WHERE key = ? AND ends_at > ?", (key, now)
    )
    return not rows.fetchall()


def changes_since(
    connection: sqlite3.Connection, last: ChangeBatch | None
) -> ChangeBatch:
    """What was committed since *last*; None: begin with what there is by now."""
    [(version,)] = connection.execute("PRAGMA data_version")
    if last is not None and version == last.version:
        return ChangeBatch(version, last.seen)
    if last is None:
        return ChangeBatch(version, _last_change(connection), None)
    newest = _last_change(connection)
    rows = connection.execute(
        "SELECT key FROM change WHERE number > ? AND number <= ? LIMIT ?",
        (last.seen, newest, MAX_CHANGES + 1),
    ).fetchall()
    # Numbers have no gaps, but the oldest go.
    complete = len(rows) == newest - last.seen
    if not complete or len(rows) > MAX_CHANGES:
        return ChangeBatch(version, newest, None)
    return ChangeBatch(version, newest, tuple(dict.fromkeys(key for (key,) in rows)))


def _last_change(connection: sqlite3.Connection) -> int:
    rows = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'")
    return int(next(rows, (0,))[0])


# -- writing; each of these is one transaction


def save(
    connection: sqlite3.Connection, key: str, value: bytes, ends_at: float, now: float
) -> None:
    """Put a value under a key."""
    connection.execute(
        "INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT (key) "
        "DO UPDATE SET value = excluded.value, ends_at = excluded.ends_at",
        (key, value, ends_at),
    )
    _record_change(connection, key, now)


def delete(connection: sqlite3.Connection, key: str, now: float) -> None:
    """Forget the value and the set under a key."""
    found = connection.execute("DELETE FROM entry WHERE key = ?", (key,)).rowcount
    found += connection.execute("DELETE FROM member WHERE key = ?", (key,)).rowcount
    if found:
        _record_change(connection, key, now)


def add(
    connection: sqlite3.Connection, key: str, member: bytes, ends_at: float, now: float
) -> None:
    """Put a member into a set, or renew its time."""
    connection.execute(
        "INSERT INTO member VALUES (?, ?, ?) ON CONFLICT (key, member) "
        "DO UPDATE SET ends_at = excluded.ends_at",
        (key, member, ends_at),
    )
    _record_change(connection, key, now)


def remove(connection: sqlite3.Connection, key: str, member: bytes, now: float) -> None:
    """Take a member out of a set."""
    found = connection.execute(
        "DELETE FROM member WHERE key = ? AND member = ?", (key, member)
    ).rowcount
    if found:
        _record_change(connection, key, now)


def take_lock(
    connection: sqlite3.Connection, key: str, token: str, ends_at: float, now: float
) -> bool:
    """Hold a lock, if nobody does."""
    taken = connection.execute(
        "INSERT INTO lock VALUES (?, ?, ?) ON CONFLICT (key) "
        "DO UPDATE SET token = excluded.token, ends_at = excluded.ends_at "
        "WHERE lock.ends_at <= ?",
        (key, token, ends_at, now),
    ).rowcount
    return taken > 0


def release_lock(connection: sqlite3.Connection, key: str, token: str) -> None:
    """Give a lock back, if *token* still holds it."""
    connection.execute("DELETE FROM lock WHERE key = ? AND token = ?", (key, token))


def purge(connection: sqlite3.Connection, now: float) -> bool:
    """Drop some of what has ended; True when there may be more."""
    more = False
    for statement, end in (
        ("entry WHERE key IN (SELECT key FROM entry WHERE ends_at <= ? LIMIT ?)", now),
        (
            "member WHERE (key, member) IN "
            "(SELECT key, member FROM member WHERE ends_at <= ? LIMIT ?)",
            now,
        ),
        ("lock WHERE key IN (SELECT key FROM lock WHERE ends_at <= ? LIMIT ?)", now),
        (
            "change WHERE number IN "
            "(SELECT number FROM change WHERE made_at <= ? ORDER BY number LIMIT ?)",
            now - CHANGE_RETENTION,
        ),
    ):
        done = connection.execute(f"DELETE FROM {statement}", (end, PURGE_BATCH))  # noqa: S608 - fixed texts
        more = more or done.rowcount == PURGE_BATCH
    return more


def _record_change(connection: sqlite3.Connection, key: str, now: float) -> None:
    connection.execute("INSERT INTO change (key, made_at) VALUES (?, ?)", (key, now))
