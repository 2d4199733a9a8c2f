"""Selection of the store, and its temporary directory."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import msgspec
import pytest

from authproxy.net.idp_client import HttpClient
from authproxy.serve.performer import Performer
from authproxy.server_settings import ClientSettings, ServerSettings, StoreSettings
from authproxy.stores import shared_state
from authproxy.stores.create import create
from authproxy.stores.shared_state import NoDirectoryError, with_store_path
from authproxy_core import (
    Add,
    Delete,
    Load,
    LoadAll,
    Lock,
    Members,
    Remove,
    Save,
    Unlock,
)
from support.configuration import BASE, problem, settings
from support.processes import Process
from support.programs import ROOT
from support.scripted import run
from support.stores import NAME, Watched


def with_store(base: ServerSettings, store: StoreSettings) -> ServerSettings:
    """Return *base* with another store."""
    return msgspec.structs.replace(base, store=store)


def test_temporary_directory_is_private_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the first directory of RUNTIME_DIRECTORY."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}:/elsewhere")
    with with_store_path(with_store(settings(), StoreSettings(kind="sqlite"))) as found:
        path = Path(found.store.path)
        assert path.parent.parent == tmp_path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.touch()
    assert list(tmp_path.iterdir()) == []


def test_configured_path_and_no_store_unchanged(tmp_path: Path) -> None:
    for store in (
        StoreSettings(),
        StoreSettings(kind="sqlite", path=str(tmp_path / "s.db")),
    ):
        with with_store_path(with_store(settings(), store)) as found:
            assert found.store == store
    assert list(tmp_path.iterdir()) == []


def test_temporary_directory_failure_names_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_state, "TEMPORARY_DIRECTORIES", ("/nowhere", "/proc"))
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, "/dev/null")
    without_path = with_store(settings(), StoreSettings(kind="sqlite"))
    with pytest.raises(NoDirectoryError) as failure:
        with_store_path(without_path).__enter__()
    text = str(failure.value)
    assert "workers: /dev/null: Not a directory; /nowhere: No such file" in text
    assert "; /proc: " in text
    assert "set sqlite_path, or shared_state = 'none'" in text


@pytest.mark.parametrize("name", ["RUNTIME_DIRECTORY", "TMPDIR", "XDG_RUNTIME_DIR"])
def test_temporary_directory_unusable_tries_the_next(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container without /tmp, or with a full or read-only file system."""
    monkeypatch.setattr(shared_state, "TEMPORARY_DIRECTORIES", ("/nowhere", "/proc"))
    for other in ("RUNTIME_DIRECTORY", "TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(other, "/dev/null")
    monkeypatch.setenv(name, str(tmp_path))
    with with_store_path(with_store(settings(), StoreSettings(kind="sqlite"))) as found:
        assert Path(found.store.path).parent.parent == tmp_path
        assert Path(found.store.path).exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "kind", "backend"),
    [
        (("--workers=1",), "none", "cookie"),
        (("--workers=2",), "sqlite", "cookie"),
        (("--workers=1", "--cookie-refresh=1h"), "sqlite", "cookie"),
        (("--workers=1", "--sqlite-path=/tmp/s.db"), "sqlite", "cookie"),
        (("--workers=2", "--shared-state=none"), "none", "cookie"),
        (("--workers=1", "--shared-state=sqlite"), "sqlite", "cookie"),
        (("--session-store-type=sqlite", "--sqlite-path=/tmp/s.db"), "sqlite", "store"),
    ],
)
def test_store_kind_by_options(flags: tuple[str, ...], kind: str, backend: str) -> None:
    found = settings(*flags)
    assert found.store.kind == kind
    assert found.core.sessions.backend == backend
    assert found.core.sessions.shared == (kind != "none")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--session-store-type=sqlite",), "sqlite_path: missing"),
        (("--sqlite-path=/tmp", "--shared-state=sqlite"), "is a directory"),
        (("--sqlite-path=/no/such/s.db",), "no directory /no/such"),
        (
            (
                "--session-store-type=sqlite",
                "--sqlite-path=/tmp/s.db",
                "--shared-state=none",
            ),
            "expected 'sqlite' as in session_store_type",
        ),
    ],
)
def test_contradicting_options_rejected(flags: tuple[str, ...], text: str) -> None:
    assert text in problem(*flags)


def test_sqlite_path_without_permission_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise each worker would wait for the store like in an outage."""
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may do all
    flags = ("--session-store-type=sqlite", "--sqlite-path=/tmp/s.db")
    assert "no permission to write /tmp/s.db" in problem(*flags)


@pytest.mark.parametrize(
    "flags",
    [
        ("--sqlite-path=/tmp/s.db", "--shared-state=none"),
        ("--redis-connection-url=redis://secret-host",),
    ],
)
def test_ignored_options_cause_warning(flags: tuple[str, ...]) -> None:
    """The warning contains no secrets."""
    [warning] = settings(*flags).warnings
    assert "has no effect: only read if" in warning
    assert "secret" not in warning


class EmptyBody:
    """An empty request body."""

    async def read_all(self, limit: int) -> bytes:
        """Return no bytes."""
        return b""


def test_performer_uses_store_for_each_effect(tmp_path: Path) -> None:
    """Each flow has its own lock tokens."""
    in_file = StoreSettings(kind="sqlite", path=str(tmp_path / "s.db"))

    async def main() -> None:
        async with Watched(in_file) as watched, Watched(in_file) as other:
            performers = [
                Performer(HttpClient(ClientSettings()), await one.ready())
                for one in (watched, other)
            ]
            near, same_worker, far = (
                performers[0].bound_to(EmptyBody()),
                performers[0].bound_to(EmptyBody()),
                performers[1].bound_to(EmptyBody()),
            )
            await near(Save("k", b"v", 60.0))
            assert await far(Load("k")) == b"v"
            assert await far(LoadAll(("k", "none"))) == (b"v", None)
            await far(Delete("k"))
            assert await near(Load("k")) is None
            await near(Add("s", b"m", 60.0))
            assert await far(Members("s")) == (b"m",)
            await far(Remove("s", b"m"))
            assert await near(Members("s")) == ()
            assert await near(Lock("l", 60.0, 0.0))
            await far(Unlock("l"))
            await same_worker(Unlock("l"))
            assert not await far(Lock("l", 60.0, 0.0))
            assert not await same_worker(Lock("l", 60.0, 0.0))
            waits = asyncio.ensure_future(far(Lock("l", 60.0, 10.0)))
            await asyncio.sleep(0.02)
            await near(Unlock("l"))
            assert await waits
            await far(Unlock("l"))
            assert await performers[0].perform(Lock("l", 60.0, 0.0))
            await performers[0].perform(Unlock("l"))

    run(main(), "uvloop")


def test_create_without_store_returns_none() -> None:
    assert create(StoreSettings(), NAME) is None


def test_workers_share_temporary_file_removed_at_exit(tmp_path: Path) -> None:
    environment = {
        **BASE,
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("core", "server")),
        "TMPDIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "authproxy", "--http-address=127.0.0.1:0"]
    directories = lambda: list(tmp_path.glob("authproxy-*"))  # noqa: E731
    with Process(
        "server", [*command, "--workers=2"], folder=tmp_path,
        environment=environment,
    ) as process:  # fmt: skip
        # Then the supervisor has tried the directory, and the workers use it.
        process.wait_until(
            lambda: (
                "listening on" in process.log()
                and any(tmp_path.glob("authproxy-*/shared.db-wal"))
            ),
            60.0,
        )
        [directory] = directories()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert directories() == []
