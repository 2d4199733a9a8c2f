"""Serve the files of a ``file://`` upstream as Go's file server does.

A directory is served by its ``index.html``, else as a listing. Ranges and conditional
requests are supported. The file system, which may be slow, is accessed in a thread; a
small file is opened, read and closed in one call.
"""

from __future__ import annotations

import asyncio
import errno
import html
import mimetypes
import os
import re
import stat
from email.utils import formatdate, parsedate_to_datetime
from itertools import islice
from urllib.parse import quote

from msgspec import Struct

from authproxy_core.messages import Headers, Respond, ServeFile

from ..contract import ExchangeProtocol
from ..loop.receive_buffer import receive_buffer
from .open_beneath import open_beneath

SMALL_FILE = 64 << 10  # bytes of a file that is read at once
SNIFF_BYTES = 512  # bytes inspected to tell text from binary data
MAX_ENTRIES = 10_000  # of a directory listing
INDEX = "index.html"
TEXT = (b"content-type", b"text/plain; charset=utf-8")
HTML = (b"content-type", b"text/html; charset=utf-8")
NOSNIFF = (b"x-content-type-options", b"nosniff")
RANGE = re.compile(rb"bytes=[\t ]*(\d{0,18})-(\d{0,18})[\t ]*")
NOT_FOUND = Respond(404, (TEXT, NOSNIFF), b"404 page not found\n")
FORBIDDEN = Respond(403, (TEXT, NOSNIFF), b"403 Forbidden\n")
SERVER_ERROR = Respond(500, (TEXT, NOSNIFF), b"500 Internal Server Error\n")
ERRORS = {
    errno.ENOENT: NOT_FOUND,
    errno.ENOTDIR: NOT_FOUND,
    errno.ENAMETOOLONG: NOT_FOUND,
    errno.EACCES: FORBIDDEN,
    errno.EPERM: FORBIDDEN,
    errno.ELOOP: FORBIDDEN,
}


class ConditionalRequest(Struct, frozen=True):
    """The parts of a request that select the response for a file (RFC 9110 §13)."""

    method: bytes
    query: bytes
    fields: dict[bytes, bytes]

    @property
    def is_read(self) -> bool:
        """Return whether 304 and ranges are possible."""
        return self.method in (b"GET", b"HEAD")


class Span(Struct, frozen=True):
    """A part of a file, in bytes."""

    start: int
    size: int


class FileResponse(Struct):
    """A file to send: *size* bytes from *start* of the open descriptor."""

    descriptor: int
    status: int
    headers: Headers
    start: int
    size: int


async def serve_file(exchange: ExchangeProtocol, decision: ServeFile) -> None:
    """Respond with a file, a directory listing, a redirect or an error."""
    head = exchange.head
    _, _, query = head.target.partition(b"?")
    request = ConditionalRequest(head.method, query, head.fields)
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(None, resolve_file, decision, request)
    if isinstance(found, Respond):
        exchange.respond(
            Respond(
                found.status, (*found.headers, *decision.response_headers), found.body
            )
        )
        return
    try:
        await _send(exchange, found, decision.response_headers)
    finally:
        os.close(found.descriptor)


async def _send(
    exchange: ExchangeProtocol, file: FileResponse, headers: Headers
) -> None:
    loop, buffer = asyncio.get_running_loop(), receive_buffer()
    await exchange.start(file.status, (*file.headers, *headers), length=file.size)
    position, end = file.start, file.start + file.size
    if exchange.head.method != b"HEAD":
        while position < end:
            size = min(buffer.read_size, end - position)
            data = await loop.run_in_executor(
                None, os.pread, file.descriptor, size, position
            )
            if not data:
                break  # the file was truncated; `finish` aborts the connection
            with buffer.holding(len(data)):
                await exchange.write(data)
            position += len(data)
    await exchange.finish()


def resolve_file(
    decision: ServeFile, request: ConditionalRequest
) -> Respond | FileResponse:
    """Return the response for *request*; blocks on the file system."""
    path = decision.path
    if path.endswith("/" + INDEX):
        return _redirect("./", request)
    try:
        descriptor = open_beneath(decision.root, path, follow=decision.follow)
    except OSError as error:
        return ERRORS.get(error.errno or 0, SERVER_ERROR)
    name = path.rsplit("/", 1)[-1]
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        if not path.endswith("/"):
            os.close(descriptor)
            return _redirect(f"./{_quote(name)}/", request)
        index = _open_index(decision)
        if index is None:
            return _list_directory(descriptor, request)
        os.close(descriptor)
        descriptor, name = index, INDEX
    elif path.endswith("/"):
        os.close(descriptor)
        name = path.rstrip("/").rsplit("/", 1)[-1]
        return _redirect(f"../{_quote(name)}", request)
    return _select_response(descriptor, name, request)


def _open_index(decision: ServeFile) -> int | None:
    """Return a descriptor of the directory's ``index.html``; None without one."""
    try:
        descriptor = open_beneath(
            decision.root, decision.path + INDEX, follow=decision.follow
        )
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _redirect(location: str, request: ConditionalRequest) -> Respond:
    target = location.encode()
    if request.query:
        target += b"?" + request.query
    return Respond(301, ((b"location", target),))


