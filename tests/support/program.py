"""authproxy with a configuration file, and session cookies that it accepts."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from authproxy_core.drive import drive_sync
from authproxy_core.session import Session
from authproxy_core.sessions.sessions import Sessions
from authproxy_core.settings.root import CookieSettings, Secret, Settings
from support.peers import coverage_arguments
from support.ports import LOOPBACK
from support.processes import Process

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef"
# The provider is never contacted, because the tests seal the sessions.
BASE: Mapping[str, Any] = {
    "provider": "oidc",
    "client_id": "web",
    "client_secret": "hidden-client-secret",
    "cookie_secret": SECRET,
    "email_domains": ["*"],
    "skip_oidc_discovery": True,
    "oidc_issuer_url": "http://127.0.0.1:9",
    "login_url": "http://127.0.0.1:9/auth",
    "redeem_url": "http://127.0.0.1:9/token",
    "oidc_jwks_url": "http://127.0.0.1:9/keys",
    "http_address": f"{LOOPBACK}:0",
    "workers": 1,
}


def toml(values: Mapping[str, Any]) -> str:
    """Return *values* (strings, numbers, booleans, lists of strings) as TOML."""
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


class Program(Process):
    """authproxy with a configuration file in *folder*: `BASE` with *changes*.

    A change to None removes an option. *extra* is TOML that is appended.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        extra: str = "",
        environment: Mapping[str, str] | None = None,
        wrapper: tuple[str, ...] = (),
        **changes: Any,
    ) -> None:
        self.config = folder / "authproxy.toml"
        self._changes: dict[str, Any] = {}
        self.configure(extra, **changes)
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
        super().__init__(
            "authproxy",
            [*self._command(wrapper), "--config", self.config, *flags],
            folder=folder,
            environment={"PYTHONPATH": path, **(environment or {})},
        )

    @staticmethod
    def _command(wrapper: tuple[str, ...]) -> tuple[str, ...]:
        started = wrapper or (*coverage_arguments(), "-m", "authproxy")
        return (sys.executable, *map(str, started))

    def __enter__(self) -> Program:
        return self

    def configure(self, extra: str = "", **changes: Any) -> None:
        """Apply *changes* to the configuration file; it is replaced atomically."""
        self._changes |= changes
        values = {
            key: value
            for key, value in {**BASE, **self._changes}.items()
            if value is not None
        }
        new = self.config.with_suffix(".new")
        new.write_text(toml(values) + extra)
        new.replace(self.config)

    def started(self) -> Program:
        """Wait until it listens."""
        self.wait_until(lambda: "listening on" in self.log())
        return self

    @property
    def port(self) -> int:
        """The first TCP port in the log."""
        self.started()
        match = re.search(r"listening on https?://\S+:(\d+)", self.log())
        assert match
        return int(match[1])

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers; empty without a supervisor."""
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def peak(self) -> int:
        """Return the largest peak memory of its processes in bytes."""
        sizes = []
        for pid in (self.pid, *self.workers):
            status = Path(f"/proc/{pid}/status").read_text()
            [line] = [one for one in status.splitlines() if one.startswith("VmHWM")]
            sizes.append(int(line.split()[1]) << 10)
        return max(sizes)


def session_cookie(
    session: Session | None = None, *, secret: str = SECRET, age: float = 0.0
) -> str:
    """Return the Cookie value of a session that was created *age* seconds ago."""
    given = session or Session(user="alice", email="alice@example.com")
    now = time.time() - age
    stored = Session(
        **{name: getattr(given, name) for name in given.__struct_fields__}
        | {"created_at": now, "login_at": now}
    )
    settings = Settings(cookie=CookieSettings(secrets=(Secret(secret),)))
    sessions = Sessions(
        settings, provider_ids=["oidc"], clock=time.time, random_bytes=os.urandom
    )
    kept = drive_sync(
        sessions.create(stored, (), host="localhost"), lambda effect: None
    )
    return "; ".join(value.split(b";")[0].decode() for _, value in kept.headers)
