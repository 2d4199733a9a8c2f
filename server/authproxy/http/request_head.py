"""Bytes of a request's head to a `Head`, or a refusal.

llhttp reads the header fields, strictly (its lenient flags stay off). What it takes
more easily than RFC 9112 allows is judged here: the request line, the protocol's
version, Host, the framing of the body. Whatever is malformed or could be read in two
ways is a `HeadError`; nothing is repaired.

`HeadReader.sole` is the quick way for the usual case, one whole head and nothing else
in what was received. It answers None for anything out of the ordinary, and the caller
then cuts the head out and calls `HeadReader.read`, which says what is wrong.
"""

from __future__ import annotations

import re

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from authproxy_core.messages import Header, single_header

from ..server_settings import Limits

BLANK_LINE = b"\r\n\r\n"
MINOR_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
# A fragment never belongs into a request (RFC 9112 §3.2).
VISIBLE = re.compile(rb"[!-\"$-~]+")
AUTHORITY = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
HOST = re.compile(AUTHORITY)
# User information in an http URL is an error (RFC 9110 §4.2.4).
ABSOLUTE = re.compile(rb"(?i:https?)://" + AUTHORITY + rb"(?:[/?][!-\"$-~]*)?")
# llhttp knows the methods, but skips line ends before them.
METHOD = re.compile(rb"[A-Z-]+")
CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
FORBIDDEN_METHODS = frozenset({b"CONNECT", b"TRACE", b"TRACK"})
HOSTS_KEPT = 1024


