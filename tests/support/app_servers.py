"""Upstreams with nginx, Node and Go. Each prints the requests that it received."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.ports import free_port
from support.processes import Process, listens
from support.programs import find

APPS = Path(__file__).parent / "apps"
NAMES = ("nginx", "node", "go")


class AppServer(Process):
    """One of `NAMES`, listening on ``port``."""

    def __init__(self, name: str, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir()
        command = getattr(self, f"_{name}")(folder)
        super().__init__(name, command, folder=folder)
        self.wait_until(lambda: listens(self.port))

    def _nginx(self, folder: Path) -> list[str | Path]:
        text = (APPS / "nginx.conf").read_text().replace("PORT", str(self.port))
        if os.geteuid() == 0:
            text = "user root;\n" + text
        (folder / "nginx.conf").write_text(text)
        options = ["-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;"]
        return [find("nginx") or "nginx", *options]

    def _node(self, folder: Path) -> list[str | Path]:
        return [find("node") or "node", APPS / "server.js", str(self.port)]

    def _go(self, folder: Path) -> list[str | Path]:
        binary = folder / "app"
        build = [find("go") or "go", "build", "-o", binary, APPS / "main.go"]
        subprocess.run(build, check=True, cwd=folder, timeout=120)
        return [binary, str(self.port)]

    def seen(self) -> list[str]:
        """Return the received requests as ``METHOD URI SIZE``."""
        lines = self.log().splitlines()
        return [line.removeprefix("SAW ") for line in lines if line.startswith("SAW ")]
