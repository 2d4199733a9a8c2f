"""Serves the files of a ``file://`` upstream, as Go's file server does.

``index.html`` stands for its folder, other folders are listed, a range or a condition
of the request is honoured. The file system is asked on another thread, for it may be
slow; a small file is opened, read and closed in one go.
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

from ..serve.worker_context import ExchangeProtocol
from .open_beneath import open_beneath

READ_BYTES = 256 << 10  # bytes that are read at once
SNIFFED = 512  # bytes that tell text from other things
MAX_ENTRIES = 10_000  # of a folder that are listed
INDEX = "index.html"
TEXT = (b"content-type", b"text/plain; charset=utf-8")
HTML = (b"content-type", b"text/html; charset=utf-8")
NOSNIFF = (b"x-content-type-options", b"nosniff")
RANGE = re.compile(rb"bytes=[\t ]*(\d{0,18})-(\d{0,18})[\t ]*")
ERRORS = {
    errno.ENOENT: Respond(404, (TEXT, NOSNIFF), b"404 page not found\n"),
    errno.EACCES: Respond(403, (TEXT, NOSNIFF), b"403 Forbidden\n"),
}
ERRORS |= dict.fromkeys((errno.ENOTDIR, errno.ENAMETOOLONG), ERRORS[errno.ENOENT])
ERRORS |= dict.fromkeys((errno.EPERM, errno.ELOOP), ERRORS[errno.EACCES])
FAILED = Respond(500, (TEXT, NOSNIFF), b"500 Internal Server Error\n")


class ConditionalRequest(Struct, frozen=True):
    """What a request says about the file; only the fields that matter."""

    method: bytes
    query: bytes
    fields: dict[bytes, bytes]

    @property
    def reads(self) -> bool:
        return self.method in (b"GET", b"HEAD")


class Span(Struct, frozen=True):
    """A part of a file, in bytes."""

    start: int
    size: int


class FileResponse(Struct):
    """A file to send: *size* bytes from *start* of the descriptor."""

    descriptor: int
    status: int
    headers: Headers
    start: int
    size: int


async def serve_file(exchange: ExchangeProtocol, decision: ServeFile) -> None:
    """Answer with the file, the folder's list, or what is wrong."""
    head = exchange.head
    _, _, query = head.target.partition(b"?")
    conditions = ConditionalRequest(head.method, query, head.fields)
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(None, resolve_file, decision, conditions)
    if isinstance(found, Respond):
        exchange.respond(
            Respond(
                found.status, (*found.headers, *decision.response_headers), found.body
            )
        )
        return
    try:
        await _sent(exchange, found, decision.response_headers)
    finally:
        os.close(found.descriptor)


async def _sent(
    exchange: ExchangeProtocol, opened: FileResponse, headers: Headers
) -> None:
    loop = asyncio.get_running_loop()
    await exchange.start(opened.status, (*opened.headers, *headers), length=opened.size)
    at, end = opened.start, opened.start + opened.size
    if exchange.head.method != b"HEAD":
        while at < end:
            size = min(READ_BYTES, end - at)
            piece = await loop.run_in_executor(
                None, os.pread, opened.descriptor, size, at
            )
            if not piece:
                break  # it has become shorter; the exchange cuts the connection
            await exchange.write(piece)
            at += len(piece)
    await exchange.finish()


def resolve_file(
    decision: ServeFile, conditions: ConditionalRequest
) -> Respond | FileResponse:
    """What to answer; blocking calls of the file system."""
    path = decision.path
    if path.endswith("/" + INDEX):
        return _moved("./", conditions)
    try:
        entry = open_beneath(decision.root, path, follow=decision.follow)
    except OSError as error:
        return ERRORS.get(error.errno or 0, FAILED)
    name = path.rsplit("/", 1)[-1]
    if stat.S_ISDIR(os.fstat(entry).st_mode):
        if not path.endswith("/"):
            os.close(entry)
            return _moved(f"./{_quoted(name)}/", conditions)
        index = _index(decision)
        if index is None:
            return _listed(entry, conditions)
        os.close(entry)
        entry, name = index, INDEX
    elif path.endswith("/"):
        os.close(entry)
        return _moved(f"../{_quoted(path.rstrip('/').rsplit('/', 1)[-1])}", conditions)
    return _answer(entry, name, conditions)


def _quoted(name: str) -> str:
    return quote(name.encode("utf-8", "surrogateescape"))


def _index(decision: ServeFile) -> int | None:
    try:
        entry = open_beneath(
            decision.root, decision.path + INDEX, follow=decision.follow
        )
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(entry).st_mode):
        return entry
    os.close(entry)
    return None


def _moved(location: str, conditions: ConditionalRequest) -> Respond:
    target = location.encode()
    if conditions.query:
        target += b"?" + conditions.query
    return Respond(301, ((b"location", target),))