class HeadError(Exception):
    """The head is refused with ``status``; the text is for the operator."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestHead(Struct):
    """One request's head.

    ``headers`` are all fields in order, ``fields`` maps a name to its last value.
    ``host`` is the Host field, "" when it is absent (HTTP/1.0). ``minor`` is the minor
    version of HTTP/1, or 2 for HTTP/2. ``length`` is the
    body's size in bytes, None when it is chunked. ``expects`` says that the client
    waits for "100 Continue" before it sends the body.
    """

    method: bytes
    target: bytes
    headers: list[Header]
    fields: dict[bytes, bytes]
    host: str
    minor: int
    keep_alive: bool
    length: int | None = 0
    expects: bool = False

    def sole(self, name: bytes) -> bytes | None:
        """The value of the field *name* when it stands there exactly once."""
        value = self.fields.get(name)
        if value is None or len(self.fields) == len(self.headers):
            return value
        return single_header(self.headers, name)


class HeadReader:
    """Reads the heads of one connection."""

    __slots__ = ("_complete", "_count", "_headers", "_limits", "_parser")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._headers: list[Header] = []
        self._count = 0
        self._complete = 0
        self._parser = HttpRequestParser(self)

    # What llhttp calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field; llhttp leaves blanks at the value's end."""
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Count the heads in what was fed."""
        self._count += 1

    def on_message_complete(self) -> None:
        """Count the requests that ended in what was fed."""
        self._complete += 1

    # What the connection calls.

    def read_single(self, data: bytes) -> RequestHead | None:
        """The head when *data* is one plain head and nothing else, else None."""
        if not data.endswith(BLANK_LINE) or len(data) > self._limits.head_bytes:
            return None
        try:
            self._feed(data)
            # A second head, or a body: not the usual case.
            if self._count == 1 and self._complete == 1:
                head = check_head(data, self._headers, self._limits)
                if head.length == 0:
                    return head  # else a whole body is in *data*, which must be kept
        except (HttpParserError, HttpParserUpgrade, HeadError):
            pass
        self._parser = HttpRequestParser(self)
        return None

    def read(self, head: bytes) -> RequestHead:
        """Read *head*, which ends with its blank line; raises `HeadError`."""
        self._parser = HttpRequestParser(self)
        try:
            self._feed(head)
        except HttpParserUpgrade:
            pass  # llhttp stops after the head; what to do with it is the core's affair
        except HttpParserError as error:
            if head.startswith(b"TRACK "):
                raise HeadError(405, "method TRACK") from None
            raise HeadError(400, f"malformed head: {error}") from None
        finally:
            self._parser = HttpRequestParser(self)
        if self._count != 1:
            raise HeadError(400, "malformed head: no end of the fields")
        return check_head(head, self._headers, self._limits)

    def _feed(self, data: bytes) -> None:
        self._headers = []
        self._count = self._complete = 0
        self._parser.feed_data(data)


def check_head(data: bytes, headers: list[Header], limits: Limits) -> RequestHead:
    """Check what llhttp does not; *data* begins with the request line."""
    line = data[: data.find(b"\r\n")].split(b" ")
    if len(line) != 3:
        raise HeadError(400, "malformed request line")
    method, target, version = line
    if not METHOD.fullmatch(method):
        raise HeadError(400, "malformed method")
    minor = MINOR_VERSIONS.get(version)
    if minor is None:
        raise HeadError(400, "unsupported protocol version")
    if method in FORBIDDEN_METHODS:
        raise HeadError(405, f"method {method.decode()}")
    if len(target) > limits.target_bytes:
        raise HeadError(414, f"request target of {len(target)} bytes")
    if not (VISIBLE.fullmatch(target) if target[:1] == b"/" else _absolute(target)):
        raise HeadError(400, "malformed request target")
    if len(headers) > limits.header_count:
        raise HeadError(431, f"{len(headers)} header fields")
    fields = dict(headers)
    if len(fields) != len(headers):
        _refuse_twins(headers)
    host = fields.get(b"host")
    if host is None and minor:
        raise HeadError(400, "no Host field")
    connection = fields.get(b"connection")
    head = RequestHead(
        method,
        target,
        headers,
        fields,
        "" if host is None else _HOSTS.get(host) or _checked_host(host),
        minor,
        minor == 1 if connection is None else _persists(headers, minor),
    )
    if b"content-length" in fields or b"transfer-encoding" in fields:
        head.length = _body_length(fields, minor)
    if b"expect" in fields and minor:
        head.expects = _expectation(fields[b"expect"]) and head.length != 0
    return head


_HOSTS: dict[bytes, str] = {}  # those that have passed; the same few come all the time


def _checked_host(host: bytes) -> str:
    if not HOST.fullmatch(host) or len(host) > 300:
        raise HeadError(400, "malformed Host field")
    if len(_HOSTS) >= HOSTS_KEPT:
        _HOSTS.clear()
    return _HOSTS.setdefault(host, host.decode("ascii"))


def _absolute(target: bytes) -> bool:
    return ABSOLUTE.fullmatch(target) is not None


def _refuse_twins(headers: list[Header]) -> None:
    names = [name for name, _ in headers]
    for name in (b"host", b"content-length", b"transfer-encoding", b"expect"):
        if names.count(name) > 1:
            raise HeadError(400, f"field {name.decode()} more than once")


def _persists(headers: list[Header], minor: int) -> bool:
    """Whether the client wants the connection to stay open (RFC 9112 §9.3)."""
    options = {
        option.strip(b" \t").lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _body_length(fields: dict[bytes, bytes], minor: int) -> int | None:
    """The body's size, None for chunked (RFC 9112 §6.3); never both framings."""
    coding = fields.get(b"transfer-encoding")
    length = fields.get(b"content-length")
    if coding is None and length is not None:
        if not CONTENT_LENGTH.fullmatch(length):
            raise HeadError(400, "malformed Content-Length")
        return int(length)
    if length is not None:
        raise HeadError(400, "both Content-Length and Transfer-Encoding")
    if not minor or coding is None or coding.lower() != b"chunked":
        raise HeadError(400, "unsupported Transfer-Encoding")
    return None


def _expectation(value: bytes) -> bool:
    if value.lower() != b"100-continue":
        raise HeadError(417, "unknown expectation")
    return True
