"""Servers of the standard library, in a thread for as long as a test needs them."""

from __future__ import annotations

import threading
from socketserver import TCPServer
from types import TracebackType
from typing import Self


class InThread:
    """Runs a server that is bound already; ``port`` is where it listens."""

    def __init__(self, server: TCPServer) -> None:
        self.port: int = server.server_address[1]
        self._own = server
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
        self._own.shutdown()
        self._own.server_close()
        self._thread.join()
