"""The archive: built once, unpacked once, started from outside."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import find
from support.redis import RedisServer
from support.zipapp import BUILD, NO_PACKAGES, build

ROOT = Path(__file__).resolve().parents[1]
VERSION_LIMIT = 0.3  # seconds
BAD_CONFIG = 'provider = "oidc"\nno_such_option = true\n'
GOOD_CONFIG = """
provider = "oidc"
oidc_issuer_url = "http://127.0.0.1:9"
client_id = "id"
client_secret = "secret"
cookie_secret = "0123456789abcdef0123456789abcdef"
email_domains = "*"
upstreams = "static://200"
http_address = "127.0.0.1:{port}"
"""


@pytest.fixture(scope="session")
def filled(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the archive is unpacked already."""
    cache = tmp_path_factory.mktemp("cache")
    assert run(built, "--version", cache=cache).returncode == 0
    return cache


def run(
    archive: Path, *arguments: str, cache: Path | str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    given = {"PATH": os.environ["PATH"], **environment}
    if cache:
        given["AUTHPROXY_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, str(archive), *arguments],
        env=given,
        capture_output=True,
        text=True,
        timeout=60,
    )


def starts(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and done.stdout.startswith("authproxy ")


def refused(done: subprocess.CompletedProcess[str], *texts: str) -> bool:
    """Whether it ended with one plain line that has all *texts*."""
    lines = done.stderr.splitlines()
    return (
        done.returncode == 1
        and not done.stdout
        and len(lines) == 1
        and all(text in lines[0] for text in ("authproxy: ", *texts))
    )


def member(archive: Path) -> str:
    """The name of the folder that the archive is unpacked to."""
    with zipfile.ZipFile(archive) as source:
        return source.read("DIGEST").decode()


class TestStart:
    def test_version_is_quick_once_unpacked(self, built: Path, filled: Path) -> None:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            assert starts(run(built, "--version", cache=filled))
            times.append(time.perf_counter() - begun)
        assert min(times) <= VERSION_LIMIT

    def test_executable(self, built: Path, filled: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "AUTHPROXY_CACHE": str(filled)}
        done = subprocess.run(
            [built, "--version"], env=environment, capture_output=True, check=False
        )
        # Another python3 may come first on the path: then it says so.
        assert done.stdout.startswith(b"authproxy ") or b"was built for" in done.stderr

    def test_bad_config(self, built: Path, filled: Path, tmp_path: Path) -> None:
        config = tmp_path / "bad.cfg"
        config.write_text(BAD_CONFIG)
        done = run(built, "--config", str(config), "--config-test", cache=filled)
        assert done.returncode != 0
        assert "no_such_option" in done.stderr
        assert "client_id" in done.stderr
        assert "Traceback" not in done.stderr

    def test_ping(self, built: Path, filled: Path, tmp_path: Path) -> None:
        port = free_port()
        config = tmp_path / "good.cfg"
        config.write_text(GOOD_CONFIG.format(port=port))
        with Process(
            "authproxy",
            [sys.executable, built, "--config", config],
            folder=tmp_path,
            environment={"AUTHPROXY_CACHE": str(filled)},
        ) as process:
            process.wait_until(lambda: listens(port))
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
            connection.request("GET", "/ping")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"OK")
            connection.close()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0

    @pytest.mark.skipif(find("redis-server") is None, reason="no redis-server")
    def test_redis(self, built: Path, filled: Path, tmp_path: Path) -> None:
        """The store's own libraries are in it: both of its links stand."""
        with RedisServer(tmp_path) as redis:
            config = tmp_path / "config.toml"
            config.write_text(
                GOOD_CONFIG.format(port=free_port())
                + f'session_store_type = "redis"\nredis_connection_url = "{redis.url}"'
                + "\nworkers = 1\n"
            )
            with Process(
                "authproxy",
                [sys.executable, built, "--config", config],
                folder=tmp_path,
                environment={"AUTHPROXY_CACHE": str(filled)},
            ) as process:
                process.wait_until(
                    lambda: (
                        "cmd=client|tracking" in redis.ask("CLIENT", "LIST")
                        or "flags=tB" in redis.ask("CLIENT", "LIST")
                    ),
                    30.0,
                )

    def test_demo(self, built: Path, filled: Path, tmp_path: Path) -> None:
        with Process(
            "demo",
            [sys.executable, built, "demo", "--port", "0"],
            folder=tmp_path,
            environment={"AUTHPROXY_CACHE": str(filled)},
        ) as process:
            process.wait_until(lambda: "Stop with Ctrl-C." in process.log())
            process.signal(signal.SIGINT)
            assert process.wait() == 0

    def test_runs_from_the_unpacked_files(self, built: Path, filled: Path) -> None:
        done = run(built, "--version", cache=filled, PYTHONVERBOSE="1")
        folder = str(filled / member(built))
        assert f"{folder}/authproxy/__pycache__" in done.stderr  # compiled already
        assert f"# wrote '{folder}" not in done.stderr


class TestCache:
    def test_several_starts_at_once(self, built: Path, tmp_path: Path) -> None:
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
        assert os.listdir(cache) == [member(built)]
        assert cache.stat().st_mode & 0o777 == 0o700
        assert (cache / member(built)).stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
    def test_others_can_write_to_the_cache(
        self, built: Path, tmp_path: Path, mode: int
    ) -> None:
        tmp_path.chmod(mode)
        done = run(built, "--version", cache=tmp_path)
        assert refused(done, str(tmp_path), "can be written to by others")
        assert not os.listdir(tmp_path)

    def test_others_can_write_to_the_unpacked_files(
        self, built: Path, tmp_path: Path
    ) -> None:
        folder = tmp_path / member(built)
        (folder / "authproxy").mkdir(parents=True)
        (folder / "authproxy" / "cli.py").write_text("raise SystemExit('planted')")
        folder.chmod(0o777)
        done = run(built, "--version", cache=tmp_path)
        assert refused(done, str(folder), "can be written to by others")

    def test_anybody_can_replace_the_cache(self, built: Path, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        cache = tmp_path / "a" / "cache"
        done = run(built, "--version", cache=cache)
        assert refused(done, f"anybody can write to {tmp_path};")
        tmp_path.chmod(0o1777)
        assert starts(run(built, "--version", cache=cache))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
    @pytest.mark.parametrize("inner", [False, True])
    def test_cache_of_another_user(
        self, built: Path, tmp_path: Path, inner: bool
    ) -> None:
        folder = tmp_path / member(built) if inner else tmp_path
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, 12345, 12345)
        done = run(built, "--version", cache=tmp_path)
        assert refused(done, str(folder), "belongs to another user")

    def test_symbolic_link_of_our_own(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir(mode=0o700)
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert starts(run(built, "--version", cache=tmp_path / "link"))
        assert (tmp_path / "real" / member(built)).is_dir()

    def test_planted_link_instead_of_the_files(
        self, built: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / member(built)).symlink_to(tmp_path / "elsewhere")
        assert refused(run(built, "--version", cache=tmp_path), member(built))

    def test_places_in_their_order(self, built: Path, tmp_path: Path) -> None:
        home, xdg = tmp_path / "home", tmp_path / "xdg"
        environment = {"HOME": str(home), "XDG_CACHE_HOME": str(xdg)}
        assert starts(run(built, "--version", **environment))
        assert (xdg / "authproxy" / member(built)).is_dir()
        assert not home.exists()
        environment["XDG_CACHE_HOME"] = "relative"
        assert starts(run(built, "--version", **environment))
        assert (home / ".cache" / "authproxy" / member(built)).is_dir()

    def test_fallback_when_not_writable(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        impossible = tmp_path / "file" / "cache"
        environment = {"TMPDIR": str(tmp_path)}
        assert starts(run(built, "--version", cache=impossible, **environment))
        fallback = tmp_path / f"authproxy-{os.getuid()}"
        assert (fallback / member(built)).is_dir()
        fallback.chmod(0o777)
        done = run(built, "--version", cache=impossible, **environment)
        assert refused(done, str(fallback), "can be written to by others")

    def test_leftovers_of_killed_starts(self, built: Path, tmp_path: Path) -> None:
        old, young = tmp_path / ".unpacking-old", tmp_path / ".unpacking-young"
        for folder in (old, young):
            folder.mkdir()
            (folder / "file").touch()
        two_days_ago = time.time() - 48 * 3600
        os.utime(old, (two_days_ago, two_days_ago))
        assert starts(run(built, "--version", cache=tmp_path))
        assert not old.exists()
        assert young.exists()


class TestDamage:
    @pytest.fixture
    def changed(
        self, built: Path, tmp_path: Path
    ) -> Iterator[Callable[[dict[str, bytes | None]], Path]]:
        def change(changes: dict[str, bytes | None]) -> Path:
            with zipfile.ZipFile(built) as source:
                files = {name: source.read(name) for name in source.namelist()}
            target = tmp_path / "changed.pyz"
            with zipfile.ZipFile(target, "w") as archive:
                for name, data in {**files, **changes}.items():
                    if data is not None:
                        archive.writestr(name, data)
            return target

        yield change
        assert not (tmp_path / "cache").exists() or not os.listdir(tmp_path / "cache")

    def test_broken_byte(self, built: Path, tmp_path: Path) -> None:
        content = bytearray(built.read_bytes())
        content[len(content) // 2] ^= 1
        broken = tmp_path / "broken.pyz"
        broken.write_bytes(content)
        done = run(broken, "--version", cache=tmp_path / "cache")
        assert refused(done, str(broken), "damaged")
        assert not os.listdir(tmp_path / "cache")

    def test_other_payload(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        archive = changed({"payload.zip": b"other"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert refused(done, "damaged", "digest")

    @pytest.mark.parametrize(
        "digest", [None, b"", b"../" * 21 + b"x", b"\xff" * 64, b"A" * 64]
    )
    def test_bad_digest(
        self,
        changed: Callable[[dict[str, bytes | None]], Path],
        tmp_path: Path,
        digest: bytes | None,
    ) -> None:
        done = run(changed({"DIGEST": digest}), "--version", cache=tmp_path / "cache")
        assert refused(done, "damaged")

    def test_cut_off(self, built: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.pyz"
        cut.write_bytes(built.read_bytes()[:100_000])
        done = run(cut, "--version", cache=tmp_path / "cache")
        assert done.returncode != 0  # Python itself says that it can't find __main__
        assert not (tmp_path / "cache").exists()

    def test_other_platform(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        archive = changed({"PLATFORM": b"cpython-399-sparc-solaris"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert refused(done, "built for cpython-399-sparc-solaris", "this Python is")


class TestBuild:
    def test_run_uses_a_fresh_archive(self, built: Path, filled: Path) -> None:
        before = built.stat()
        arguments = ("--output", built, "--run", "--version")
        done = build(*arguments, AUTHPROXY_CACHE=str(filled))
        assert starts(done)
        assert "building" not in done.stderr
        assert built.stat().st_mtime_ns == before.st_mtime_ns

    def test_only_what_is_needed(self, built: Path, filled: Path) -> None:
        folder = filled / member(built)
        names = {path.name for path in folder.iterdir()}
        assert {"authproxy", "authproxy_core", "uvloop", "cryptography"} <= names
        assert "bin" not in names
        assert list(folder.glob("*.dist-info/METADATA"))
        assert list(folder.glob("*.dist-info/**/LICENSE*"))
        assert not list(folder.glob("*.dist-info/RECORD"))
        assert not list(folder.glob("*.dist-info/direct_url.json"))
        assert not list(folder.rglob("tests"))

    def test_no_trace_of_time(self, built: Path) -> None:
        with zipfile.ZipFile(built) as archive:
            infos = archive.infolist()
            with (
                archive.open("payload.zip") as stream,
                zipfile.ZipFile(stream) as inner,
            ):
                infos += inner.infolist()
                names = [info.filename for info in inner.infolist()]
        assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
        assert not any("__pycache__" in name for name in names)

    def test_without_packages(self, tmp_path: Path) -> None:
        output = tmp_path / "authproxy.pyz"
        done = build(
            "--output",
            output,
            PIP_CONFIG_FILE=os.devnull,
            PIP_NO_INDEX="1",
            PIP_FIND_LINKS=str(tmp_path),
        )
        assert done.returncode == NO_PACKAGES
        assert "pip failed" in done.stderr
        assert "network" in done.stderr
        assert "Traceback" not in done.stderr
        assert not os.listdir(tmp_path)

    def test_place_that_can_not_be_written(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        output = tmp_path / "file" / "authproxy.pyz"
        done = build("--output", output)
        assert done.returncode == 1
        assert f"can't write {output}" in done.stderr
        assert "Traceback" not in done.stderr

    def test_python_without_pip(self, tmp_path: Path) -> None:
        venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
        code = (
            "import build, pathlib, subprocess, sys; "
            "command = build.pip(pathlib.Path(sys.argv[1])); "
            "sys.exit(subprocess.call([*command, '--version']))"
        )
        done = subprocess.run(
            [tmp_path / "bare" / "bin" / "python", "-c", code, tmp_path / "spare"],
            env={**os.environ, "PYTHONPATH": str(BUILD.parent)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("pip ")
        assert str(tmp_path / "spare") in done.stdout
