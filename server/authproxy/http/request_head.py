"""Parse the head of an HTTP/1 request into a `RequestHead`, or raise `HeadError`.

llhttp parses the header fields strictly; its lenient flags stay off. Where it accepts
more than RFC 9112 allows, `check_head` is stricter: request line, protocol version,
Host, body framing. Malformed or ambiguous input is rejected, never repaired. Valid but
unusual targets are normalized to origin-form, so the core and upstreams see one form.

`HeadReader.read_single` is the fast path for data that is exactly one head. It returns
None for all other input; the caller then cuts out the head and calls `HeadReader.read`,
which raises the precise error.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from authproxy_core.bounded_cache import BoundedCache
from authproxy_core.messages import Header, single_header

from ..server_settings import Limits
from .field_syntax import CONTENT_LENGTH, OWS

BLANK_LINE = b"\r\n\r\n"
MINOR_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
# Printable ASCII without "#": a request target has no fragment (RFC 9112 §3.2).
VISIBLE = re.compile(rb"[!-\"$-~]+")
AUTHORITY = rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?"
HOST = re.compile(AUTHORITY)
# User information in an http URL is an error (RFC 9110 §4.2.4).
ABSOLUTE = re.compile(rb"(?i:https?)://(" + AUTHORITY + rb")([/?][!-\"$-~]*)?")
NON_ASCII = re.compile(rb"[\x80-\xff]")
# Checked here because llhttp skips CR and LF in front of the method, and knows only
# registered methods.
METHOD = re.compile(rb"[A-Z][A-Z0-9_-]{0,31}")
ASTERISK = b"*"  # target of OPTIONS for the server itself (RFC 9112 §3.2.4)
# Of an HTTP/1.0 request without a Host field (RFC 9112 §3.3).
DEFAULT_HOST = b"localhost"
FORBIDDEN_METHODS = frozenset({b"CONNECT", b"DEBUG", b"TRACE", b"TRACK"})
MAX_HOST_BYTES = 300
MAX_UNCOUNTED_BYTES = 2048  # up to this size the parts of a head are not counted
MAX_COOKIES = 1000  # browsers store about 180 per domain
MAX_CONNECTION_OPTIONS = 100
MAX_CACHED_HOSTS = 1024
_hosts: BoundedCache[bytes, str] = BoundedCache(MAX_CACHED_HOSTS)  # valid Host values
MAX_CACHED_LINES, MAX_CACHED_LINE_BYTES = 1024, 256
RequestLine: TypeAlias = tuple[bytes, bytes, int, bytes | None]
# Method, target, minor version and authority by the valid request line.
_request_lines: BoundedCache[bytes, RequestLine] = BoundedCache(MAX_CACHED_LINES)


class HeadError(Exception):
    """The head is rejected with the response *status*; *reason* is for the log."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class RequestHead(Struct):
    """The head of one request.

    ``headers`` are all fields in order, with lower-case names; ``fields`` maps a name
    to its last value. ``host`` is the Host field.
    ``minor`` is the minor version of HTTP/1, or 2 for HTTP/2. ``length`` is the body's
    size in bytes, None for a chunked body. ``expects_continue`` means that the client
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
    expects_continue: bool = False

    def single_value(self, name: bytes) -> bytes | None:
        """Return the value of the field *name*; None if it is absent or repeated."""
        value = self.fields.get(name)
        if value is None or len(self.fields) == len(self.headers):
            return value
        return single_header(self.headers, name)


class HeadReader:
    """Parser of the request heads of one connection."""

    __slots__ = ("_complete", "_count", "_headers", "_limits", "_parser")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._headers: list[Header] = []
        self._count = 0  # heads in the data that was fed last
        self._complete = 0  # requests that ended in it
        self._parser = HttpRequestParser(self)

    # Callbacks of llhttp.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one field; llhttp keeps whitespace at the end of a value."""
        self._headers.append((name.lower(), value.rstrip(OWS)))

    def on_headers_complete(self) -> None:
        """Count a head; raise `HeadError`, which ends the parsing, for another one."""
        self._count += 1
        if self._count > 1:
            raise HeadError(400, "more than one head")

    def on_message_complete(self) -> None:
        """Count a complete request."""
        self._complete += 1

    # Methods for the connection.

    def close(self) -> None:
        """Free the parser, which refers back; nothing can be read any more.

        Reference cycles live until a full garbage collection, which may take hours.
        """
        del self._parser

    def read_single(self, data: bytes) -> RequestHead | None:
        """Return the head if *data* is one valid head without a body, else None."""
        if not data.endswith(BLANK_LINE) or self._has_too_many_lines(data):
            return None
        try:
            self._feed(data)
            if self._count == 1 and self._complete == 1:
                head = check_head(data, self._headers, self._limits)
                if head.length == 0:
                    return head  # otherwise *data* ends with a body
        except (HttpParserError, HttpParserUpgrade, HeadError):
            pass
        self._parser = HttpRequestParser(self)
        return None

    def read(self, head: bytes) -> RequestHead:
        """Parse *head*, which ends with the empty line. Raises `HeadError`."""
        if self._has_too_many_lines(head):
            raise HeadError(431, f"more than {self._limits.header_count} header fields")
        self._parser = HttpRequestParser(self)
        try:
            self._feed(_with_plain_request_line(head))
        except HttpParserUpgrade:
            pass  # llhttp stops after the head; the core decides about the upgrade
        except HttpParserError as error:
            raise HeadError(400, f"malformed head: {error}") from None
        finally:
            self._parser = HttpRequestParser(self)
        if self._count != 1:
            raise HeadError(400, "malformed head: no end of the header section")
        return check_head(head, self._headers, self._limits)

    def _has_too_many_lines(self, data: bytes) -> bool:
        """Return whether *data* is not worth parsing: too long, or too many fields."""
        size, limits = len(data), self._limits
        if size > limits.head_bytes:
            return True
        if size <= MAX_UNCOUNTED_BYTES:
            return False  # `check_head` counts the fields
        extra_lines = 2  # the request line and the empty line
        return data.count(b"\n") > limits.header_count + extra_lines

    def _feed(self, data: bytes) -> None:
        self._headers = []
        self._count = self._complete = 0
        self._parser.feed_data(data)


