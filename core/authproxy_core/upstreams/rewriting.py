"""Rewriting, cleaning and escaping of paths and queries, as in oauth2-proxy (Go).

As in oauth2-proxy, a rewritten path is built from the decoded path and escaped again,
so an escaped slash becomes a real one, and the query is decoded and encoded again,
sorted by name. A path that would leave the target by ``..`` is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote_to_bytes

from ..errors import RequestError
from ..go_regex import Match, Pattern, compile_pattern, replace_all

PATH_SAFE = "$&+,/:;=@"  # besides letters, digits and -._~
ESCAPED_PATH_SAFE = PATH_SAFE + "%!'()*"
DOT = re.compile(rb"\.|%2[eE]")
DOT_SEGMENT = re.compile(rb"(?<=/)(?:\.|%2[eE]){1,2}(?=/|\Z)")
REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)
# Tomcat ignores ";…" in a segment, Windows takes a backslash for a slash.
PARENT_SEGMENT = re.compile(r"(?:^|[/\\])\.\.(?:;[^/\\]*)?(?:[/\\]|$)")
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def escape_path(path: bytes) -> bytes:
    """Return a decoded path percent-encoded for a URL."""
    return quote(path, safe=PATH_SAFE).encode()


def clean_path(path: bytes) -> bytes:
    """Return *path* without dot segments (RFC 3986 §5.2.4) and empty segments.

    ``..`` removes the segment before it, also an empty one.
    """
    kept: list[bytes] = []
    segments = path.removeprefix(b"/").split(b"/")
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    clean = [segment for segment in kept if segment]
    if clean and segments[-1] in (b"", b".", b".."):
        clean.append(b"")
    return b"/" + b"/".join(clean)


def decode_dots(path: bytes) -> bytes:
    """Return the escaped *path* with the dot segments decoded."""
    return DOT_SEGMENT.sub(lambda found: b"." * len(DOT.findall(found[0])), path)


def requote_path(path: bytes) -> bytes:
    """Return the escaped *path* with all characters escaped that URLs can't contain."""
    return quote(path, safe=ESCAPED_PATH_SAFE).encode()


class PathRewrite:
    """A pattern, and the template that replaces its matches.

    Raises `ValueError` for an invalid pattern.
    """

    def __init__(self, pattern: str, template: str) -> None:
        self._pattern = compile_pattern(pattern)
        self._template = list(_parse_template(template, self._pattern))

    def matches(self, path: bytes) -> bool:
        """Return whether the decoded *path* matches the pattern."""
        return self._pattern.search(decode_path(path)) is not None

    def rewrite(self, path: bytes, query: bytes) -> bytes:
        """Return the request target from the decoded *path* and the raw *query*.

        Raises `RequestError` for a rewritten path with a ``..`` segment.
        """
        text = replace_all(self._pattern, decode_path(path), self._expand) or ""
        head, mark, added = text.partition("?")
        if PARENT_SEGMENT.search(head):
            raise RequestError("the rewritten path has a .. segment")
        pairs = list(_parse_query(query))
        if mark:
            pairs += _parse_query(added.encode())
        path = escape_path(head.encode())
        if path[:1] != b"/":
            path = b"/" + path
        return path + (b"?" + _encode_query(pairs) if pairs else b"")

    def _expand(self, match: Match) -> str:
        return "".join(
            part if isinstance(part, str) else match.group(part) or ""
            for part in self._template
        )


def _parse_template(text: str, pattern: Pattern) -> Iterator[str | int]:
    """Yield literals and group numbers; unknown groups are empty, as in Go.

    A group name extends as far as possible: ``$1x`` is the group "1x".
    """
    end = 0
    for found in REFERENCE.finditer(text):
        yield text[end : found.start()]
        end = found.end()
        name = found[1] or found[2]
        if name is None:
            yield "$"
            continue
        number = int(name) if name.isdigit() else pattern.groupindex.get(name, -1)
        if 0 <= number <= pattern.groups:
            yield number
    yield text[end:]


def decode_path(path: bytes) -> str:
    """Return a decoded path as text; raises `RequestError` if it is not UTF-8."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise RequestError("expected a path in UTF-8") from None


def _parse_query(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield names and values of the parameters; malformed ones are skipped."""
    for part in query.split(b"&"):
        if not part or b";" in part or BAD_ESCAPE.search(part):
            continue
        name, _, value = part.partition(b"=")
        yield _decode_parameter(name), _decode_parameter(value)


def _decode_parameter(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _encode_query(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return the query sorted by name; values of one name keep their order."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}"
        for name, value in sorted(pairs, key=lambda pair: pair[0])
    ).encode()
