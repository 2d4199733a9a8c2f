"""Log file: rotation, several writers, limits of rotated files, full disk."""

from __future__ import annotations

import fcntl
import gzip
import os
import resource
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest

from authproxy.logs.file import Backups, LogFile
from authproxy.server_settings import LogFileSettings
from support.ports import LOOPBACK
from support.processes import wait_for
from support.program import ROOT, Program
from support.server import until

MEBIBYTE = 1 << 20
WRITER = """
import sys
from authproxy.logs.file import LogFile
from authproxy.server_settings import LogFileSettings
path, name, compress = sys.argv[1:]
file = LogFile(
    LogFileSettings(path=path, max_size=1, compress=compress == "1"), local_time=False
)
for number in range(400):
    lines = [f"{name} {number * 50 + n} {'x' * (n * 4)}\\n" for n in range(50)]
    file.write("".join(lines).encode())
import threading
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
"""


def ask(port: int, target: str) -> int:
    """Return the status of a request on a new connection."""
    connection = HTTPConnection(LOOPBACK, port, timeout=60)
    connection.request("GET", target)
    status = connection.getresponse().status
    connection.close()
    return status


def settings(path: Path, **changes: int) -> LogFileSettings:
    return LogFileSettings(path=str(path), **{"max_size": 1, **changes})  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


@pytest.mark.parametrize("compress", [False, True])
def test_log_file_several_processes_keep_all_lines_intact(
    tmp_path: Path, compress: bool
) -> None:
    """All processes rotate; together the files contain all lines in order."""
    path = tmp_path / "access.log"
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "core", ROOT / "server")))
    }
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, path, name, str(int(compress))],
            env={**os.environ, **environment},
        )
        for name in ("a", "b", "c")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    backups = sorted(path for path in tmp_path.iterdir() if path.name != "access.log")
    assert len(backups) >= 3
    assert all(len(read(path)) <= MEBIBYTE for path in tmp_path.iterdir())
    suffix = ".gz" if compress else ".log"
    assert [path.name for path in backups if path.suffix != suffix] == []
    seen: dict[str, int] = {"a": 0, "b": 0, "c": 0}
    for file in (*backups, path):
        for line in read(file).decode().splitlines():
            name, number, *rest = line.split(" ")
            assert int(number) == seen[name]
            assert rest == ["x" * (int(number) % 50 * 4)]
            seen[name] += 1
    assert seen == {"a": 20_000, "b": 20_000, "c": 20_000}
    assert oct(path.stat().st_mode & 0o777) == "0o600"


def test_log_file_rotated_before_max_size(tmp_path: Path) -> None:
    """A chunk above the maximum size is written to a separate file."""
    path = tmp_path / "log"
    file = LogFile(settings(path, max_backups=1), local_time=True)
    for letter in (b"a", b"b", b"c"):
        file.write(letter * (MEBIBYTE + 1))
        file.write(b"\n")
    file.close()
    assert path.read_bytes() == b"\n"
    [backup] = [file for file in tmp_path.iterdir() if file != path]
    assert backup.read_bytes() == b"c" * (MEBIBYTE + 1)


def test_log_file_failed_write_leaves_no_partial_line(tmp_path: Path) -> None:
    """RLIMIT_FSIZE allows only half of the second chunk."""
    path = tmp_path / "log"
    file = LogFile(settings(path), local_time=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, before[1]))
        file.write(b"0123456789")
        with pytest.raises(OSError, match="too large"):
            file.write(b"0123456789")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"0123456789"
    file.write(b"more")
    assert path.read_bytes() == b"0123456789more"
    file.close()


def test_log_file_moved_away_is_reopened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(settings(path), local_time=False)
    file.write(b"one\n")
    path.rename(tmp_path / "moved")
    file.write(b"two\n")
    file.close()
    file.write(b"three\n")
    assert (tmp_path / "moved").read_bytes() == b"one\n"
    assert path.read_bytes() == b"two\nthree\n"
    file.close()


def test_log_file_symlink_target_rotated(tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    link = tmp_path / "log"
    link.symlink_to(folder / "access.log")
    file = LogFile(settings(link), local_time=True)
    for _ in range(2):
        file.write(b"x" * MEBIBYTE)
    file.close()
    assert link.is_symlink()
    assert len(names(folder)) == 2


def test_log_file_dev_stdout_never_rotated(tmp_path: Path) -> None:
    """Not even if it is a regular file."""
    script = """
from authproxy.logs.file import LogFile
from authproxy.server_settings import LogFileSettings
file = LogFile(LogFileSettings(path="/dev/stdout", max_size=1), local_time=True)
for _ in range(3):
    file.write(b"x" * (1 << 20))
"""
    path = tmp_path / "out"
    with path.open("wb") as out:
        subprocess.run(
            [sys.executable, "-c", script],
            stdout=out,
            check=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'server'}"},
        )
    assert path.stat().st_size == 3 * MEBIBYTE
    assert names(tmp_path) == ["out"]


