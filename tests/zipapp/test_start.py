"""The zipapp: start, and rejection of other Pythons and damaged files."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import find
from support.pythons import OLD, interpreters
from support.redis import RedisServer
from support.zipapp import BUILD, digest_of, is_rejected, run, succeeded

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
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
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


@pytest.fixture
def changed(
    built: Path, tmp_path: Path
) -> Iterator[Callable[[dict[str, bytes | None]], Path]]:
    """Return a function that copies the zipapp with changed or removed files.

    Nothing may stay in the cache of the test.
    """

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


class TestDamage:
    def test_changed_byte_rejected(self, built: Path, tmp_path: Path) -> None:
        content = bytearray(built.read_bytes())
        content[len(content) // 2] ^= 1
        broken = tmp_path / "broken.pyz"
        broken.write_bytes(content)
        done = run(broken, "--version", cache=tmp_path / "cache")
        assert is_rejected(done, str(broken), "damaged")
        assert not os.listdir(tmp_path / "cache")

    def test_other_wheel_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        wheel = next(name for name in names_in(changed({})) if "uvloop" in name)
        for content, problem in ((b"other", "digest of uvloop"), (None, "no item")):
            done = run(changed({wheel: content}), "--version", cache=tmp_path / "cache")
            assert is_rejected(done, "damaged", problem)

    @pytest.mark.parametrize(
        "digest", [b"", b"../" * 21 + b"x", b"\xff" * 64, b"A" * 64]
    )
    def test_invalid_digest_rejected(
        self,
        changed: Callable[[dict[str, bytes | None]], Path],
        tmp_path: Path,
        digest: bytes,
    ) -> None:
        target = next(name for name in names_in(changed({})) if "targets/" in name)
        archive = changed({target: digest + b"\n"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert is_rejected(done, "damaged")

    def test_other_list_of_wheels_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        target = next(name for name in names_in(changed({})) if "targets/" in name)
        archive = changed({target: b"0" * 64 + b"\n"})
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert is_rejected(done, "damaged", "list of wheels")

    def test_damaged_module_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        for content in (None, b"\xff", b"import nothing_of_this_name"):
            archive = changed({"bootstrap.py": content})
            done = run(archive, "--version", cache=tmp_path / "cache")
            assert is_rejected(done, str(archive), "is damaged", "copy it again")

    def test_truncated_file_explained(self, built: Path, tmp_path: Path) -> None:
        """Python reads it as a script, because it has no zip directory at its end."""
        cut = tmp_path / "cut.pyz"
        cut.write_bytes(built.read_bytes()[:100_000])
        for version, python in interpreters().items():
            done = run(cut, "--version", cache=tmp_path / "cache", python=python)
            assert done.returncode == 1, version
            assert "authproxy: this file is incomplete" in done.stderr, version
            assert "Traceback" not in done.stderr, version
        assert not (tmp_path / "cache").exists()

    def test_other_target_rejected(
        self, changed: Callable[[dict[str, bytes | None]], Path], tmp_path: Path
    ) -> None:
        target = next(name for name in names_in(changed({})) if "targets/" in name)
        archive = changed({target: None, "targets/3.99-solaris-sparc": b""})
        done = run(archive, "--version", cache=tmp_path / "cache")
        here = target.removeprefix("targets/")
        assert is_rejected(
            done, "built for 3.99-solaris-sparc", f"this Python is {here}", "build.py"
        )


class TestOldPython:
    def test_old_python_gets_one_line(self, built: Path, tmp_path: Path) -> None:
        """Python 2.7 and 3.0 to 3.10, those of this machine."""
        old = {key: path for key, path in interpreters().items() if key in OLD}
        if not old:
            pytest.skip("no Python older than 3.11")
        for version, python in old.items():
            done = run(built, "--version", cache=tmp_path / "cache", python=python)
            assert is_rejected(
                done, "Python 3.11 or later is required", f"this is {version}."
            )
        assert not (tmp_path / "cache").exists()

    def test_build_with_old_python_gets_one_line(self) -> None:
        old = {key: path for key, path in interpreters().items() if key in OLD}
        if not old:
            pytest.skip("no Python older than 3.11")
        for version, python in old.items():
            done = run(BUILD, python=python, PYTHONDONTWRITEBYTECODE="1")
            assert is_rejected(
                done, "Python 3.11 or later is required", f"this is {version}."
            )


def names_in(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as source:
        return source.namelist()
