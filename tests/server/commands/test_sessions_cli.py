"""``authproxy sessions`` with a running deployment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authproxy.commands.sessions_cli import _printable, parse_arguments
from authproxy.config.read.resolved import UsageError
from support.login import Browser, Provider
from support.processes import wait_for
from support.program import Program
from support.programs import ROOT, find
from support.redis import RedisServer


@pytest.fixture
def provider() -> Iterator[Provider]:
    """Start a provider."""
    with Provider() as found:
        yield found


class Shell:
    """Runs the command with the configuration of *program*."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
        return subprocess.run(
            [
                sys.executable,
                *("-m", "authproxy", "sessions"),
                *arguments,
                *("--config", str(self.program.config)),
            ],
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
            timeout=20,
            check=False,
        )

    def output(self, *arguments: str) -> str:
        """Return the output of a successful command."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@contextlib.contextmanager
def running(directory: Path, provider: Provider, **options: Any) -> Iterator[Shell]:
    """Start a server and return a shell for it."""
    with Program(directory, **provider.options(), **options) as program:
        browser = provider.browser()

        def ready() -> bool:
            with contextlib.suppress(OSError):
                return browser.get("/ready").status == 200
            return False

        program.wait_until(ready)
        yield Shell(program)


def log_in(provider: Provider, user: str) -> Browser:
    """Return a browser with a session."""
    browser = provider.browser()
    browser.log_in(user)
    assert browser.check() == 202
    return browser


def wait_until_signed_out(browser: Browser) -> None:
    wait_for(lambda: browser.check() == 401, "the end of the session")


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Return options for stored sessions."""
    if request.param == "sqlite":
        yield {"session_store_type": "sqlite", "sqlite_path": str(tmp_path / "s.db")}
        return
    if find("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    with RedisServer(tmp_path) as server:
        yield {"session_store_type": "redis", "redis_connection_url": server.url}


def test_sessions_stored_listed_shown_and_revoked(
    tmp_path: Path, provider: Provider, store: dict[str, Any]
) -> None:
    """Revoked by user, by provider session (sid), and all of them."""
    with running(tmp_path, provider, workers=2, **store) as shell:
        assert shell.output("list").split() == [
            "session", "user", "email", "provider", "login", "refreshed",
        ]  # fmt: skip
        assert shell.output("list", "--json") == "[]\n"
        assert shell.output("show", "--user=unknown") == "no session\n"
        browsers = [log_in(provider, user) for user in ("alice", "alice", "bob")]
        table = shell.output("list").splitlines()
        assert len(table) == 4
        assert [("bob" in line) for line in table] == [False, False, False, True]
        sessions = json.loads(shell.output("list", "--json"))
        assert len({session["session"] for session in sessions}) == 3
        [bob] = json.loads(shell.output("list", "--json", "--user", "bob@example.com"))
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", bob["login"])
        shown = shell.output("show", f"--sid={bob['sid']}")
        assert f"subject: {bob['subject']}\n" in shown
        everything = shell.output("list", "--json") + shown
        assert "eyJ" not in everything  # no token
        assert browsers[0].jar.named("_oauth2_proxy")["_oauth2_proxy"] not in everything

        assert shell.output("revoke", "--user=alice") == "2 sessions revoked\n"
        for browser in browsers[:2]:
            wait_until_signed_out(browser)
        assert browsers[2].check() == 202
        assert shell.output("revoke", f"--sid={bob['sid']}") == "1 session revoked\n"
        wait_until_signed_out(browsers[2])
        again = [log_in(provider, user) for user in ("alice", "bob")]
        assert shell.output("revoke", "--all") == "2 sessions revoked\n"
        for browser in again:
            wait_until_signed_out(browser)
        assert shell.output("list", "--json") == "[]\n"
        log_in(provider, "alice")


def test_sessions_in_cookies_revoked_by_mark(
    tmp_path: Path, provider: Provider
) -> None:
    """Cookie sessions are not listed, but session_revocation makes them revocable."""
    path = str(tmp_path / "s.db")
    options = {"session_revocation": True, "sqlite_path": path, "workers": 2}
    with running(tmp_path, provider, **options) as shell:
        alice, bob = log_in(provider, "alice"), log_in(provider, "bob")
        done = shell.run("list")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
        assert "cookie sessions are not listed" in done.stderr
        text = shell.output("revoke", "--user=alice@example.com")
        assert text.splitlines() == [
            "0 sessions revoked",
            "cookie sessions created before now are rejected",
        ]
        wait_until_signed_out(alice)
        assert bob.check() == 202
        shell.output("revoke", "--all")
        wait_until_signed_out(bob)
        log_in(provider, "alice")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 1}, "no session store"),
        ({"workers": 2}, "in a temporary file of the server; set sqlite_path"),
        ({"sqlite_path": "/dev/shm/authproxy-test.db"}, "without session_revocation"),
        (
            {
                "session_store_type": "redis",
                "redis_connection_url": "redis://127.0.0.1:9",
            },
            "session store unavailable: 127.0.0.1:9: ",
        ),
    ],
)
def test_sessions_revoke_impossible_exits_with_reason(
    tmp_path: Path, provider: Provider, options: dict[str, Any], text: str
) -> None:
    try:
        with Program(tmp_path, **provider.options(), **options) as program:
            done = Shell(program).run("revoke", "--all")
    finally:
        for end in ("", "-wal", "-shm"):
            Path(f"/dev/shm/authproxy-test.db{end}").unlink(missing_ok=True)
    assert done.returncode == 1
    assert text in done.stderr


def test_sessions_invalid_configuration_rejected(
    tmp_path: Path, provider: Provider
) -> None:
    with Program(tmp_path, **provider.options(), session_store_type="disk") as program:
        done = Shell(program).run("list")
    assert done.returncode == 1
    assert "session_store_type" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("end",),
        ("show",),
        ("revoke",),
        ("list", "--all"),
        ("revoke", "--all", "--user=x"),
        ("revoke", "--user"),
        ("revoke", "--user="),
        ("show", "--user=x", "--json"),
    ],
)
def test_sessions_ambiguous_arguments_rejected(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="usage: authproxy sessions"):
        parse_arguments(arguments)


def test_sessions_other_flags_left_for_configuration() -> None:
    command, rest = parse_arguments(
        ("revoke", "--config", "x", "--user", "u", "--sid=s", "--workers=2")
    )
    assert (command.user, command.sid, command.everything) == ("u", "s", False)
    assert rest == ["--config", "x", "--workers=2"]


def test_printable_replaces_control_characters() -> None:
    """Names come from the provider and could contain terminal escape sequences."""
    assert _printable("a\x1b[31m\nbä\u202e") == "a\ufffd[31m\ufffdbä\ufffd"