def _list_directory(directory: int, request: ConditionalRequest) -> Respond:
    """Return the listing of the descriptor *directory*, which is closed."""
    try:
        modified = os.fstat(directory).st_mtime
        if _is_unmodified(request, modified):
            return Respond(304, (_last_modified(modified),))
        with os.scandir(directory) as entries:
            names = [
                entry.name + "/" * entry.is_dir(follow_symlinks=False)
                for entry in islice(entries, MAX_ENTRIES)
            ]
            truncated = next(entries, None) is not None
    except OSError:
        return SERVER_ERROR
    finally:
        os.close(directory)
    lines = "".join(
        f'<a href="./{_quote(name)}">{html.escape(_displayed(name))}</a>\n'
        for name in sorted(names)
    )
    if truncated:
        lines += f"\nOnly the first {MAX_ENTRIES} entries are listed.\n"
    page = (
        '<!doctype html>\n<meta name="viewport" content="width=device-width">\n'
        f"<pre>\n{lines}</pre>\n"
    )
    headers = (HTML, NOSNIFF, _last_modified(modified))
    return Respond(200, headers, page.encode())


def _quote(name: str) -> str:
    return quote(name.encode("utf-8", "surrogateescape"))


def _displayed(name: str) -> str:
    """Return *name* with invalid UTF-8 replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _select_response(
    descriptor: int, name: str, request: ConditionalRequest
) -> Respond | FileResponse:
    """Return the whole file, a part of it, 304, 412 or 416.

    The descriptor is closed unless a `FileResponse` holds it.
    """
    status = os.fstat(descriptor)
    modified, size = status.st_mtime, status.st_size
    refusal = _check_preconditions(request, modified)
    headers: Headers = (
        (b"accept-ranges", b"bytes"),
        (b"content-type", _content_type(descriptor, name)),
        _last_modified(modified),
        NOSNIFF,
    )
    value = _range_value(request, modified) if size and refusal is None else None
    span = _parse_range(value, size) if value is not None else None
    if span is not None:
        if span.size:
            last = span.start + span.size - 1
            content_range = b"bytes %d-%d/%d" % (span.start, last, size)
            headers = (*headers, (b"content-range", content_range))
            return FileResponse(descriptor, 206, headers, span.start, span.size)
        refusal = Respond(
            416,
            (TEXT, NOSNIFF, (b"content-range", b"bytes */%d" % size)),
            b"invalid range: failed to overlap\n",
        )
    if refusal is not None:
        os.close(descriptor)
        return refusal
    if size <= SMALL_FILE and request.method != b"HEAD":
        body = os.pread(descriptor, size, 0)
        os.close(descriptor)
        return Respond(200, headers, body)
    return FileResponse(descriptor, 200, headers, 0, size)


def _check_preconditions(
    request: ConditionalRequest, modified: float
) -> Respond | None:
    """Return 304 or 412 if a precondition fails (RFC 9110 §13.2.2).

    Files have no entity tags, so no tag matches.
    """
    fields = request.fields
    match = fields.get(b"if-match")
    unmodified_since = _parse_date(fields.get(b"if-unmodified-since"))
    if match is not None:
        if match.strip() != b"*":
            return Respond(412, (TEXT, NOSNIFF))
    elif unmodified_since is not None and int(modified) > unmodified_since:
        return Respond(412, (TEXT, NOSNIFF))
    if _is_unmodified(request, modified):
        return Respond(304, (_last_modified(modified),))
    if fields.get(b"if-none-match", b"").strip() == b"*":
        return Respond(412, (TEXT, NOSNIFF))
    return None


def _is_unmodified(request: ConditionalRequest, modified: float) -> bool:
    if not request.is_read:
        return False
    none_match = request.fields.get(b"if-none-match")
    if none_match is not None:
        return none_match.strip() == b"*"
    modified_since = _parse_date(request.fields.get(b"if-modified-since"))
    return modified_since is not None and int(modified) <= modified_since


def _range_value(request: ConditionalRequest, modified: float) -> bytes | None:
    """Return the Range field, unless If-Range names another version of the file."""
    fields = request.fields
    if not request.is_read or b"range" not in fields:
        return None
    if_range = fields.get(b"if-range")
    if if_range is not None and _parse_date(if_range) != int(modified):
        return None
    return fields[b"range"]


def _parse_range(value: bytes, size: int) -> Span | None:
    """Return the range of a file of *size* bytes; an empty span if it is outside.

    None means the whole file: several ranges may be ignored (RFC 9110 §14.2), and
    malformed ones are.
    """
    match = RANGE.fullmatch(value)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last bytes
        suffix = min(int(match[2]), size)
        return Span(size - suffix, suffix)
    start, last = int(match[1]), int(match[2] or size)
    if last < start:
        return None
    return Span(start, max(min(last, size - 1) - start + 1, 0))


def _last_modified(modified: float) -> tuple[bytes, bytes]:
    return b"last-modified", formatdate(int(modified), usegmt=True).encode()


def _parse_date(value: bytes | None) -> int | None:
    """Return seconds since the epoch; None if *value* is not a date."""
    if value is None:
        return None
    try:
        return int(parsedate_to_datetime(value.decode("ascii")).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _content_type(descriptor: int, name: str) -> bytes:
    """Return the media type by *name*, else plain text or binary data.

    A browser runs neither, whatever the content is.
    """
    media_type, coding = mimetypes.guess_type("x/" + name)
    if coding is not None:
        media_type = (
            "application/gzip" if coding == "gzip" else "application/octet-stream"
        )
    if media_type is None:
        is_text = _is_text(os.pread(descriptor, SNIFF_BYTES, 0))
        media_type = "text/plain" if is_text else "application/octet-stream"
    if media_type.startswith("text/"):
        media_type += "; charset=utf-8"
    return media_type.encode()


def _is_text(start: bytes) -> bool:
    """Return whether *start*, the first bytes of a file, are UTF-8 without NUL."""
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # the end may be within a character
    return True
