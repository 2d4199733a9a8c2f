"""The build of the zipapp: contents, targets, lock, release."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.processes import Process
from support.programs import ROOT
from support.pythons import SUPPORTED, interpreters
from support.zipapp import (
    BUILD,
    NO_PACKAGES,
    build,
    digest_of,
    is_rejected,
    run,
    succeeded,
    targets_of,
)

LOCK = ROOT / "zipapp" / "requirements.txt"
OTLP_LOCK = ROOT / "zipapp" / "requirements-otlp.txt"
PLATFORMS = ("linux-x86_64", "linux-aarch64", "macos-arm64")
# Without the packages of the environment that runs the tests.
BASE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)
HERE = sysconfig.get_platform()  # differs from the build's name on macOS


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
        assert not list(folder.rglob("*.pyx"))

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
            "import wheels, pathlib, subprocess, sys; "
            "command = wheels.pip(pathlib.Path(sys.argv[1])); "
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


class TestTargets:
    @pytest.mark.skipif(
        HERE not in PLATFORMS, reason="no wheels known for this platform"
    )
    def test_each_supported_python_starts(self, tmp_path: Path) -> None:
        """One zipapp for all supported Pythons of this machine: start, settings, demo."""
        pythons = {v: p for v, p in interpreters().items() if v in SUPPORTED}
        archive, cache = tmp_path / "authproxy.pyz", tmp_path / "cache"
        done = build("--output", archive, "--python", ",".join(pythons))
        assert done.returncode == 0, done.stderr
        targets = targets_of(archive)
        assert list(targets) == [f"{version}-{HERE}" for version in pythons]
        flags = ["--provider=github", "--client-id=a", "--client-secret=b"]
        flags += ["--email-domain=*", f"--cookie-secret={'0123456789abcdef' * 2}"]
        for version, python in pythons.items():
            done = run(archive, *flags, "--config-test", cache=cache, python=python)
            assert (done.returncode, done.stdout) == (0, "configuration is valid\n")
            with Process(
                f"demo-{version}",
                [python, archive, "demo", "--port", "0"],
                folder=tmp_path,
                environment={"AUTHPROXY_CACHE": str(cache)},
            ) as process:
                process.wait_until(lambda: "Stop with Ctrl-C." in process.log(), 60.0)
                process.signal(signal.SIGINT)
                assert process.wait() == 0
        assert set(os.listdir(cache)) == set(targets.values())

    def test_other_platforms_get_their_wheels(self, tmp_path: Path) -> None:
        archive = tmp_path / "authproxy.pyz"
        platforms = "linux-aarch64,macos-arm64"
        done = build(
            "--output", archive, "--python", "3.14", "--platform", platforms
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(archive) as source:
            names = [name for name in source.namelist() if name.startswith("wheels/")]
        assert sum("uvloop" in name for name in names) == 2
        assert sum("aarch64" in name for name in names) > 5
        assert sum("macosx" in name for name in names) > 5
        assert sum("/h11-" in name for name in names) == 1  # shared, because it is pure
        done = run(archive, "--version", cache=tmp_path / "cache")
        assert is_rejected(
            done, "was built for 3.14-linux-aarch64, 3.14-macos-arm64, but this Python"
        )

    @pytest.mark.parametrize(
        "arguments", [["--python=3.10"], ["--platform=plan9-mips"], ["--python=3.11,"]]
    )
    def test_unknown_target_rejected(
        self, tmp_path: Path, arguments: list[str]
    ) -> None:
        done = build(*arguments, "--output", tmp_path / "authproxy.pyz")
        assert done.returncode == NO_PACKAGES
        assert "no wheels are known for" in done.stderr
        assert "the Pythons are 3.11, 3.12" in done.stderr
        assert "Traceback" not in done.stderr


class TestLock:
    @pytest.mark.parametrize("lock", [LOCK, OTLP_LOCK], ids=lambda path: path.stem)
    def test_lock_has_versions_and_digests_but_no_hosts(self, lock: Path) -> None:
        """Any package index can serve the files, because their digests are known."""
        text = lock.read_text()
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        if lock == OTLP_LOCK:
            project["dependencies"] += project["optional-dependencies"]["otlp"]
            assert set(LOCK.read_text().splitlines()) <= set(text.splitlines())
        locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))
        for requirement in project["dependencies"]:
            name, _, minimum = requirement.partition(">=")
            assert parsed(locked[name.lower()]) >= parsed(minimum)
        blocks = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
        assert len(blocks) == len(locked)
        for block in blocks:
            assert re.fullmatch(
                r"\S+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+", block
            )
        assert "://" not in text
        assert "--index" not in text

    def test_file_with_another_digest_rejected(self, tmp_path: Path) -> None:
        tree = copy_of_sources(tmp_path)
        lock = tree / "zipapp" / "requirements.txt"
        lock.write_text(
            re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", lock.read_text())
        )
        output = tmp_path / "authproxy.pyz"
        done = build("--output", output, script=tree / "zipapp" / "build.py")
        assert done.returncode == NO_PACKAGES
        assert "DO NOT MATCH THE HASHES" in done.stderr
        assert not output.exists()


class TestRelease:
    def test_release_is_reproducible_and_complete(
        self, built: Path, tmp_path: Path
    ) -> None:
        """Two builds: in another directory with other times, modes and environment.

        They have the packages for traces, which the usual zipapp lacks.
        """
        tree = copy_of_sources(tmp_path)
        for path in tree.rglob("*.py"):
            os.utime(path, (1e9, 1e9))
            path.chmod(0o600)
        here, there = tmp_path / "here", tmp_path / "there"
        for folder, script in ((here, BUILD), (there, tree / "zipapp" / "build.py")):
            done = build(
                "--release", "--otlp", "--output", folder / "authproxy.pyz", script=script,
                SOURCE_DATE_EPOCH="1764000000",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        names = {path.name for path in here.iterdir()}
        assert names == {"authproxy.pyz", "authproxy.cdx.json", "SHA256SUMS"}
        for name in names:
            assert (here / name).read_bytes() == (there / name).read_bytes()
        for line in (here / "SHA256SUMS").read_text().splitlines():
            digest, _, name = line.partition("  ")
            content = (here / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == digest
        with zipfile.ZipFile(here / "authproxy.pyz") as archive:
            assert {info.date_time[:3] for info in archive.infolist()} == {
                (2025, 11, 24)
            }
            wheels = [name for name in archive.namelist() if name.startswith("wheels/")]
            digests = {
                name.removeprefix("wheels/"): hashlib.sha256(
                    archive.read(name)
                ).hexdigest()
                for name in wheels
            }
        bill = json.loads((here / "authproxy.cdx.json").read_text())
        check_bill(bill, digests)
        flags = ("--config-test", "--otlp-endpoint=http://127.0.0.1:4318")
        reported = [
            "build the zipapp with --otlp" in run(
                archive, *flags, cache=tmp_path / "cache", python=BASE_PYTHON
            ).stderr
            for archive in (here / "authproxy.pyz", built)
        ]  # fmt: skip
        assert reported == [False, True]

    def test_wheels_are_as_published(self, built: Path) -> None:
        """The digest of each wheel but the project's is in the lock."""
        lock = LOCK.read_text()
        with zipfile.ZipFile(built) as archive:
            for name in archive.namelist():
                if name.startswith("wheels/") and "authproxy" not in name:
                    digest = hashlib.sha256(archive.read(name)).hexdigest()
                    assert f"--hash=sha256:{digest}" in lock

    def test_project_wheel_is_installable(self, built: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(built) as archive:
            [name] = [name for name in archive.namelist() if "/authproxy-" in name]
            archive.extract(name, tmp_path)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        command += ["--no-index", "--target", str(tmp_path / "site")]
        subprocess.run([*command, str(tmp_path / name)], check=True)
        assert (tmp_path / "site" / "authproxy" / "py.typed").exists()


def check_bill(bill: dict[str, Any], digests: dict[str, str]) -> None:
    """Check the bill of materials against the wheels of the zipapp."""
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["timestamp"] == "2025-11-24T16:00:00Z"
    own = bill["metadata"]["component"]
    assert own["purl"].startswith("pkg:pypi/authproxy@")
    found = {one["bom-ref"]: one["hashes"][0]["content"] for one in bill["components"]}
    assert found == {name: digests[name] for name in digests if name != own["bom-ref"]}
    assert all(one["licenses"] for one in bill["components"])
    requires = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    packages = {ref: {name.split("-")[0] for name in requires[ref]} for ref in requires}
    assert {"uvloop", "h2", "cryptography"} <= packages[own["bom-ref"]]
    [h2] = [ref for ref in requires if ref.startswith("h2-")]
    assert packages[h2] == {"hpack", "hyperframe"}


def copy_of_sources(folder: Path) -> Path:
    """Return a copy of what the build reads."""
    tree = folder / "tree"
    for name in ("core", "server", "zipapp"):
        shutil.copytree(
            ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


def parsed(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
