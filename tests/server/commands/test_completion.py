"""Completion scripts in bash, zsh and fish, and the manual page in man and mandoc."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.commands.completion_scripts import SCRIPTS
from authproxy.config.help import COMMANDS
from authproxy.config.options.table import CONTROL_OPTIONS, OPTIONS
from support.programs import find

TIMEOUT = 60.0  # seconds until a shell responds
CASES = [  # words before the cursor, a completion, a word that is none
    (["se"], "sessions", "--sessions"),
    (["--provid"], "--provider-display-name", "--client-id"),
    (["--provider", "keycloak"], "keycloak-oidc", "github"),
    (["--tls-min-version", ""], "TLS1.3", "--config"),
    (["explain", "--us"], "--user", "--group"),
    (["explain", "--cookie-na"], "--cookie-name", "--user"),
    (["sessions", "r"], "revoke", "list"),
    (["init", "--gateway", "ng"], "nginx", "traefik"),
    (["init", "--cl"], "--client-id", "--cookie-name"),
    (["migrate", "--accept", "trusted-p"], "trusted-proxies", "methods"),
    (["completion", ""], "fish", "toml"),
    (["schema", ""], "alpha", "bash"),
    (["help", "expl"], "explain", "sessions"),
    (["--config", "authp"], "authproxy.cfg", "other.cfg"),
    (["init", "authp"], "authproxy.cfg", "other.cfg"),
    (["--custom-templates-dir", ""], "templates", "authproxy.cfg"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts, and with files to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, make in SCRIPTS.items():
        (folder / f"script.{shell}").write_text(make())
    (folder / "authproxy.cfg").touch()
    (folder / "other.cfg").touch()
    (folder / "templates").mkdir()
    return folder


def shell(name: str) -> str:
    path = find(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return str(path)


def run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env={"HOME": str(folder), "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_bash_completes_commands_flags_and_values(folder: Path) -> None:
    lines = ["source ./script.bash"]
    for words, _, _ in CASES:
        quoted = " ".join(f"'{word}'" for word in ["authproxy", *words])
        lines.append(f"COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _authproxy")
        lines.append('printf "%s\\n" "${COMPREPLY[@]}" --')
    # --flag=value is three words for bash.
    lines += ["COMP_WORDS=(authproxy --provider = key); COMP_CWORD=3; _authproxy"]
    lines += ['printf "%s\\n" "${COMPREPLY[@]}"']
    out = run([shell("bash"), "-c", "\n".join(lines)], folder)
    *answers, last = out.split("--\n")
    assert len(answers) == len(CASES)
    for (words, expected, absent), answer in zip(CASES, answers, strict=True):
        assert expected in answer.split("\n"), words
        assert absent not in answer.split("\n"), words
    assert last.split() == ["keycloak", "keycloak-oidc"]


def test_fish_completes_commands_flags_and_values(folder: Path) -> None:
    lines = ["source ./script.fish"]
    for words, _, _ in CASES:
        lines.append(f"complete -C 'authproxy {' '.join(words)}'")
        lines.append("echo ==")
    out = run([shell("fish"), "--no-config", "-c", "\n".join(lines)], folder)
    answers = out.split("==\n")[:-1]
    assert len(answers) == len(CASES)
    for (words, expected, absent), answer in zip(CASES, answers, strict=True):
        found = [line.partition("\t")[0].rstrip("/") for line in answer.splitlines()]
        assert expected in found, words
        assert absent not in found, words


def terminal(command: Sequence[str], folder: Path, lines: Sequence[str]) -> str:
    """Type *lines* into an interactive shell and return what the terminal shows."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={"HOME": str(folder), "TERM": "dumb", "PATH": os.environ["PATH"]},
    )
    os.close(follower)
    try:
        shown = ""
        for number, line in enumerate(lines):
            mark = f"done-{number}-"
            typed = f"{line}\necho do''ne-{number}-\n"
            os.write(leader, typed.encode())
            shown += "".join(_read_until(leader, mark))
        return shown
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _read_until(leader: int, mark: str) -> Iterator[str]:
    deadline = time.monotonic() + TIMEOUT
    shown = ""
    while mark not in shown:
        ready, _, _ = select.select([leader], [], [], deadline - time.monotonic())
        assert ready, shown
        chunk = os.read(leader, 4096).decode(errors="replace")
        shown += chunk
        yield chunk


@pytest.mark.parametrize(
    ("name", "arguments", "setup"),
    [
        ("bash", ("--noprofile", "--norc", "-i"), "source ./script.bash"),
        (
            "zsh",
            ("-f", "-i"),
            "autoload -U compinit; compinit -u; source ./script.zsh",
        ),
    ],
)
def test_shell_completes_typed_words(
    name: str, arguments: Sequence[str], setup: str, folder: Path
) -> None:
    """The shell calls a function, whose output shows the completed words."""
    shown = terminal(
        [shell(name), *arguments],
        folder,
        [
            setup,
            'authproxy() { echo "<$*>"; }',
            "authproxy sess\t rev\t",
            "authproxy --provider keycloak-\t",
            "authproxy explain --cookie-na\t",
            "authproxy init --gateway ha\t",
            "authproxy --config authp\t",
            "authproxy schema al\t",
        ],
    )
    completed = [
        re.sub(r"[ =]+", " ", text).strip() for text in re.findall(r"<([^>$]+)>", shown)
    ]
    assert completed == [
        "sessions revoke",
        "--provider keycloak-oidc",
        "explain --cookie-name",
        "init --gateway haproxy",
        "--config authproxy.cfg",
        "schema alpha",
    ]


@pytest.mark.parametrize("name", SCRIPTS)
def test_completion_command_prints_script_with_all_flags(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", name]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == (SCRIPTS[name](), "")
    for option in (*OPTIONS, *CONTROL_OPTIONS):
        assert option.flag in out
    for command in COMMANDS:
        assert command in out


@pytest.mark.parametrize("arguments", [(), ("tcsh",), ("bash", "zsh")])
def test_completion_of_other_shell_is_usage_error(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", *arguments]) == 2
    assert "usage: authproxy completion bash|zsh|fish" in capsys.readouterr().err


@pytest.fixture
def page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The manual page as a file."""
    assert main(["help", "--man"]) == 0
    page = tmp_path / "authproxy.1"
    page.write_text(capsys.readouterr().out)
    return page


def test_manual_page_lists_commands_and_options(page: Path) -> None:
    text = page.read_text().replace("\\-", "-")
    for option in (*OPTIONS, *CONTROL_OPTIONS):
        assert f"\\fB--{option.flag}\\fR" in text
    for command in COMMANDS:
        assert f"\\fBauthproxy {command}\\fR" in text


def test_manual_page_renders_without_warnings(page: Path) -> None:
    command = [shell("man"), "--warnings", "-E", "UTF-8", "-l", "-Tutf8", page.name]
    out = run(command, page.parent)  # warnings would be on standard error
    assert "--cookie-expire duration" in re.sub(r".\x08|\x1b\[[0-9;]*m", "", out)


def test_manual_page_passes_lint(page: Path) -> None:
    done = subprocess.run(
        [shell("mandoc"), "-T", "lint", str(page)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    # A date would change the page from build to build.
    problems = [one for one in done.stdout.splitlines() if "missing date" not in one]
    assert problems == []
