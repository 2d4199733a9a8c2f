"""The command line: output, exit codes, imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from support.configuration import BASE
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.programs import ROOT

HOME = {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'server'}"}


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set only the variables of a valid configuration."""
    for name in list(os.environ):
        if name.startswith("OAUTH2_PROXY_"):
            monkeypatch.delenv(name)
    for name, value in BASE.items():
        monkeypatch.setenv(name, value)


def run(
    arguments: Sequence[str], env: Mapping[str, str] = BASE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "authproxy", *arguments],
        env={**HOME, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version_prints_version() -> None:
    done = run(["--version"], {})
    assert (done.returncode, done.stdout, done.stderr) == (0, "authproxy 0.1.0\n", "")


def test_version_imports_only_the_command_line() -> None:
    probe = (
        "import sys; before = set(sys.modules); from authproxy.commands.cli import main; "
        "main(['--version']); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env=HOME,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    loaded = set(done.stdout.splitlines()[1].split())
    assert loaded <= {"__future__", "authproxy", "authproxy.commands", "authproxy.commands.cli", "collections.abc",
                      "collections", "gc", "itertools", "keyword", "operator", "_operator",
                      "reprlib", "_collections", "_collections_abc"}  # fmt: skip


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_prints_usage(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: authproxy [--config FILE] [flags]\n")
    assert "  --cookie-expire  " in out
    assert err == ""
    assert main(["--help-all"]) == 0
    assert "  --cookie-expire duration\n" in capsys.readouterr().out
    assert main(["help"]) == 0
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        ("sessions", "--user USER"),
        ("explain", "--user USER"),
        ("migrate", "--accept ID"),
        ("completion", "~/.bashrc"),
        ("schema", "JSON schema"),
    ],
)
@pytest.mark.parametrize(
    "form", [("NAME", "--help"), ("NAME", "list", "-h"), ("help", "NAME")], ids=" ".join
)
def test_command_help_prints_its_usage(
    command: str, flag: str, form: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command if part == "NAME" else part for part in form]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: authproxy {command} ")
    assert flag in out
    assert err == ""


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("sesions", "list"), "got 'sesions'; did you mean sessions?"),
        (("top-secret",), "the first argument is neither a flag nor a command\n"),
        (("--config-test", "explain"), "neither a flag nor a command after --config-t"),
        (("help", "hlep"), "got 'hlep'; did you mean help?"),
    ],
)
def test_unknown_command_starts_no_server(
    arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert "top-secret" not in err


def test_closed_pipe_ends_output_without_traceback() -> None:
    """As in ``authproxy --help-all | head -1``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "authproxy", "--help-all"],
            env=HOME,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.usefixtures("base")
def test_config_test_valid_configuration_prints_warnings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--config-test", "--reverse-proxy"]) == 0
    out, err = capsys.readouterr()
    assert out == "configuration is valid\n"
    assert err.startswith("warning: reverse_proxy (--reverse-proxy): ")


@pytest.mark.usefixtures("base")
def test_config_test_invalid_configuration_prints_all_problems(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file.cfg"
    file.write_text('email_domain = "*"\ncookie_expire = "1d"\n')
    assert main(["--config-test", "--config", str(file), "--client-secret="]) == 1
    assert capsys.readouterr() == (
        "",
        "invalid configuration:\n"
        f"  email_domain ({file}:1): unknown key; did you mean email_domains?\n"
        f"  cookie_expire ({file}:2): got '1d', expected a duration with a unit, such "
        "as 1h30m or 90s\n"
        "  client_secret (--client-secret): missing (or client_secret_file)\n",
    )


@pytest.mark.usefixtures("base")
def test_invalid_configuration_prints_warnings_before_problems(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("OAUTH2_PROXY_EMAIL_DOMAINS")
    monkeypatch.setenv("OAUTH2_PROXY_EMAIL_DOMAIN", "*")
    (tmp_path / "file.toml").write_text("upstream_timeout = 3000000000")
    assert main([f"--config={tmp_path / 'file.toml'}"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("warning: upstream_timeout ")
    assert lines[1:3] == [
        "invalid configuration:",
        "  OAUTH2_PROXY_EMAIL_DOMAIN: unknown environment variable; did you mean "
        "OAUTH2_PROXY_EMAIL_DOMAINS?",
    ]
    assert lines[3].startswith("  email_domains: missing")


def test_invalid_flags_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cookie-secre=topsecret", "-x", "--workers=many"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("invalid command line:\n  --cookie-secre: unknown")
    assert err.count("\n") == 5
    assert err.endswith("authproxy --help lists flags and commands\n")
    assert "topsecret" not in err


def test_invalid_configuration_does_not_listen() -> None:
    port = free_port()
    done = run([f"--http-address={LOOPBACK}:{port}", "--cookie-secret=short"])
    assert (done.returncode, done.stdout) == (1, "")
    assert "listening" not in done.stderr


def test_demo_receives_remaining_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--help"])
    assert caught.value.code == 0
    assert "authproxy demo" in capsys.readouterr().out


def test_server_starts_and_stops(tmp_path: Path) -> None:
    port = free_port()
    process = Process(
        "authproxy",
        [sys.executable, "-m", "authproxy", f"--http-address={LOOPBACK}:{port}",
         "--workers=1"],
        folder=tmp_path,
        environment={**HOME, **BASE, "OAUTH2_PROXY_OIDC_ISSUER_URL": "http://127.0.0.1:9"},
    )  # fmt: skip
    try:
        process.wait_until(lambda: listens(port), 20.0)
    finally:
        process.stop()
