"""Variants of a path: what different servers make of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from .auth_bypass import IGNORED_CHARACTERS, unambiguous_path

MAX_AMBIGUOUS_BYTES = 4096  # bytes of an ambiguous path whose variants are computed
MAX_DECODINGS = 3  # percent-decodings that a chain of servers may apply
# UTF-8 in more bytes than necessary, also with an invalid second byte: lenient decoders
# accept both (CVE-2000-0884).
_OVERLONG = re.compile(
    rb"[\xc0\xc1][\x00-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}"
)
_PATH_PARAMETERS = re.compile(r";[^/]*")
_PATH_END = re.compile(r"[?#\x00]")
_CONTROLS = re.compile(rf"[\x00-\x1f\x7f{IGNORED_CHARACTERS}]")
_SLASHES = re.compile(r"/+")
_PADDING = re.compile(r"(?<=/)\s+|(?<!\s)\s+(?=/|\Z)")


def path_variants(path: bytes | None) -> tuple[tuple[str | None, ...], bool]:
    """Return the decodings of *path* by different servers, and whether it is unique.

    None is an unknown path: the gateway did not send it, or it is ambiguous and longer
    than `MAX_AMBIGUOUS_BYTES`, because the variants of long paths take too much time.
    """
    if path is None:
        return (None,), False
    decoded = unambiguous_path(path)
    if decoded is not None:
        return (decoded,), True
    if len(path) > MAX_AMBIGUOUS_BYTES:
        return (None,), False
    encoded = [path]
    for _ in range(MAX_DECODINGS):
        encoded.append(unquote_to_bytes(encoded[-1]))
    decodings = dict.fromkeys(text for raw in encoded for text in _decodings(raw))
    texts = dict.fromkeys(
        text for decoding in decodings for text in _variants(decoding)
    )
    variants: dict[str | None, None] = {}
    for text in texts:
        variants |= dict.fromkeys((text, *_normalizations(text)))
    return tuple(variants), False


def fold_path(path: str) -> str:
    """Return *path* without case, and without dots and spaces that end a segment."""
    segments = normalize("NFKC", path).casefold().split("/")
    return "/".join([segment.rstrip(". ") or segment for segment in segments])


def _decodings(raw: bytes) -> Iterator[str]:
    """Yield *raw* as UTF-8, and as what lenient decoders make of invalid UTF-8."""
    try:
        yield raw.decode()
    except UnicodeDecodeError:
        yield raw.decode("utf-8", "replace")
        yield raw.decode("latin-1")
        yield _OVERLONG.sub(_shortest, raw).decode("utf-8", "replace")


def _shortest(overlong: re.Match[bytes]) -> bytes:
    """Return the character of an overlong sequence in the shortest form."""
    lead, *rest = overlong[0]
    number = lead & 0x3F >> len(rest)
    for byte in rest:
        number = number << 6 | byte & 0x3F
    return chr(number).encode("utf-8", "replace")


def _variants(text: str) -> Iterator[str]:
    """Yield *text* as is and in NFKC, cut at the end of a path, without parameters."""
    for whole in (text, normalize("NFKC", text)):
        for path in (whole, _PATH_END.split(whole, maxsplit=1)[0]):
            yield path
            yield _PATH_PARAMETERS.sub("", path)


def _normalizations(path: str) -> Iterator[str]:
    """Yield *path* without dot segments (RFC 3986 §5.2.4), as different servers do it.

    Some take a backslash for a slash, remove control characters and the spaces around a
    segment, or merge slashes; what ".." removes depends on that.
    """
    spellings = dict.fromkeys((path, path.replace("\\", "/")))
    for text in (*spellings,):
        spellings[_PADDING.sub("", _CONTROLS.sub("", text))] = None
    for text in (*spellings,):
        spellings[_SLASHES.sub("/", text)] = None
    for text in spellings:
        resolved = _remove_dot_segments(text)
        yield resolved
        yield _SLASHES.sub("/", resolved)


def _remove_dot_segments(path: str) -> str:
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
