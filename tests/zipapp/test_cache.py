"""Where the zipapp unpacks its files, repair, and removal of old versions."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.processes import Process
from support.zipapp import digest_of, is_rejected, run, succeeded


class TestCache:
    def test_concurrent_first_starts(self, built: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        environment = {"PATH": os.environ["PATH"], "AUTHPROXY_CACHE": str(cache)}
        starting = [
            subprocess.Popen(
                [sys.executable, str(built), "--version"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for process in starting:
            stdout, stderr = process.communicate(timeout=60)
            assert (process.returncode, stderr) == (0, "")
            assert stdout.startswith("authproxy ")
        assert os.listdir(cache) == [digest_of(built)]

    def test_files_in_chosen_cache_readable_by_all(
        self, built: Path, tmp_path: Path
    ) -> None:
        """As root does when it builds an image for any user."""
        cache = tmp_path / "a" / "cache"
        mask = os.umask(0o077)
        try:
            assert succeeded(run(built, "--version", cache=cache))
        finally:
            os.umask(mask)
        for path in [*cache.rglob("*")]:
            expected = 0o755 if path.is_dir() else 0o444
            assert path.stat().st_mode & 0o777 & expected == expected
            assert not path.stat().st_mode & 0o022

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_cache_writable_by_others_rejected(
        self, built: Path, tmp_path: Path, mode: int
    ) -> None:
        tmp_path.chmod(mode)
        done = run(built, "--version", cache=tmp_path)
        assert is_rejected(done, str(tmp_path), "is writable by other users")
        assert not os.listdir(tmp_path)

    def test_unpacked_files_writable_by_others_rejected(
        self, built: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / digest_of(built)
        (folder / "authproxy").mkdir(parents=True)
        (folder / "authproxy" / "cli.py").write_text("raise SystemExit('planted')")
        folder.chmod(0o777)
        done = run(built, "--version", cache=tmp_path)
        assert is_rejected(done, str(folder), "is writable by other users")

    def test_cache_replaceable_by_others_rejected(
        self, built: Path, tmp_path: Path
    ) -> None:
        tmp_path.chmod(0o777)
        cache = tmp_path / "a" / "cache"
        done = run(built, "--version", cache=cache)
        assert is_rejected(done, f"{tmp_path} is writable by all users;")
        tmp_path.chmod(0o1777)
        assert succeeded(run(built, "--version", cache=cache))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
    @pytest.mark.parametrize("inner", [False, True])
    def test_cache_of_another_user_rejected(
        self, built: Path, tmp_path: Path, inner: bool
    ) -> None:
        folder = tmp_path / digest_of(built) if inner else tmp_path
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, 12345, 12345)
        done = run(built, "--version", cache=tmp_path)
        assert is_rejected(done, str(folder), "belongs to another user")

    def test_symlink_of_the_user_followed(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert succeeded(run(built, "--version", cache=tmp_path / "link"))
        assert (tmp_path / "real" / digest_of(built)).is_dir()

    def test_symlink_instead_of_the_files_rejected(
        self, built: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / digest_of(built)).symlink_to(tmp_path / "elsewhere")
        assert is_rejected(run(built, "--version", cache=tmp_path), digest_of(built))

    def test_cache_directory_precedence(self, built: Path, tmp_path: Path) -> None:
        home, xdg = tmp_path / "home", tmp_path / "xdg"
        environment = {"HOME": str(home), "XDG_CACHE_HOME": str(xdg)}
        assert succeeded(run(built, "--version", **environment))
        assert (xdg / "authproxy" / digest_of(built)).is_dir()
        assert (xdg / "authproxy").stat().st_mode & 0o777 == 0o700
        assert not home.exists()
        environment["XDG_CACHE_HOME"] = "relative"
        assert succeeded(run(built, "--version", **environment))
        assert (home / ".cache" / "authproxy" / digest_of(built)).is_dir()

    def test_abandoned_directories_removed(self, built: Path, tmp_path: Path) -> None:
        old, young = tmp_path / ".unpacking-old", tmp_path / ".unpacking-young"
        for folder in (old, young):
            folder.mkdir()
            (folder / "file").touch()
        two_days_ago = time.time() - 48 * 3600
        os.utime(old, (two_days_ago, two_days_ago))
        assert succeeded(run(built, "--version", cache=tmp_path))
        assert not old.exists()
        assert young.exists()


class TestRepair:
    @pytest.fixture
    def folder(self, filled: Path, built: Path, tmp_path: Path) -> Path:
        """A copy of the unpacked files, with their times."""
        copy = tmp_path / digest_of(built)
        shutil.copytree(filled / digest_of(built), copy)
        return copy

    def test_copy_with_other_times_used(self, built: Path, folder: Path) -> None:
        """As in an image whose layers have one time."""
        for path in folder.rglob("*"):
            os.utime(path, (1e9, 1e9))
        inode = folder.stat().st_ino
        assert succeeded(run(built, "--version", cache=folder.parent))
        assert folder.stat().st_ino == inode

    @pytest.mark.parametrize("damage", ["deleted", "truncated", "edited", "list"])
    def test_damaged_files_replaced(
        self, built: Path, folder: Path, damage: str
    ) -> None:
        file = folder / "authproxy" / "commands" / "cli.py"
        content = file.read_bytes()
        if damage == "deleted":
            shutil.rmtree(folder / "authproxy")
        elif damage == "truncated":
            file.write_bytes(b"")
        elif damage == "edited":
            file.write_bytes(b"#" + content[1:])
        else:
            files = folder / "FILES"
            files.write_bytes(files.read_bytes()[:-100])
        assert succeeded(run(built, "--version", cache=folder.parent))
        assert file.read_bytes() == content
        assert os.listdir(folder.parent) == [folder.name]

    def test_files_in_use_not_removed(self, built: Path, folder: Path) -> None:
        """The files of other versions stay while a process runs from them."""
        used, unused, young = (folder.with_name(digit * 64) for digit in "123")
        for version in (used, unused, young):
            shutil.copytree(folder, version)
        for version in (used, unused):
            os.utime(version, (1e9, 1e9))
        shutil.rmtree(folder)
        with (used / "FILES").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            assert succeeded(run(built, "--version", cache=folder.parent))
        assert {path.name for path in folder.parent.iterdir()} == {
            folder.name,
            used.name,
            young.name,
        }

    def test_running_server_locks_its_files(
        self, built: Path, folder: Path, tmp_path: Path
    ) -> None:
        with (
            Process(
                "demo",
                [sys.executable, built, "demo", "--port", "0"],
                folder=tmp_path,
                environment={"AUTHPROXY_CACHE": str(folder.parent)},
            ) as process,
            (folder / "FILES").open() as file,
        ):
            process.wait_until(lambda: "Stop with Ctrl-C." in process.log(), 60.0)
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process.stop()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def in_new_namespace(built: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run *script* with a private /mnt, as root.

    ``$RUN`` starts the zipapp without home and cache directory.
    """
    python = os.path.realpath(sys.executable)  # the environment may be in /tmp
    environment = {
        "PATH": os.environ["PATH"],
        "ARCHIVE": str(built),
        "RUN": f"env XDG_CACHE_HOME=/proc/cache {python} /mnt/authproxy.pyz --version",
    }
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", f"{NAMESPACE}\n{script}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("no permission to mount")
    return done


