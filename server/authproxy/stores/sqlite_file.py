"""The file of the embedded store: its schema and its queries.

All functions are synchronous and run on the threads of `sqlite.SqliteStore`. They take
an expiry (``ends_at``) in seconds since the epoch, `NEVER` for none, and raise
`sqlite3.Error`.
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

BUSY_TIMEOUT = 1.5  # seconds that a writer waits for another one
NEVER = inf
SCHEMA_VERSION = 1
MAX_CHANGES = 1000  # changes in a batch; more of them invalidate everything
# Seconds; a worker that polls less often drops its whole cache.
CHANGE_RETENTION = 60.0
PURGE_BATCH = 500  # rows, so that other writers can run in between

# Serializes opening: `_create_private` must not close a file that SQLite has open.
_OPENING = threading.Lock()
SCHEMA = """
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
    """The ``keys`` changed up to change number ``seen``; None: possibly all keys.

    ``version`` is SQLite's counter of commits by other connections.
    """

    version: int
    seen: int
    keys: tuple[str, ...] | None = ()


def open_database(path: str) -> sqlite3.Connection:
    """Open the file, and create it if it is missing, readable by this user only.

    Raises `StoreError` if another user owns the file or a later version of authproxy
    wrote it, `sqlite3.Error` or `OSError` if it can't be used.
    """
    with _OPENING:
        _create_private(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
    try:
        [(mode,)] = connection.execute("PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreError(
                f"{path}: the file system does not support shared memory (WAL)"
            )
        # A power failure may lose the last commits, but never corrupts the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        # There may be no writable directory for temporary files.
        connection.execute("PRAGMA temp_store = MEMORY")
        _create_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_private(path: str) -> None:
    """Create the file if it is missing; SQLite's -wal and -shm get the same mode.

    An existing file must not be opened here, because closing it would release the POSIX
    locks of all connections of this process (see "How To Corrupt An SQLite Database
    File").
    """
    try:
        os.close(
            os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        )
    except FileExistsError:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise StoreError(
                f"{path}: expected a regular file owned by user {os.geteuid()}"
            ) from None
        if status.st_mode & 0o077:
            os.chmod(path, 0o600)


def _create_schema(connection: sqlite3.Connection, path: str) -> None:
    if _schema_version(connection) == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _schema_version(connection)  # another worker may have created it
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{path}: written by a later version of authproxy (schema {version})"
            )
        if version == 0:
            for statement in filter(str.strip, SCHEMA.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _schema_version(connection: sqlite3.Connection) -> int:
    [(version,)] = connection.execute("PRAGMA user_version")
    return int(version)


def is_current(path: str, identity: tuple[int, int]) -> bool:
    """Return whether the file at *path* has *identity*."""
    try:
        return identity_of(path) == identity
    except OSError:
        return False


def identity_of(path: str) -> tuple[int, int]:
    """Return device and inode of the file at *path*. Raises `OSError`."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


# Reads.


def load(
    connection: sqlite3.Connection, keys: tuple[str, ...], now: float
) -> tuple[bytes | None, ...]:
    """Return the values of *keys*, None for absent and expired ones."""
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
    """Return the members of a set that have not expired."""
    rows = connection.execute(
        "SELECT member FROM member WHERE key = ? AND ends_at > ? LIMIT ?",
        (key, now, MAX_MEMBERS),
    )
    return tuple(bytes(member) for (member,) in rows.fetchall())


def is_lock_free(connection: sqlite3.Connection, key: str, now: float) -> bool:
    """Return whether the lock *key* is free or expired."""
    rows = connection.execute(
        "SELECT 1 FROM lock WHERE key = ? AND ends_at > ?", (key, now)
    )
    return not rows.fetchall()


def changes_since(
    connection: sqlite3.Connection, last: ChangeBatch | None
) -> ChangeBatch:
    """Return the changes since *last*; None starts after the present changes."""
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
    # Numbers have no gaps, so a lower count means that old changes were purged.
    complete = len(rows) == newest - last.seen
    if not complete or len(rows) > MAX_CHANGES:
        return ChangeBatch(version, newest, None)
    return ChangeBatch(version, newest, tuple(dict.fromkeys(key for (key,) in rows)))


def _last_change(connection: sqlite3.Connection) -> int:
    rows = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'change'")
    return int(next(rows, (0,))[0])


# Writes; the caller commits.


def save(
    connection: sqlite3.Connection,
    key: str,
    value: bytes,
    ends_at: float,
    now: float,
    expected: bytes | None = None,
) -> bool:
    """Set *key* to *value*; with *expected*, only if that is the present value."""
    if expected is not None:
        [present] = load(connection, (key,), now)
        if (present or b"") != expected:
            return False
    connection.execute(
        "INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT (key) "
        "DO UPDATE SET value = excluded.value, ends_at = excluded.ends_at",
        (key, value, ends_at),
    )
    _record_change(connection, key, now)
    return True


def delete(connection: sqlite3.Connection, key: str, now: float) -> None:
    """Delete the value and the set of *key*."""
    deleted = connection.execute("DELETE FROM entry WHERE key = ?", (key,)).rowcount
    deleted += connection.execute("DELETE FROM member WHERE key = ?", (key,)).rowcount
    if deleted:
        _record_change(connection, key, now)


def add(
    connection: sqlite3.Connection, key: str, member: bytes, ends_at: float, now: float
) -> None:
    """Add *member* to the set of *key*, or reset its expiry."""
    connection.execute(
        "INSERT INTO member VALUES (?, ?, ?) ON CONFLICT (key, member) "
        "DO UPDATE SET ends_at = excluded.ends_at",
        (key, member, ends_at),
    )
    _record_change(connection, key, now)


def remove(connection: sqlite3.Connection, key: str, member: bytes, now: float) -> None:
    """Remove *member* from the set of *key*."""
    removed = connection.execute(
        "DELETE FROM member WHERE key = ? AND member = ?", (key, member)
    ).rowcount
    if removed:
        _record_change(connection, key, now)


def acquire_lock(
    connection: sqlite3.Connection, key: str, token: str, ends_at: float, now: float
) -> bool:
    """Acquire the lock *key* for *token*; False if another token holds it."""
    changed = connection.execute(
        "INSERT INTO lock VALUES (?, ?, ?) ON CONFLICT (key) "
        "DO UPDATE SET token = excluded.token, ends_at = excluded.ends_at "
        "WHERE lock.ends_at <= ?",
        (key, token, ends_at, now),
    ).rowcount
    return changed > 0


def release_lock(connection: sqlite3.Connection, key: str, token: str) -> None:
    """Release the lock *key* if *token* holds it."""
    connection.execute("DELETE FROM lock WHERE key = ? AND token = ?", (key, token))


def purge(connection: sqlite3.Connection, now: float) -> bool:
    """Delete up to `PURGE_BATCH` expired rows per table; True if more may exist."""
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
        done = connection.execute(f"DELETE FROM {statement}", (end, PURGE_BATCH))  # noqa: S608 - constants
        more = more or done.rowcount == PURGE_BATCH
    return more


def _record_change(connection: sqlite3.Connection, key: str, now: float) -> None:
    connection.execute("INSERT INTO change (key, made_at) VALUES (?, ?)", (key, now))
