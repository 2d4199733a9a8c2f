"""Standard log of the supervisor: format and destination, and no waiting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.ports import LOOPBACK
from support.program import ROOT, Program
from support.server import talk

SCRIPT = """
import json, sys
import msgspec
from authproxy.logs.supervisor_log import log, log_all, configure
from authproxy.server_settings import LogSettings, ServerSettings
from authproxy_core.settings import Settings
values = json.loads(sys.argv[1])
if values is not None:
    logs = msgspec.convert(values, LogSettings)
    configure(ServerSettings(core=Settings(), listeners=(), logs=logs))
log("started", level="info")
log_all("it failed:", ["why\\nso"])
"""


def written_lines(
    logs: dict[str, Any] | None, **pipes: Any
) -> tuple[list[str], list[str]]:
    """Return the lines on standard output and on standard error."""
    path = os.pathsep.join(str(ROOT / part) for part in ("core", "server"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(logs)],
        env={**os.environ, "PYTHONPATH": path},
        timeout=30,
        check=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
    )
    out, err = (
        (text or b"").decode().splitlines() for text in (done.stdout, done.stderr)
    )
    return out, err


def test_supervisor_log_text_uses_both_streams() -> None:
    out, err = written_lines(None)
    assert [line.partition("] ")[2] for line in out] == ["[server] started"]
    assert [line.partition("] ")[2] for line in err] == [
        "[server] it failed:",
        "[server]   why\\nso",
    ]


def test_supervisor_log_json_errors_to_info() -> None:
    out, err = written_lines({"format": "json", "errors_to_info": True})
    assert err == []
    records = map(json.loads, out)
    assert [(record["level"], record["message"]) for record in records] == [
        ("info", "started"),
        ("error", "it failed:"),
        ("error", "  why\nso"),
    ]


@pytest.mark.parametrize("to_info", [False, True])
def test_supervisor_log_file_gets_info_lines(tmp_path: Path, to_info: bool) -> None:
    path = tmp_path / "log"
    file = {"path": str(path)}
    out, err = written_lines({"file": file, "errors_to_info": to_info})
    lines = path.read_text().splitlines()
    assert (len(out), len(err), len(lines)) == ((0, 0, 3) if to_info else (0, 2, 1))


def test_supervisor_log_standard_log_disabled_writes_nothing() -> None:
    assert written_lines({"standard": False}) == ([], [])


def test_supervisor_log_full_pipe_drops_the_line() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    _, err = written_lines(None, stdout=writer)
    assert len(err) == 2
    os.close(reader)
    os.close(writer)


def test_program_closed_standard_streams_are_reserved(tmp_path: Path) -> None:
    """No socket gets the descriptor of standard output, and with it log lines."""
    log = tmp_path / "log"
    shell = (
        "sh",
        "-c",
        'exec "$0" "$@" <&- >&- 2>&-',
        sys.executable,
        "-m",
        "authproxy",
    )
    with Closed(tmp_path, wrapper=shell, logging_filename=str(log)) as program:
        program.wait_until(lambda: log.exists() and "listening on" in log.read_text())
        folder = Path(f"/proc/{program.pid}/fd")
        assert [os.readlink(folder / str(fd)) for fd in range(3)] == ["/dev/null"] * 3
        port = int(log.read_text().partition(f"http://{LOOPBACK}:")[2].split()[0])
        response = talk(port, b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        assert response.endswith(b"\r\n\r\nOK")


class Closed(Program):
    """Started by a shell that closes the standard streams."""

    @staticmethod
    def _command(wrapper: tuple[str, ...]) -> tuple[str, ...]:
        return wrapper
