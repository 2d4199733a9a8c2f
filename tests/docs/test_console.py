"""The commands in the documentation run in a directory with the built zipapp.

Commands that need more than that are listed with the reason; their scripts, packages
and flags exist.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from authproxy.config.help import full_help
from support.programs import ROOT

from .blocks import VARIABLES, Block, blocks, with_files

# Commands that are not run, as regular expressions, with the reason.
NOT_RUN = {
    r"python3 zipapp/build\.py.*": "builds for minutes: tests/zipapp",
    r"python3 zipapp/lock\.py.*": "asks the package index: .ci/run checks the lock",
    r"python3 tests/run\.py.*": "runs these tests",
    r"\.venv-test/bin/python .*": "checks of the repository: CONTRIBUTING.md",
    r"\(cd tests && .*": "writes into the repository",
    r"authproxy sessions .*": "needs sessions: tests/server/commands",
    r"helm (upgrade|template) .*": "run by tests/helm/test_docs.py",
}
# The server runs until it is stopped; with this flag, only its configuration is tested.
SERVER = re.compile(r"(python3 \S+\.pyz|authproxy)( --config \S+| --alpha-config \S+)+")
CONFIG_TEST = " --config-test"
GENERATED = re.compile(r"[\w-]{16,}")  # secrets and passwords


def commands(block: Block) -> list[tuple[str, str]]:
    """Return the commands of *block* with the output that it shows."""
    texts = re.split(r"^\$ ", block.text.replace("\\\n", ""), flags=re.MULTILINE)
    assert not texts[0].strip(), f"{block.name}: output without a command"
    pairs = (text.partition("\n") for text in texts[1:])
    return [(command.partition("  #")[0].strip(), out) for command, _, out in pairs]


def reason_not_to_run(command: str) -> str:
    found = (why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command))
    return next(found, "")


CONSOLE = blocks("console")
PAGES = {name: list(group) for name, group in groupby(CONSOLE, lambda one: one.name)}
RUN = [
    name
    for name, group in PAGES.items()
    if any(not reason_not_to_run(c) for block in group for c, _ in commands(block))
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where the zipapp unpacks itself once."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.mark.parametrize("name", RUN)
def test_console_commands_of_page_succeed(
    name: str, built: Path, unpacked: Path, tmp_path: Path
) -> None:
    shown = [pair for block in PAGES[name] for pair in commands(block)]
    run = [(c, output) for c, output in shown if not reason_not_to_run(c)]
    prepare(tmp_path, PAGES[name][0].page, built)
    script = ["set -eu", "exec 2>&1"]
    for command, _ in run:
        is_server = SERVER.fullmatch(command)
        script += ["echo @@@", command + (CONFIG_TEST if is_server else "")]
    exports_options = any("export OAUTH2_PROXY_" in command for command, _ in run)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "AUTHPROXY_CACHE": str(unpacked),
            **({} if exports_options else VARIABLES),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    _, *outputs = done.stdout.split("@@@\n")
    for (command, expected), output in zip(run, outputs, strict=True):
        if expected.strip():
            assert GENERATED.sub("…", output) == GENERATED.sub("…", expected), command


def prepare(folder: Path, page: Path, built: Path) -> None:
    """Create the files that the commands read: zipapp, configurations, ``authproxy``."""
    for name in ("dist", "bin"):
        (folder / name).mkdir()
    for name in ("dist/authproxy.pyz", "authproxy.pyz"):
        (folder / name).symlink_to(built)
    program = folder / "bin" / "authproxy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{built}" "$@"\n')
    program.chmod(0o755)
    (folder / "bin" / "python3").symlink_to(sys.executable)
    examples = [block.text for block in blocks("toml") if block.page == page]
    text = with_files(examples[0], folder) if examples else ""
    (folder / "authproxy.cfg").write_text(text)
    (folder / "rest.cfg").write_text('reverse_proxy = true\nemail_domains = "*"\n')
    shutil.copy(ROOT / "tests/e2e/reference.cfg", folder / "oauth2-proxy.cfg")


NOT_RUN_COMMANDS = [
    pytest.param(command, id=f"{block.name} {command}")
    for block in CONSOLE
    for command, _ in commands(block)
    if reason_not_to_run(command)
]


@pytest.mark.parametrize("command", NOT_RUN_COMMANDS)
def test_command_that_is_not_run_names_existing_files_and_flags(command: str) -> None:
    program, *words = shlex.split(command.strip("()").removeprefix("cd tests && "))
    text = full_help()
    if program == "authproxy":
        text += help_of(words[0])
    elif program == "helm":
        text = command  # tests/helm/test_docs.py runs it
    elif words[0] == "-m":
        package = words[1].partition(".")[0]
        places = [ROOT / part / package for part in ("server", "tests")]
        assert any(place.exists() for place in places) or package in ("pytest", "pip")
    else:
        text = (ROOT / words[0]).read_text()
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in text, word
        if word.startswith("tests/"):
            assert (ROOT / word).exists(), word


@cache
def help_of(command: str) -> str:
    """Return the usage of a command of authproxy."""
    path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
    done = subprocess.run(
        [sys.executable, "-m", "authproxy", command, "--help"],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_reason_is_used() -> None:
    texts = [command for block in CONSOLE for command, _ in commands(block)]
    for pattern in NOT_RUN:
        assert any(re.fullmatch(pattern, text) for text in texts), pattern
