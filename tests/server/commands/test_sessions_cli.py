"""``authproxy sessions``: seen from a shell beside a running deployment."""

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

from authproxy.commands.sessions_cli import _printable, parse
from authproxy.config.read.resolved import UsageError
from support.login import Browser, Provider
from support.processes import wait_for
from support.program import Program
from support.programs import ROOT, find
from support.redis import RedisServer


@pytest.fixture
def provider() -> Iterator[Provider]:
    """The provider of a server."""
    with Provider() as found:
        yield found


class Shell:
    """Somebody who may read the configuration of *program*."""

    def __init__(self, program: Program) -> None:
        self.program = program

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What the command did."""
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

    def told(self, *arguments: str) -> str:
        """What it printed, when it succeeded."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout


@contextlib.contextmanager
def running(folder: Path, provider: Provider, **options: Any) -> Iterator[Shell]:
    """A server that is ready, and a shell beside it."""
    with Program(folder, **provider.options(), **options) as program:
        browser = provider.browser()

        def ready() -> bool:
            with contextlib.suppress(OSError):
                return browser.get("/ready").status == 200
            return False

        program.wait_until(ready)
        yield Shell(program)


def logged_in(provider: Provider, user: str) -> Browser:
    """A browser with a session."""
    browser = provider.browser()
    browser.log_in(user)
    assert browser.check() == 202
    return browser


def ended(browser: Browser) -> None:
    """Its session ends now."""
    wait_for(lambda: browser.check() == 401, "the end of the session", 2.0)


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Options for sessions in a store."""
    if request.param == "sqlite":
        yield {"session_store_type": "sqlite", "sqlite_path": str(tmp_path / "s.db")}
        return
    if find("redis-server") is None:
        pytest.skip("redis-server isn't installed")
    with RedisServer(tmp_path) as server:
        yield {"session_store_type": "redis", "redis_connection_url": server.url}


def test_sessions_in_a_store(
    tmp_path: Path, provider: Provider, store: dict[str, Any]
) -> None:
    """Listed, shown, revoked by user, by the provider's session, and all of them."""
    with running(tmp_path, provider, workers=2, **store) as shell:
        assert shell.told("list").split() == [
            "session", "user", "email", "provider", "login", "refreshed",
        ]  # fmt: skip
        assert shell.told("list", "--json") == "[]\n"
        assert shell.told("show", "--user=nobody") == "no session\n"
        browsers = [logged_in(provider, user) for user in ("alice", "alice", "bob")]
        table = shell.told("list").splitlines()
        assert len(table) == 4
        assert [("bob" in line) for line in table] == [False, False, False, True]
        sessions = json.loads(shell.told("list", "--json"))
        assert len({one["session"] for one in sessions}) == 3
        [bob] = json.loads(shell.told("list", "--json", "--user", "bob@example.com"))
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", bob["login"])
        shown = shell.told("show", f"--sid={bob['sid']}")
        assert f"subject: {bob['subject']}\n" in shown
        everything = shell.told("list", "--json") + shown
        assert "eyJ" not in everything  # no token
        assert browsers[0].jar.named("_oauth2_proxy")["_oauth2_proxy"] not in everything

        assert shell.told("revoke", "--user=alice") == "2 sessions ended\n"
        for browser in browsers[:2]:
            ended(browser)
        assert browsers[2].check() == 202
        assert shell.told("revoke", f"--sid={bob['sid']}") == "1 session ended\n"
        ended(browsers[2])
        again = [logged_in(provider, user) for user in ("alice", "bob")]
        assert shell.told("revoke", "--all") == "2 sessions ended\n"
        for browser in again:
            ended(browser)
        assert shell.told("list", "--json") == "[]\n"
        logged_in(provider, "alice")


def test_sessions_in_cookies(tmp_path: Path, provider: Provider) -> None:
    """They can be revoked where they are looked up in a list, and that is shared."""
    path = str(tmp_path / "s.db")
    options = {"session_revocation": True, "sqlite_path": path, "workers": 2}
    with running(tmp_path, provider, **options) as shell:
        alice, bob = logged_in(provider, "alice"), logged_in(provider, "bob")
        done = shell.run("list")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)
        assert "sessions in cookies are not listed" in done.stderr
        text = shell.told("revoke", "--user=alice@example.com")
        assert text.splitlines() == [
            "0 sessions ended",
            "sessions in cookies that began before are refused",
        ]
        ended(alice)
        assert bob.check() == 202
        shell.told("revoke", "--all")
        ended(bob)
        logged_in(provider, "alice")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 1}, "there is no store"),
        ({"workers": 2}, "in a file that only they know; set sqlite_path"),
        ({"sqlite_path": "/dev/shm/authproxy-test.db"}, "without session_revocation"),
        (
            {
                "session_store_type": "redis",
                "redis_connection_url": "redis://127.0.0.1:9",
            },
            "the session store is away: 127.0.0.1:9: ",
        ),
    ],
)
def test_impossible(
    tmp_path: Path, provider: Provider, options: dict[str, Any], text: str
) -> None:
    """It says why, and ends with 1."""
    try:
        with Program(tmp_path, **provider.options(), **options) as program:
            done = Shell(program).run("revoke", "--all")
    finally:
        for end in ("", "-wal", "-shm"):
            Path(f"/dev/shm/authproxy-test.db{end}").unlink(missing_ok=True)
    assert done.returncode == 1
    assert text in done.stderr


def test_bad_configuration(tmp_path: Path, provider: Provider) -> None:
    """It is told as when the server starts."""
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
def test_usage(arguments: tuple[str, ...]) -> None:
    """Unless it is clear whose sessions are meant, nothing is done."""
    with pytest.raises(UsageError, match="usage: authproxy sessions"):
        parse(arguments)


def test_parts_of_a_command() -> None:
    """What is not ours is left for the configuration."""
    order, rest = parse(
        ("revoke", "--config", "x", "--user", "u", "--sid=s", "--workers=2")
    )
    assert (order.user, order.sid, order.everything) == ("u", "s", False)
    assert rest == ["--config", "x", "--workers=2"]


def test_no_control_characters() -> None:
    """Names come from the provider; they do not steer the terminal."""
    assert _printable("a\x1b[31m\nbä\u202e") == "a\ufffd[31m\ufffdbä\ufffd"