NAMESPACE = """
mount -t tmpfs tmpfs /mnt
cp "$ARCHIVE" /mnt/authproxy.pyz
"""
FULL, NOEXEC, READ_ONLY, GOOD = "size=1m", "noexec", "ro", "mode=1777"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
class TestPlaces:
    def test_unusable_places_skipped(self, built: Path) -> None:
        """A full and a noexec directory, then one that works."""
        done = in_new_namespace(
            built,
            f"""
            mount -t tmpfs -o {FULL},mode=1777 tmpfs /tmp
            mount -t tmpfs -o {NOEXEC},mode=1777 tmpfs /var/tmp
            mount -t tmpfs -o {GOOD} tmpfs /dev/shm
            $RUN
            ls /tmp/authproxy-0 /dev/shm/authproxy-0
            """,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("authproxy ")
        assert done.stdout.endswith(
            f"/dev/shm/authproxy-0:\n{digest_of(built)}\n\n/tmp/authproxy-0:\n"
        )

    def test_places_of_another_user_skipped(self, built: Path) -> None:
        """Another user has planted a symlink and a directory; the third is its own."""
        done = in_new_namespace(
            built,
            f"""
            for place in /tmp /var/tmp /dev/shm; do
                mount -t tmpfs -o {GOOD} tmpfs $place
            done
            mkdir /mnt/trap /var/tmp/authproxy-0
            ln -s /mnt/trap /tmp/authproxy-0
            chown -h 12345 /tmp/authproxy-0 /var/tmp/authproxy-0
            $RUN
            ls /mnt/trap /var/tmp/authproxy-0 /dev/shm/authproxy-0
            """,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(
            f"/dev/shm/authproxy-0:\n{digest_of(built)}\n\n/mnt/trap:\n"
            "\n/var/tmp/authproxy-0:\n"
        )

    def test_no_place_explained_in_one_line(self, built: Path) -> None:
        done = in_new_namespace(
            built,
            f"""
            mount -t tmpfs -o {READ_ONLY} tmpfs /tmp
            mount -t tmpfs -o {NOEXEC},mode=1777 tmpfs /var/tmp
            mount -t tmpfs -o mode=777 tmpfs /dev/shm
            TMPDIR=/mnt/absent RUNTIME_DIRECTORY=/proc AUTHPROXY_CACHE=/tmp/cache $RUN
            """,
        )
        assert is_rejected(
            done,
            "cannot unpack /mnt/authproxy.pyz: /tmp/cache: Read-only file system; ",
            "/proc/cache/authproxy: No such file or directory; /proc/authproxy-0: ",
            "; /mnt/absent/authproxy-0: No such file or directory; ",
            "; /tmp/authproxy-0: Read-only file system; ",
            "; /var/tmp/authproxy-0: mounted noexec, ",
            "; /dev/shm is writable by all users; ",
            "; set AUTHPROXY_CACHE to a directory",
        )
