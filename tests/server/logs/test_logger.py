"""Log lines: formats, redaction, no forging, and counting what is dropped."""

from __future__ import annotations

import os
import re

import pytest

from authproxy.logs.redact import compile_format, escape_unprintable, quote, redact
from authproxy.logs.writer import LogWriter
from authproxy_core.effects import Outcome
from authproxy_core.errors import SettingsError
from authproxy_core.messages import Event, Request, Respond
from support.server import Server, talk, until

STAMP = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\]"


def signs_in(request: Request) -> Outcome:
    """Answers with a user and an event."""
    event = Event("denied", "eve@example.com", "not_authorized\nforged", "a\r\nb")
    return Respond(403, (), b"no", (event,), "alice@example.com")


def request(target: bytes, *fields: bytes) -> bytes:
    """A GET with a known id."""
    lines = b"".join(field + b"\r\n" for field in (b"X-Request-Id: id-1", *fields))
    return (
        b"GET " + target + b" HTTP/1.1\r\nHost: app.example.com\r\n" + lines + b"\r\n"
    )


def test_lines_of_a_request() -> None:
    """The default formats, character for character."""
    with Server(signs_in) as server:
        raw = request(b"/a?code=SECRET&b=1", b'User-Agent: a "b" \xff')
        assert b" 403 " in talk(server.port, raw)
        log = server.logged("app.example.com GET")
    assert "SECRET" not in log
    assert log.count("\n") == 3
    assert re.search(
        rf"(?m)^127\.0\.0\.1:\d+ - id-1 - alice@example\.com {STAMP} app\.example\.com "
        r'GET - "/a\?code=\.\.\.&b=1" HTTP/1\.1 "a \\"b\\" \\xff" 403 2 \d+\.\d{3}$',
        log,
    )
    assert re.search(
        rf"(?m)^127\.0\.0\.1:\d+ - id-1 - eve@example\.com {STAMP} \[AuthFailure\] "
        r"denied: not_authorized\\nforged$",
        log,
    )
    assert re.search(rf"(?m)^{STAMP} \[denied\] a\\r\\nb \(request id-1\)$", log)


@pytest.mark.parametrize(
    "target",
    [
        b"/?code=SECRET",
        b"/?a=b&state=SECRET#x",
        b"/?CODE=SECRET",
        b"/?%63ode=SECRET&a=b",
        b"/?rd=https%3A%2F%2Fa%2F%3Fcode%3DSECRET%26b%3D1",
        b"/?id_token=SECRET",
        b"/?access_token=SECRET&token=SECRET",
        b"/?a;code=SECRET",
        b"https://a/?refresh_token=SECRET",
    ],
)
def test_secrets_are_redacted(target: bytes) -> None:
    """In each spelling that a server takes for the parameter."""
    assert b"SECRET" not in redact(target)
    assert redact(target) != target


@pytest.mark.parametrize(
    "target", [b"/", b"/code=a", b"/?codes=a&xstate=b", b"/?a=%63"]
)
def test_the_rest_stays(target: bytes) -> None:
    """Other parameters are left alone."""
    assert redact(target) == target


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[2J", "\u2028", "\x85", "\0"])
def test_text_stays_on_its_line(text: str) -> None:
    """No control character gets through, in either form."""
    for line in (escape_unprintable(text), quote(text)):
        assert line.isprintable()
        assert len(line.splitlines()) == 1


def test_formats() -> None:
    """Known fields only; percent signs are text."""
    line = compile_format("o", "{{.B}} 100% {{ .A }} %s", ("A", "B"))
    assert line(("1", "2")) == "2 100% 1 %s\n"
    for template in ("{{.C}}", "{{if .A}}x{{end}}", "{{.A"):
        with pytest.raises(SettingsError, match="o: "):
            compile_format("o", template, ("A", "B"))


def test_lost_lines_are_counted() -> None:
    """A reader that is too slow costs lines, not memory, and learns how many."""
    reader, fd = os.pipe()
    heard: list[int] = []
    writer = LogWriter(fd, queue_bytes=100_000, on_dropped=heard.append)
    line = "x" * 999 + "\n"
    sent = 0
    while not writer.dropped:
        writer.write(line)
        sent += 1
    for _ in range(3):
        writer.write(line)
    assert writer.dropped == 4
    received = b""
    while received.count(b"x\n") < sent - 1:
        received += os.read(reader, 1 << 16)
    until(lambda: writer._finished == writer._queued, "the queue to be empty")
    writer.write("last\n")
    writer.close()
    os.close(fd)
    while more := os.read(reader, 1 << 16):
        received += more
    os.close(reader)
    assert received.endswith(b"x\nlast\n") or received.endswith(b"lines\nlast\n")
    told = re.findall(rb"(?m)^dropped (\d+) log lines$", received)
    assert sum(map(int, told)) == 4
    assert sum(heard) == 4
