"""Servers of the standard library in a thread."""

from __future__ import annotations

import threading
from socketserver import TCPServer
from types import TracebackType
from typing import Self


class InThread:
    """Run a bound server in a thread; it listens on ``port``."""

    def __init__(self, server: TCPServer) -> None:
        self.port: int = server.server_address[1]
        self._bound = server
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bound.shutdown()
        self._bound.server_close()
        self._thread.join()
