"""The zipapp: build, cache, start, and rejection of damaged files."""

from __future__ import annotations

import http.client
import os
import resource
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
MAX_START_CPU = 0.3  # seconds of CPU time of ``--version``
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
    """A cache directory with the unpacked zipapp."""
    cache = tmp_path_factory.mktemp("cache")
    assert run(built, "--version", cache=cache).returncode == 0
    return cache


def run(
    archive: Path, *arguments: str, cache: Path | str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], **environment}
    if cache:
        variables["AUTHPROXY_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, str(archive), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and done.stdout.startswith("authproxy ")


def is_rejected(done: subprocess.CompletedProcess[str], *texts: str) -> bool:
    """Return whether it failed with one error line that contains all *texts*."""
    lines = done.stderr.splitlines()
    return (
        done.returncode == 1
        and not done.stdout
        and len(lines) == 1
        and all(text in lines[0] for text in ("authproxy: ", *texts))
    )


def digest_of(archive: Path) -> str:
    """Return the digest of a zipapp, the name of its directory in the cache."""
    with zipfile.ZipFile(archive) as source:
        return source.read("DIGEST").decode()


class TestStart:
    def test_unpacked_zipapp_starts_with_little_cpu(
        self, built: Path, filled: Path
    ) -> None:
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert succeeded(run(built, "--version", cache=filled))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            )
        assert min(times) <= MAX_START_CPU

    def test_file_is_executable(self, built: Path, filled: Path) -> None:
        environment = {"PATH": os.environ["PATH"], "AUTHPROXY_CACHE": str(filled)}
        done = subprocess.run(
            [built, "--version"], env=environment, capture_output=True, check=False
        )
        # The first python3 on PATH may be of another version.
        assert done.stdout.startswith(b"authproxy ") or b"was built for" in done.stderr

    def test_invalid_config_reported(
        self, built: Path, filled: Path, tmp_path: Path
    ) -> None:
        config = tmp_path / "bad.cfg"
        config.write_text(BAD_CONFIG)
        done = run(built, "--config", str(config), "--config-test", cache=filled)
        assert done.returncode != 0
        assert "no_such_option" in done.stderr
        assert "client_id" in done.stderr
        assert "Traceback" not in done.stderr

    def test_server_answers_ping_and_stops(
        self, built: Path, filled: Path, tmp_path: Path
    ) -> None:
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
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"OK")
            connection.close()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0

    @pytest.mark.skipif(find("redis-server") is None, reason="no redis-server")
    def test_redis_store_connects(
        self, built: Path, filled: Path, tmp_path: Path
    ) -> None:
        """The zipapp has the store's libraries: both of its connections are open."""
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

    def test_demo_starts_and_stops(
        self, built: Path, filled: Path, tmp_path: Path
    ) -> None:
        with Process(
            "demo",
            [sys.executable, built, "demo", "--port", "0"],
            folder=tmp_path,
            environment={"AUTHPROXY_CACHE": str(filled)},
        ) as process:
            process.wait_until(lambda: "Stop with Ctrl-C." in process.log())
            process.signal(signal.SIGINT)
            assert process.wait() == 0

    def test_modules_loaded_compiled_from_the_cache(
        self, built: Path, filled: Path
    ) -> None:
        done = run(built, "--version", cache=filled, PYTHONVERBOSE="1")
        folder = str(filled / digest_of(built))
        assert f"{folder}/authproxy/__pycache__" in done.stderr  # is compiled
        assert f"# wrote '{folder}" not in done.stderr


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
        assert cache.stat().st_mode & 0o777 == 0o700
        assert (cache / digest_of(built)).stat().st_mode & 0o777 == 0o700

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
        assert not home.exists()
        environment["XDG_CACHE_HOME"] = "relative"
        assert succeeded(run(built, "--version", **environment))
        assert (home / ".cache" / "authproxy" / digest_of(built)).is_dir()

    def test_unwritable_cache_falls_back_to_temporary_directory(
        self, built: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        impossible = tmp_path / "file" / "cache"
        environment = {"TMPDIR": str(tmp_path)}
        assert succeeded(run(built, "--version", cache=impossible, **environment))
        fallback = tmp_path / f"authproxy-{os.getuid()}"
        assert (fallback / digest_of(built)).is_dir()
        fallback.chmod(0o777)
        done = run(built, "--version", cache=impossible, **environment)
        assert is_rejected(done, str(fallback), "is writable by other users")

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

    def test_changed_byte_rejected(self, built: Path, tmp_path: Path) -> None:
        content = bytearray(built.read_bytes())
        content[len(content) // 2] ^= 1
        broken = tmp_path / "broken.pyz"
        broken.write_bytes(content)
        done = run(broken, "--version", cache=tmp_path / "cache")
        assert is_rejected(done, str(broken), "damaged")
        assert not os.listdir(tmp_path / "cache")

    def test_other_payload_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        archive = changed({"payload.zip": b"other"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert is_rejected(done, "damaged", "digest")

    @pytest.mark.parametrize(
        "digest", [None, b"", b"../" * 21 + b"x", b"\xff" * 64, b"A" * 64]
    )
    def test_invalid_digest_rejected(
        self,
        changed: Callable[[dict[str, bytes | None]], Path],
        tmp_path: Path,
        digest: bytes | None,
    ) -> None:
        done = run(changed({"DIGEST": digest}), "--version", cache=tmp_path / "cache")
        assert is_rejected(done, "damaged")

    def test_truncated_file_rejected(self, built: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.pyz"
        cut.write_bytes(built.read_bytes()[:100_000])
        done = run(cut, "--version", cache=tmp_path / "cache")
        assert done.returncode != 0  # Python cannot find __main__
        assert not (tmp_path / "cache").exists()

    def test_other_platform_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        archive = changed({"PLATFORM": b"cpython-399-sparc-solaris"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert is_rejected(
            done, "built for cpython-399-sparc-solaris", "this Python is"
        )


class TestBuild:
    def test_run_reuses_a_current_zipapp(self, built: Path, filled: Path) -> None:
        before = built.stat()
        arguments = ("--output", built, "--run", "--version")
        done = build(*arguments, AUTHPROXY_CACHE=str(filled))
        assert succeeded(done)
        assert "building" not in done.stderr
        assert built.stat().st_mtime_ns == before.st_mtime_ns

    def test_unneeded_files_removed(self, built: Path, filled: Path) -> None:
        folder = filled / digest_of(built)
        names = {path.name for path in folder.iterdir()}
        assert {"authproxy", "authproxy_core", "uvloop", "cryptography"} <= names
        assert "bin" not in names
        assert list(folder.glob("*.dist-info/METADATA"))
        assert list(folder.glob("*.dist-info/**/LICENSE*"))
        assert not list(folder.glob("*.dist-info/RECORD"))
        assert not list(folder.glob("*.dist-info/direct_url.json"))
        assert not list(folder.rglob("tests"))

    def test_build_is_reproducible(self, built: Path) -> None:
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

    def test_build_without_package_index_fails(self, tmp_path: Path) -> None:
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

    def test_unwritable_output_reported(self, built: Path, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        output = tmp_path / "file" / "authproxy.pyz"
        done = build("--output", output)
        assert done.returncode == 1
        assert f"cannot write {output}" in done.stderr
        assert "Traceback" not in done.stderr

    def test_build_creates_pip_if_missing(self, tmp_path: Path) -> None:
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
