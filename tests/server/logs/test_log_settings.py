"""Log options, and the writers for files and pipes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from authproxy.http.request_head import HeadReader
from authproxy.logs.formatter import RequestRecord
from authproxy.logs.logger import Logs
from authproxy.logs.writer import LogWriter
from authproxy.loop.clock import Clock
from authproxy.server_settings import Limits, LogSettings
from authproxy_core.errors import SettingsError
from authproxy_core.messages import Event, Request
from authproxy_core.settings.root import Settings


class Files:
    """Logs that write to two files."""

    def __init__(self, folder: Path, settings: LogSettings, core: Settings) -> None:
        self._paths = folder / "out", folder / "err"
        self._fds = [os.open(path, os.O_RDWR | os.O_CREAT) for path in self._paths]
        self._writers = [LogWriter(fd) for fd in self._fds]
        self.logs = Logs(settings, core, Clock(local_time=False), *self._writers)

    def read(self) -> tuple[str, str]:
        """Return both files' contents after all lines are written."""
        for writer in self._writers:
            writer.close()
        for fd in self._fds:
            os.close(fd)
        out, err = (path.read_text() for path in self._paths)
        return out, err


def record(target: bytes, *fields: bytes, peer: str = "192.0.2.1") -> RequestRecord:
    """Return the record of a finished request."""
    lines = b"".join(field + b"\r\n" for field in fields)
    raw = b"GET " + target + b" HTTP/1.1\r\nHost: own.example\r\n" + lines + b"\r\n"
    head = HeadReader(Limits()).read(raw)
    request = Request(head.method, head.target, head.headers, peer, False, "id-1")
    return RequestRecord(head, request, f"{peer}:99", 202, 3, 0.0125, "bob", "app")


def lines(
    folder: Path,
    records: list[RequestRecord],
    settings: LogSettings | None = None,
    core: Settings | None = None,
    events: tuple[Event, ...] = (),
) -> tuple[str, str]:
    """Log *records*; return standard output and standard error."""
    files = Files(folder, settings or LogSettings(), core or Settings())
    for item in records:
        files.logs.record_response(item, events)
    return files.read()


def test_request_format_all_fields(tmp_path: Path) -> None:
    template = (
        "{{.Client}}|{{.Host}}|{{.Protocol}}|{{.RequestID}}|{{.RequestDuration}}|"
        "{{.RequestMethod}}|{{.RequestURI}}|{{.ResponseSize}}|{{.StatusCode}}|"
        "{{.Upstream}}|{{.UserAgent}}|{{.Username}}"
    )
    out, _ = lines(
        tmp_path,
        [record(b'/"a"?code=SECRET', b"User-Agent: x")],
        LogSettings(request_format=template),
    )
    assert out == (
        '192.0.2.1:99|own.example|HTTP/1.1|id-1|0.013|GET|"/\\"a\\"?code=..."|3|202|'
        'app|"x"|bob\n'
    )


def test_request_format_unknown_field_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"request_logging_format.*Cookie"):
        Files(tmp_path, LogSettings(request_format="{{.Cookie}}"), Settings())


def test_request_log_silenced_and_excluded_paths(tmp_path: Path) -> None:
    """Excluded paths are compared after percent-decoding."""
    records = [
        record(b"/ping"),
        record(b"/ready?x"),
        record(b"/liveness_check"),
        record(b"/%68idden?x"),
        record(b"/shown"),
        record(b"/shown/ping", b"User-Agent: probe"),
        # Not from the probe, so it was forwarded like other requests.
        replace(record(b"/ping"), verdict="allowed", reason="session"),
    ]
    settings = LogSettings(silence_ping=True, exclude_paths=frozenset({"/hidden"}))
    core = Settings(ping_user_agent="probe", gcp_healthchecks=True)
    out, _ = lines(tmp_path, records, settings, core)
    assert re.findall(r'"(/\S*)"', out) == ["/shown", "/shown/ping", "/ping"]


def test_logs_all_disabled_write_nothing(tmp_path: Path) -> None:
    silent = LogSettings(standard=False, auth=False, request=False)
    events = (Event("denied", "eve", "r", "detail"),)
    assert lines(tmp_path, [record(b"/")], silent, events=events) == ("", "")


