"""The programs of a soak: authproxy with two workers, store, provider, upstream."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

from chaos_parts.client import HOST
from chaos_parts.control import PYTHONPATH, Helper
from chaos_parts.stores import STORES, RedisStore, SqliteStore, Store
from support.certificates import Certificate, make_certificate
from support.ports import LOOPBACK, free_port
from support.processes import Process, listens
from support.program import toml
from websockets import tree

CALLBACK = f"http://{HOST}/oauth2/callback"
WORKERS = 2
KINDS = ("redis", "cookie", "sqlite")


class Lifetimes(NamedTuple):
    """Lifetimes of sessions in seconds."""

    refresh: int
    idle: int
    expire: int
    longest: int

    @classmethod
    def of_day(cls, seconds: float) -> Lifetimes:
        """Return the lifetimes if *seconds* stand for a day: 1, 2, 8 and 12 hours."""
        hour = seconds / 24
        return cls(*(max(3, round(hour * count)) for count in (1, 2, 8, 12)))


class Stage:
    """Everything that runs."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        folder: Path,
        *,
        store: str,
        users: int,
        lifetimes: Lifetimes,
    ) -> None:
        self.folder = folder
        self.lifetimes = lifetimes
        self.store: Store = STORES[store](stack, folder)
        self.port, self.metrics_port = free_port(), free_port()
        self.provider_port, app_port = free_port(), free_port()
        self.certificate: Certificate = make_certificate(folder, LOOPBACK)
        issuer = f"http://{LOOPBACK}:{self.provider_port}"
        stack.enter_context(
            Helper(
                "provider",
                port=self.provider_port,
                issuer=issuer,
                users=users,
                redirect=CALLBACK,
            )
        )
        app = self._start(stack, "soak_parts.app", str(app_port))
        app.wait_until(lambda: listens(app_port))
        self._options: dict[str, Any] = {
            "provider": "oidc",
            "client_id": "authproxy",
            "client_secret": "demo-client-secret",
            "cookie_secrets": ["0123456789abcdef0123456789abcdef"],
            "cookie_secure": False,
            "cookie_refresh": f"{lifetimes.refresh}s",
            "cookie_expire": f"{lifetimes.expire}s",
            "session_idle_timeout": f"{lifetimes.idle}s",
            "session_max_lifetime": f"{lifetimes.longest}s",
            "email_domains": ["*"],
            "oidc_issuer_url": issuer,
            "redirect_url": CALLBACK,
            "https_address": f"{LOOPBACK}:{self.port}",
            "tls_cert_file": self.certificate.cert_file,
            "tls_key_file": self.certificate.key_file,
            "metrics_address": f"{LOOPBACK}:{self.metrics_port}",
            "upstreams": [f"http://{LOOPBACK}:{app_port}/"],
            "workers": WORKERS,
            "set_xauthrequest": True,
            "code_challenge_method": "S256",
            "request_logging": False,
            **self.store.options(self.store.port),
        }
        self._config = folder / "authproxy.toml"
        self.configure("")
        self.process = self._start(stack, "authproxy", "--config", str(self._config))
        self.process.wait_until(self._has_workers, 30.0)

    def _start(
        self, stack: contextlib.ExitStack, module: str, *arguments: str
    ) -> Process:
        command = [sys.executable, "-m", module, *arguments]
        process = Process(
            module, command, folder=self.folder, environment={"PYTHONPATH": PYTHONPATH}
        )
        stack.callback(process.stop)
        return process

    def _has_workers(self) -> bool:
        return listens(self.port) and len(tree(self.process.pid)) == 1 + WORKERS

    def configure(self, footer: str) -> None:
        """Replace the configuration file, which authproxy reads again."""
        self.write(
            toml({**self._options, "footer": footer} if footer else self._options)
        )

    def write(self, text: str) -> None:
        """Replace the configuration file by *text*."""
        new = self._config.with_suffix(".new")
        new.write_text(text)
        new.replace(self._config)

    def store_size(self) -> float:
        """Return the number of keys in Redis, or the size of the SQLite files in kB."""
        if isinstance(self.store, SqliteStore):
            files = self.store.disk.iterdir()
            return sum(file.stat().st_size for file in files) / 1024
        assert isinstance(self.store, RedisStore)
        return float(self.store.server.ask("DBSIZE").split()[-1])
