"""Password attempts are counted over all workers."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from support import workers
from support.program import Program
from support.server import Wire


def entry(user: str, password: str) -> str:
    """Return a line of an htpasswd file."""
    digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
    return f"{user}:{{SHA}}{digest}\n"


def check(wire: Wire, user: str, password: str) -> int:
    """Return the status of an auth check with Basic credentials."""
    pair = base64.b64encode(f"{user}:{password}".encode())
    wire.send(
        b"GET /oauth2/auth HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Basic " + pair + b"\r\n\r\n"
    )
    return wire.answer().status


def test_attempts_and_known_clients_shared_by_workers(tmp_path: Path) -> None:
    """300 wrong passwords stop no known user, and an unknown one at any worker."""
    users = tmp_path / "users"
    users.write_text(entry("ann", "right") + entry("bob", "right"))
    with Program(tmp_path, workers=2, htpasswd_file=str(users)) as program:
        program.wait_until(lambda: len(program.workers) == 2)
        with workers.connections(program, program.port) as (first, second):
            assert check(first, "ann", "right") == 202
            for number in range(300):
                assert check(second, "ann", f"wrong{number}") == 401
            assert check(second, "ann", "right") == 202
            assert check(first, "bob", "right") == 401
