"""Paths and queries as Go and oauth2-proxy write them: rewriting, cleaning, escaping.

A rewritten path is built from the decoded path and escaped again, so an escaped slash
becomes a real one; and the query is decoded and written anew, sorted by its names. Both
is what oauth2-proxy does, and what its users' upstreams get.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote_to_bytes

from ..errors import RequestError
from ..go_regex import Match, Pattern, compile_pattern, replace_all

PATH_SAFE = "$&+,/:;=@"  # beside letters, digits and -._~
REFERENCE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)
BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def escape_path(path: bytes) -> bytes:
    """A decoded path as it stands in a URL."""
    return quote(path, safe=PATH_SAFE).encode()


def clean_path(path: bytes) -> bytes:
    """*path* without empty and dot segments (RFC 3986 §5.2.4); begins with a slash."""
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    if kept and segments[-1] in (b"", b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)


class PathRewrite:
    """A pattern, and the template of what replaces its matches."""

    def __init__(self, pattern: str, template: str) -> None:
        """Raises ValueError for a pattern that is none."""
        self._pattern = compile_pattern(pattern)
        self._template = list(_parse_template(template, self._pattern))

    def matches(self, path: bytes) -> bool:
        """Whether the decoded *path* belongs here."""
        return self._pattern.search(decode_path(path)) is not None

    def rewrite(self, path: bytes, query: bytes) -> bytes:
        """The target for the upstream, from the decoded path and the raw query."""
        text = replace_all(self._pattern, decode_path(path), self._expand) or ""
        head, mark, added = text.partition("?")
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
    """Texts and numbers of groups; unknown groups are empty, as in Go.

    A name is as long as it can be: ``$1x`` is the group "1x".
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
    """A decoded path as text; raises `RequestError` when it is none."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise RequestError("expected a path in UTF-8") from None


def _parse_query(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The parameters; malformed ones are left out."""
    for part in query.split(b"&"):
        if not part or b";" in part or BAD_ESCAPE.search(part):
            continue
        name, _, value = part.partition(b"=")
        yield _decode_parameter(name), _decode_parameter(value)


def _decode_parameter(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _encode_query(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Sorted by name; values of one name stay in their order."""
    return "&".join(
        f"{quote_plus(name)}={quote_plus(value)}"
        for name, value in sorted(pairs, key=lambda pair: pair[0])
    ).encode()