def _with_plain_request_line(head: bytes) -> bytes:
    """Return *head* with another method and target, which `check_head` checks.

    llhttp rejects methods that it does not know, and UTF-8 in the target.
    """
    line, separator, rest = head.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or not METHOD.fullmatch(parts[0]) or not parts[1]:
        return head
    return b"GET / " + parts[2] + separator + rest


def normalize_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """Return *target* in origin-form, and the authority of an absolute-form.

    UTF-8 is percent-encoded, as clients should (RFC 3986 §2.5). ``*`` stays. Raises
    `HeadError` for other targets.
    """
    if target == ASTERISK and method == b"OPTIONS":
        return target, None
    try:
        target.decode()
    except UnicodeDecodeError:
        raise HeadError(400, "request target is not UTF-8") from None
    target = NON_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], target)
    if target[:1] == b"/" and VISIBLE.fullmatch(target):
        return target, None
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise HeadError(400, "malformed request target")
    authority, path = absolute[1], absolute[2] or b"/"
    return path if path[:1] == b"/" else b"/" + path, authority


def check_head(data: bytes, headers: list[Header], limits: Limits) -> RequestHead:
    """Check what llhttp does not, and return the head.

    *data* starts with the request line; *headers* are the parsed fields. Raises
    `HeadError`.
    """
    line = data[: data.find(b"\r\n")]
    method, target, minor, authority = _request_lines.get(line) or _parse_line(line)
    if len(target) > limits.target_bytes:
        raise HeadError(414, f"request target of {len(target)} bytes")
    if len(headers) > limits.header_count:
        raise HeadError(431, f"{len(headers)} header fields")
    if len(data) > MAX_UNCOUNTED_BYTES:
        _reject_long_lists(headers)
    fields = dict(headers)
    if len(fields) != len(headers):
        _reject_duplicates(headers)
    host = fields.get(b"host")
    if host is None and minor:
        raise HeadError(400, "no Host field")
    if host is None or authority is not None:
        # The target's authority replaces the Host field (RFC 9112 §3.2.2).
        host = authority or DEFAULT_HOST
        headers = [(b"host", host), *(one for one in headers if one[0] != b"host")]
        fields[b"host"] = host
    connection = fields.get(b"connection")
    head = RequestHead(
        method,
        target,
        headers,
        fields,
        _hosts.get(host) or _check_host(host),
        minor,
        minor == 1 if connection is None else _wants_keep_alive(headers, minor),
    )
    if b"content-length" in fields or b"transfer-encoding" in fields:
        head.length = _body_length(fields, minor)
    if b"expect" in fields and minor:
        if fields[b"expect"].lower() != b"100-continue":
            raise HeadError(417, "unknown expectation")
        head.expects_continue = head.length != 0
    return head


def _parse_line(line: bytes) -> RequestLine:
    """Return the checked parts of a request line. Raises `HeadError`."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise HeadError(400, "malformed request line")
    method, target, version = parts
    if not METHOD.fullmatch(method):
        raise HeadError(400, "malformed method")
    minor = MINOR_VERSIONS.get(version)
    if minor is None:
        raise HeadError(400, "unsupported protocol version")
    if method in FORBIDDEN_METHODS:
        raise HeadError(405, f"method {method.decode()}")
    authority = None
    if target[:1] != b"/" or not VISIBLE.fullmatch(target):
        target, authority = normalize_target(method, target)
    parsed = method, target, minor, authority
    if len(line) > MAX_CACHED_LINE_BYTES:
        return parsed
    return _request_lines.put(line, parsed)


def _check_host(host: bytes) -> str:
    if not HOST.fullmatch(host) or len(host) > MAX_HOST_BYTES:
        raise HeadError(400, "malformed Host field")
    return _hosts.put(host, host.decode("ascii"))


def _reject_long_lists(headers: list[Header]) -> None:
    cookies = options = 0
    for name, value in headers:
        if name == b"cookie":
            cookies += value.count(b";") + 1
        elif name == b"connection":
            options += value.count(b",")
    if cookies > MAX_COOKIES:
        raise HeadError(431, f"{cookies} cookies")
    if options >= MAX_CONNECTION_OPTIONS:
        raise HeadError(431, f"{options + 1} connection options")


def _reject_duplicates(headers: list[Header]) -> None:
    names = [name for name, _ in headers]
    for name in (b"host", b"content-length", b"transfer-encoding", b"expect"):
        if names.count(name) > 1:
            raise HeadError(400, f"repeated field {name.decode()}")


def _wants_keep_alive(headers: list[Header], minor: int) -> bool:
    """Return whether the client wants a persistent connection (RFC 9112 §9.3)."""
    options = {
        option.strip(OWS).lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    return b"close" not in options and (minor == 1 or b"keep-alive" in options)


def _body_length(fields: dict[bytes, bytes], minor: int) -> int | None:
    """Return the body's size in bytes, None for chunked (RFC 9112 §6.3).

    Raises `HeadError`, also if both framings are present.
    """
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
