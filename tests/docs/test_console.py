"""The commands in the documentation run in a directory with the built zipapp.

Commands that need more than that are listed with the reason; their scripts, packages
and flags exist.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from authproxy.config.help import full_help
from support.programs import ROOT

from .blocks import BASE, VARIABLES, Block, blocks, with_files

# Commands that are not run, as regular expressions, with the reason.
NOT_RUN = {
    r"python3 zipapp/build\.py.*": "builds for minutes: tests/zipapp",
    r"python3 zipapp/lock\.py.*": "asks the package index: .ci/run checks the lock",
    r"python3 tests/run\.py.*": "runs these tests",
    r"\.venv-test/bin/python .*": "checks of the repository: CONTRIBUTING.md",
    r"\(cd tests && .*": "writes into the repository",
    r"docker compose .*": "needs Docker: tests/e2e/test_compose.py",
    r"python3 dist/authproxy\.pyz init authproxy\.cfg": "asks: tests/server/commands",
    r"authproxy migrate --from .*": "needs other programs' files: tests/server/migration",
    r"authproxy sessions .*": "needs sessions: tests/server/commands",
    r"helm (upgrade|template) .*": "run by tests/helm/test_docs.py",
}
# The server runs until it is stopped; with this flag, only its configuration is tested.
SERVER = re.compile(r"(python3 \S+\.pyz|authproxy)( --config \S+| --alpha-config \S+)+")
CONFIG_TEST = " --config-test"
# Commands whose exit code reports a finding.
FINDS = re.compile(r"python3 authproxy\.pyz migrate --check oauth2-proxy\.cfg")
WRITES_SECRETS = re.compile(r"(import secrets|keycloak-realm|init .*--stdout).*> *[^&]")
VARIABLE = re.compile(r"[\w-]{16,}|\b\d\d+\b")  # secrets and passwords, counts


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
RUN = [
    pytest.param(block, id=f"{block.name} {number}")
    for number, block in enumerate(CONSOLE)
    if not all(reason_not_to_run(command) for command, _ in commands(block))
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory where the zipapp unpacks itself once."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.mark.parametrize("block", RUN)
def test_console_commands_of_block_succeed(
    block: Block, built: Path, unpacked: Path, tmp_path: Path
) -> None:
    run = [pair for pair in commands(block) if not reason_not_to_run(pair[0])]
    prepare(tmp_path, block.page, built)
    script = ["set -eu", "exec 2>&1"]
    for command, _ in run:
        is_server = SERVER.fullmatch(command)
        text = command + (CONFIG_TEST if is_server else "")
        if FINDS.fullmatch(command):
            text = f"if {text}; then exit 9; fi"
        script += ["echo @@@", text]
    done = subprocess.run(
        ["bash", "-c", with_files("\n".join(script), tmp_path)],
        cwd=tmp_path,
        env={
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "AUTHPROXY_CACHE": str(unpacked),
            **({} if "export OAUTH2_PROXY_" in block.text else VARIABLES),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    _, *outputs = done.stdout.split("@@@\n")
    for (command, expected), output in zip(run, outputs, strict=True):
        if expected.strip():
            assert VARIABLE.sub("…", output) == VARIABLE.sub("…", expected), command


def prepare(folder: Path, page: Path, built: Path) -> None:
    """Create the files that the commands read: zipapp, configurations, ``authproxy``."""
    for name in ("dist", "bin", "deploy/compose"):
        (folder / name).mkdir(parents=True)
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
    [example, *_] = [block for block in blocks("toml") if block.name == "README.md"]
    lines = [
        f'{key} = "{value}"' for key, value in BASE.items() if key not in example.text
    ]
    (folder / "oauth2-proxy.cfg").write_text(f"{example.text}{chr(10).join(lines)}\n")


def test_secrets_are_written_to_private_files_only() -> None:
    """By the shell; files of ``authproxy init`` are always private."""
    texts = [command for block in CONSOLE for command, _ in commands(block)]
    found = [text for text in texts if WRITES_SECRETS.search(text)]
    assert len(found) >= 2
    assert [text for text in found if not text.startswith("(umask 077; ")] == []


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
    if words[0].endswith(".pyz"):
        program, *words = words
    if program == "docker":
        text = "--build"
    elif program.endswith(("authproxy", ".pyz")):
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
        if word.startswith(("tests/", "deploy/")):
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
