"""Text log lines: formats, redaction, no log injection, dropped lines."""

from __future__ import annotations

import os
import re

import pytest

from authproxy.logs.redact import (
    MAX_TEXT_LENGTH,
    REDACTED,
    compile_format,
    escape_unprintable,
    quote,
    redact,
)
from authproxy.logs.writer import LogWriter
from authproxy_core.effects import Outcome
from authproxy_core.errors import SettingsError
from authproxy_core.messages import Event, Request, Respond
from support.server import Server, talk, until

STAMP = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\]"


def denies(request: Request) -> Outcome:
    """Respond with a user and an event."""
    event = Event("denied", "eve@example.com", "not_authorized\nforged", "a\r\nb")
    return Respond(403, (), b"no", (event,), "alice@example.com")


def request(target: bytes, *fields: bytes) -> bytes:
    """Return a GET with a known request ID."""
    lines = b"".join(field + b"\r\n" for field in (b"X-Request-Id: id-1", *fields))
    return (
        b"GET " + target + b" HTTP/1.1\r\nHost: app.example.com\r\n" + lines + b"\r\n"
    )


def test_log_lines_default_formats() -> None:
    with Server(denies) as server:
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
        b"/oauth2/start?rd=%2Fx%23access_token%3DSECRET",
        b"/oauth2/sign_in?rd=%252Fx%253Fcode%253DSECRET",
        b"/oauth2/sign_in?rd=%25252Fx%25253Fa%25253D1%252526code%25253DSECRET",
        b"/oauth2/sign_in?rd=%2Fx%3Frd%3D%252Fy%253Fcode%253DSECRET%26a%3D1",
        b"/oauth2/sign_in?rd=/x%23a=1%26Access%5FToken=SECRET",
        b"/oauth2/start%3Frd=/x%3Fcode%3DSECRET",
        b"/?rd=%2Fx%3F%2563ode%3DSECRET",
        b"/?code=a%26SECRET",
        b"/?rd=%2Fx%3Fcode%3Da%2526SECRET",
        b"/x#access_token=SECRET",
        b"/?code%3DSECRET",
    ],
)
def test_redact_secret_parameter_in_all_spellings(target: bytes) -> None:
    """OU28: also in URLs within the URL."""
    assert b"SECRET" not in redact(target)
    assert redact(target) != target


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/code=a",
        b"/?codes=a&xstate=b",
        b"/?a=%63",
        b"/a%20b",
        b"/%3Fcode",
        b"/?rd=%2Fx%3Fcodes%3Da%26b%3D%2523c",
        b"/?&&a&=b#c=d",
    ],
)
def test_redact_other_parameters_unchanged(target: bytes) -> None:
    assert redact(target) == target


@pytest.mark.parametrize(
    ("target", "start", "end"),
    [
        (b"/a?code=" + b"s" * 9000, b"/a?code=...", b"..."),
        (b"/a?x=1&code=" + b"s" * 9000 + b"&y=2", b"/a?x=1&code=...", b"&y=2"),
        (b"/a?" + b"x=1&" * 3000 + b"code=s", b"/a?x=1&", b"&x=1&code=..."),
        (b"/a?rd=%3Fcode%3D" + b"s" * 9000 + b"%26z", b"/a?rd=%3Fcode%3D...", b"..."),
    ],
)
def test_redact_long_target_keeps_both_ends(
    target: bytes, start: bytes, end: bytes
) -> None:
    """Only what a line shows is searched for parameters, because each has a cost."""
    redacted = redact(target)
    assert redacted.startswith(start)
    assert redacted.endswith(end)
    assert b"s" not in redacted
    assert len(redacted) <= MAX_TEXT_LENGTH + 2 * len(REDACTED)


def test_redact_ends_value_where_its_url_ends() -> None:
    target = b"/?rd=%2Fx%3Fcode%3DS%2526%26b%3D1&c=%3Fd&state=S;e=f%23"
    redacted = b"/?rd=%2Fx%3Fcode%3D...%26b%3D1&c=%3Fd&state=...;e=f%23"
    assert redact(target) == redacted


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\x1b[2J", "\u2028", "\x85", "\0"])
def test_escapes_control_characters_stay_on_a_single_line(text: str) -> None:
    for line in (escape_unprintable(text), quote(text)):
        assert line.isprintable()
        assert len(line.splitlines()) == 1


def test_compile_format_known_fields_only() -> None:
    """Percent signs are literal text."""
    line = compile_format("o", "{{.B}} 100% {{ .A }} %s", ("A", "B"))
    assert line(("1", "2")) == "2 100% 1 %s\n"
    for template in ("{{.C}}", "{{if .C}}x{{end}}", "{{.A", "{{if .A}}", "{{nope .A}}"):
        with pytest.raises(SettingsError, match=r"^o:"):
            compile_format("o", template, ("A", "B"))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{{if eq .A "-"}}none{{else}}{{.A}}{{end}} {{.B}}', '1 <"2">\n'),
        ("{{.A | printf `%3s`}}|{{ToUpper .B}}|{{html .B}}",
         '  1|<"2">|&lt;&#34;2&#34;&gt;\n'),
        ("{{- /* both */ -}} {{with .A}}{{.}}{{end}}{{ len .B }}", "15\n"),
        ("{{slice .A 0 9}}", '1 <"2">\n'),
    ],
)  # fmt: skip
def test_compile_format_functions_and_conditions(template: str, expected: str) -> None:
    """As in oauth2-proxy, nothing is escaped; no line is lost if a function fails."""
    line = compile_format("o", template, ("A", "B"))
    assert line(("1", '<"2">')) == expected


def test_log_writer_slow_reader_drops_and_counts_lines() -> None:
    """The count is written to the log and reported to the callback."""
    reader, fd = os.pipe()
    reported: list[int] = []
    writer = LogWriter(fd, queue_bytes=100_000, on_dropped=reported.append)
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
    counts = re.findall(rb"(?m)^dropped (\d+) log lines$", received)
    assert sum(map(int, counts)) == 4
    assert sum(reported) == 4