def test_backups_limits_remove_oldest_only(tmp_path: Path) -> None:
    """The age is that of the name; files with similar names are not removed."""
    path = tmp_path / "a.log"
    for name in (
        "a-2099-01-02T03-04-05.000.log",
        "a-2099-01-02T03-04-05.001.log.gz",
        "a-2098-01-02T03-04-05.000.log",
        "a-2001-01-02T03-04-05.000.log",
        "a-b-2001-01-02T03-04-05.000.log",
        "a-2001-01-02T03-04-05.000.txt",
        "a-2001.log",
    ):
        (tmp_path / name).touch()
    Backups(settings(path, max_age=7), local_time=True).clean_up()
    assert "a-2001-01-02T03-04-05.000.log" not in names(tmp_path)
    assert len(names(tmp_path)) == 6
    Backups(settings(path, max_age=0, max_backups=2), local_time=True).clean_up()
    assert names(tmp_path) == [
        "a-2001-01-02T03-04-05.000.txt",
        "a-2001.log",
        "a-2099-01-02T03-04-05.000.log",
        "a-2099-01-02T03-04-05.001.log.gz",
        "a-b-2001-01-02T03-04-05.000.log",
    ]


def test_backups_new_path_is_unused(tmp_path: Path) -> None:
    backups = Backups(settings(tmp_path / "a.log"), local_time=False)
    first = backups.new_path(1_790_000_000.25)
    assert first.name == "a-2026-09-21T14-13-20.250.log"
    first.touch()
    assert backups.new_path(1_790_000_000.25).name.endswith(".251.log")


def test_log_file_failed_rotation_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(settings(path), local_time=False)
    file._backups.new_path = lambda now: tmp_path / "missing" / "x"  # type: ignore[method-assign]
    for _ in range(3):
        file.write(b"x" * MEBIBYTE)
    assert path.stat().st_size == 3 * MEBIBYTE
    file.close()


def test_log_file_device_not_rotated() -> None:
    before = names(Path("/dev"))
    file = LogFile(settings(Path("/dev/null")), local_time=False)
    for _ in range(3):
        file.write(b"x" * MEBIBYTE)
    file.close()
    assert [name for name in names(Path("/dev")) if name not in before] == []


def test_backups_compression_by_another_worker_not_repeated(tmp_path: Path) -> None:
    """A file stays uncompressed while another worker holds the lock."""
    path = tmp_path / "a.log"
    old = tmp_path / "a-2099-01-02T03-04-05.000.log"
    old.write_bytes(b"x" * 1000)
    with (tmp_path / f"{old.name}.tmp").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        before = threading.active_count()
        Backups(settings(path, compress=True), local_time=True).clean_up()
        until(lambda: threading.active_count() == before, "the end of the thread")
        assert old.exists()
    Backups(settings(path, compress=True), local_time=True).clean_up()
    until(lambda: names(tmp_path) == [f"{old.name}.gz"], "the compressed file")
    assert read(tmp_path / f"{old.name}.gz") == b"x" * 1000


FULL = """
import resource, signal, sys
from authproxy.logs.file import LogFile
from authproxy.logs.writer import LogWriter
from authproxy.server_settings import LogFileSettings
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
writer = LogWriter(LogFile(LogFileSettings(path=sys.argv[1]), local_time=False))
for number in range(20):
    writer.write(f"{number:03} {'x' * 995}\\n")
while writer._finished != writer._queued:
    pass
assert writer.dropped == 10, writer.dropped
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
writer.write("last\\n")
writer.close()
"""


def test_log_writer_full_disk_drops_and_counts_lines(tmp_path: Path) -> None:
    """No partial line remains; the next successful write reports the count."""
    path = tmp_path / "log"
    environment = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "core", ROOT / "server")))
    }
    done = subprocess.run(
        [sys.executable, "-c", FULL, path],
        env={**os.environ, **environment},
        timeout=30,
    )
    assert done.returncode == 0
    lines = path.read_text().splitlines()
    assert [line[:3] for line in lines[:10]] == [f"{n:03}" for n in range(10)]
    assert lines[10:] == ["dropped 10 log lines", "last"]


def test_program_logging_filename_used_by_workers_and_supervisor(
    tmp_path: Path,
) -> None:
    """Only errors go to the standard streams."""
    log = tmp_path / "access.log"
    with Program(tmp_path, workers=2, logging_filename=str(log)) as program:
        wait_for(lambda: log.exists() and "listening on" in log.read_text(), "the file")
        port = int(log.read_text().partition("127.0.0.1:")[2].split()[0])
        for _ in range(20):
            assert ask(port, "/ping") == 200
        wait_for(lambda: log.read_text().count('"/ping"') == 20, "all lines")
        log.rename(tmp_path / "moved")
        assert ask(port, "/ping") == 200
        wait_for(lambda: log.exists() and '"/ping"' in log.read_text(), "a new file")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
    assert '"/ping"' not in program.log()
    assert "listening" not in program.log()
