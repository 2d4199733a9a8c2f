"""A worker with listeners and limits that no configuration file can have."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from support.ports import LOOPBACK
from support.processes import Process
from support.server import Wire

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, resource, sys
import msgspec
from authproxy.server_settings import *
from authproxy.process.launcher import run
from authproxy_core.settings import *
given = json.loads(sys.argv[1])
if given["descriptors"]:
    resource.setrlimit(resource.RLIMIT_NOFILE, given["descriptors"])
settings = ServerSettings(
    core=Settings(
        cookie=CookieSettings(secrets=(Secret(b"0123456789abcdef"),)),
        providers=(ProviderSettings(
            id="p", client_id="c", client_secret=Secret(b"s"), skip_discovery=True,
            issuer="http://127.0.0.1:9", login_url="http://127.0.0.1:9/a",
            redeem_url="http://127.0.0.1:9/t", jwks_url="http://127.0.0.1:9/k"),),
        email_domains=("*",),
    ),
    listeners=msgspec.convert(given["listeners"], tuple[Listener, ...]),
    limits=msgspec.convert(given["limits"], Limits),
    proxy_protocol_from=tuple(given["proxy_protocol_from"]),
)
sys.exit(run(settings))
"""
PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"


class WorkerProgram(Process):
    """A worker with *listeners* and *limits* (fields of the settings).

    *descriptors* are the soft and the hard limit of open files.
    """

    def __init__(
        self,
        folder: Path,
        *listeners: dict[str, Any],
        proxy_protocol_from: tuple[str, ...] = (),
        descriptors: tuple[int, int] | None = None,
        **limits: float,
    ) -> None:
        path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
        given = {
            "listeners": listeners,
            "limits": limits,
            "proxy_protocol_from": proxy_protocol_from,
            "descriptors": descriptors,
        }
        super().__init__(
            "authproxy",
            [sys.executable, "-c", SCRIPT, json.dumps(given)],
            folder=folder,
            environment={"PYTHONPATH": path},
        )

    @property
    def ports(self) -> list[int]:
        """The TCP ports that the log names, in the order of the listeners."""
        return [
            int(port)
            for port in re.findall(
                r"(?:listening|metrics) on https?://\S+:(\d+)", self.log()
            )
        ]

    @property
    def port(self) -> int:
        """The first TCP port."""
        return self.ports[0]


def ping(port: int, host: str = LOOPBACK) -> int:
    """Return the status of a health check over a new connection."""
    with Wire(port) as wire:
        if host != LOOPBACK:
            wire.socket.close()
            wire.socket = socket.create_connection((host, port), timeout=5)
        wire.send(PING)
        return wire.answer().status