def test_request_log_client_and_host_of_trusted_gateway(tmp_path: Path) -> None:
    """The fields of an untrusted peer are ignored."""
    fields = (b"X-Real-Ip: 203.0.113.9", b"X-Forwarded-Host: app.example")
    core = Settings(reverse_proxy=True, trusted_proxies=("192.0.2.1",))
    out, _ = lines(
        tmp_path,
        [
            record(b"/", *fields),
            record(b"/", *fields, peer="198.51.100.7"),
            record(b"/"),
        ],
        core=core,
    )
    assert re.findall(r"(?m)^(\S+) .*\] (\S+) GET", out) == [
        ("203.0.113.9", "app.example"),
        ("198.51.100.7", "own.example"),
        ("192.0.2.1", "own.example"),
    ]


def test_request_log_cached_client_depends_on_peer_and_field(tmp_path: Path) -> None:
    """Neither another peer nor a repeated field uses the cached value."""
    one = (b"X-Real-Ip: 203.0.113.9", b"X-Forwarded-Host: app.example")
    two = (b"X-Forwarded-Host: first.example", b"X-Forwarded-Host: app.example")
    bad = (b"X-Real-Ip: x", b"X-Forwarded-Host: a b")
    core = Settings(reverse_proxy=True, trusted_proxies=("192.0.2.1",))
    sent = [record(b"/", *fields) for fields in (one, one, two, bad, bad)]
    sent.append(record(b"/", *one, peer="198.51.100.7"))
    out, _ = lines(tmp_path, sent, core=core)
    assert re.findall(r"(?m)^(\S+) .*\] (\S+) GET", out) == [
        ("203.0.113.9", "app.example"),
        ("203.0.113.9", "app.example"),
        ("192.0.2.1", "first.example"),
        ("192.0.2.1", "-"),
        ("192.0.2.1", "-"),
        ("198.51.100.7", "own.example"),
    ]


@pytest.mark.parametrize("to_info", [False, True])
def test_auth_log_events_and_details_go_to_their_logs(
    tmp_path: Path, to_info: bool
) -> None:
    """The auth log goes to standard output, errors go where errors_to_info selects."""
    events = (
        Event("logged_in", "bob", "", "welcome"),
        Event("refresh_failed", "bob", "timeout", "the provider is unavailable"),
        Event("allowed", "bob"),
    )
    settings = LogSettings(errors_to_info=to_info)
    out, err = lines(tmp_path, [record(b"/")], settings, events=events)
    assert re.findall(r"\[(Auth\w+)\] (.*)", out) == [
        ("AuthSuccess", "welcome"),
        ("AuthError", "refresh failed: timeout"),
    ]
    assert "[logged_in]" not in out + err
    assert ("the provider is unavailable" in err) is not to_info
    assert ("the provider is unavailable" in out) is to_info


def test_logs_exception_text_escapes_each_line(tmp_path: Path) -> None:
    """Each line of the traceback is a log line without control characters."""
    files = Files(tmp_path, LogSettings(), Settings())
    try:
        raise RuntimeError("a\r\nb\x1b[2J\u2028c")
    except RuntimeError as error:
        files.logs.exception("server", "it failed", error)
    _, err = files.read()
    stamp = re.compile(r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] \[server\] ")
    assert all(stamp.match(line) for line in err.splitlines())
    assert "\x1b" not in err
    assert "RuntimeError: a" in err


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe; close the reading end on exit."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)


def test_log_writer_pipe_gets_all_lines_in_order() -> None:
    with pipe() as (reader, fd):
        writer = LogWriter(fd)
        received: list[bytes] = []
        sent = [f"{number} {'x' * (number % 900)}\n" for number in range(400)]
        sent.insert(200, "y" * 10_000 + "\n")

        def read() -> None:
            while data := os.read(reader, 1 << 16):
                received.append(data)

        thread = threading.Thread(target=read)
        thread.start()
        for line in sent:
            writer.write(line)
        writer.close()
        os.close(fd)
        thread.join(10)
        assert b"".join(received).decode() == "".join(sent)


def test_log_writer_nonblocking_pipe_waits_for_the_reader() -> None:
    with pipe() as (reader, fd):
        os.set_blocking(fd, False)
        writer = LogWriter(fd)
        line = "x" * 999 + "\n"
        for _ in range(300):
            writer.write(line)
        received = b""
        while len(received) < 300_000:
            assert select.select([reader], [], [], 5)[0]
            received += os.read(reader, 7000)
        writer.close()
        os.close(fd)
        assert received.decode() == line * 300


def test_log_writer_closed_reader_drops_lines() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    writer = LogWriter(fd)
    for _ in range(3):
        writer.write("lost\n")
    writer.close()
    os.close(fd)
    assert writer._finished == writer._queued > 0