def _listed(folder: int, conditions: ConditionalRequest) -> Respond:
    """The names in *folder*, which is closed."""
    try:
        modified = os.fstat(folder).st_mtime
        if _is_unmodified(conditions, modified):
            return Respond(304, (_last_modified(modified),))
        with os.scandir(folder) as entries:
            names = [
                entry.name + "/" * entry.is_dir(follow_symlinks=False)
                for entry in islice(entries, MAX_ENTRIES)
            ]
            rest = next(entries, None)
    except OSError:
        return FAILED
    finally:
        os.close(folder)
    lines = "".join(
        f'<a href="./{_quoted(name)}">{html.escape(_shown(name))}</a>\n'
        for name in sorted(names)
    )
    if rest is not None:
        lines += f"\nOnly the first {MAX_ENTRIES} entries are listed.\n"
    page = (
        '<!doctype html>\n<meta name="viewport" content="width=device-width">\n'
        f"<pre>\n{lines}</pre>\n"
    )
    headers = (HTML, NOSNIFF, _last_modified(modified))
    return Respond(200, headers, page.encode())


def _shown(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _answer(
    entry: int, name: str, conditions: ConditionalRequest
) -> Respond | FileResponse:
    """The file *entry* as a whole, a part of it, or that it need not be sent."""
    status = os.fstat(entry)
    modified, size = status.st_mtime, status.st_size
    refusal = _refusal(conditions, modified)
    headers: Headers = (
        (b"accept-ranges", b"bytes"),
        (b"content-type", _type(entry, name)),
        _last_modified(modified),
        NOSNIFF,
    )
    start, part = 0, size
    wanted = _wanted(conditions, modified) if size and refusal is None else None
    if wanted is not None:
        span = _span(wanted, size)
        if span is not None and not span.size:
            refusal = Respond(
                416,
                (TEXT, NOSNIFF, (b"content-range", b"bytes */%d" % size)),
                b"invalid range: failed to overlap\n",
            )
        elif span is not None:
            start, part = span.start, span.size
            place = b"bytes %d-%d/%d" % (start, start + part - 1, size)
            return FileResponse(
                entry, 206, (*headers, (b"content-range", place)), start, part
            )
    if refusal is not None:
        os.close(entry)
        return refusal
    if part <= READ_BYTES and conditions.method != b"HEAD":
        body = os.pread(entry, part, 0)
        os.close(entry)
        return Respond(200, headers, body)
    return FileResponse(entry, 200, headers, start, part)


def _refusal(conditions: ConditionalRequest, modified: float) -> Respond | None:
    """304 or 412 where the request's conditions say so (RFC 9110 §13.2.2).

    There are no entity tags here, so none matches.
    """
    fields = conditions.fields
    match = fields.get(b"if-match")
    since = _moment(fields.get(b"if-unmodified-since"))
    if match is not None:
        if match.strip() != b"*":
            return Respond(412, (TEXT, NOSNIFF))
    elif since is not None and int(modified) > since:
        return Respond(412, (TEXT, NOSNIFF))
    if _is_unmodified(conditions, modified):
        return Respond(304, (_last_modified(modified),))
    if fields.get(b"if-none-match", b"").strip() == b"*":
        return Respond(412, (TEXT, NOSNIFF))
    return None


def _is_unmodified(conditions: ConditionalRequest, modified: float) -> bool:
    if not conditions.reads:
        return False
    none_match = conditions.fields.get(b"if-none-match")
    if none_match is not None:
        return none_match.strip() == b"*"
    since = _moment(conditions.fields.get(b"if-modified-since"))
    return since is not None and int(modified) <= since


def _wanted(conditions: ConditionalRequest, modified: float) -> bytes | None:
    """The range asked for, if it is still of this file."""
    fields = conditions.fields
    if not conditions.reads or b"range" not in fields:
        return None
    unless = fields.get(b"if-range")
    if unless is not None and _moment(unless) != int(modified):
        return None
    return fields[b"range"]


def _span(wanted: bytes, size: int) -> Span | None:
    """One range of *size* bytes, empty when it is outside; None to send everything.

    A list of ranges may be ignored (RFC 9110 §14.2), and so is what is malformed.
    """
    match = RANGE.fullmatch(wanted)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last bytes
        part = min(int(match[2]), size)
        return Span(size - part, part)
    start, last = int(match[1]), int(match[2] or size)
    if last < start:
        return None
    return Span(start, max(min(last, size - 1) - start + 1, 0))


def _last_modified(moment: float) -> tuple[bytes, bytes]:
    return b"last-modified", formatdate(int(moment), usegmt=True).encode()


def _moment(value: bytes | None) -> int | None:
    """Seconds since the epoch, None for what is no date."""
    if value is None:
        return None
    try:
        return int(parsedate_to_datetime(value.decode("ascii")).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _type(entry: int, name: str) -> bytes:
    """By the name, else text or bytes: nothing that a browser would run."""
    kind, coding = mimetypes.guess_type("x/" + name)
    if coding is not None:
        kind = "application/gzip" if coding == "gzip" else "application/octet-stream"
    if kind is None:
        kind = "text/plain" if _is_text(os.pread(entry, SNIFFED, 0)) else ""
    if not kind:
        return b"application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return kind.encode()


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # cut within a character
    return True
