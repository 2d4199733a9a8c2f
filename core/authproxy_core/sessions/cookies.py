"""Cookies: read the Cookie lines, write Set-Cookie lines, split what is too long.

Browsers keep some 4 kB per cookie, so a long value is split over ``NAME_0``,
``NAME_1`` … and joined again in numeric order. The rules of splitting, the order of the
attributes and the limit are oauth2-proxy's, so that both can read each other's parts.
Other than there, what an earlier and longer (or shorter) value left behind is cleared,
and the domain is chosen on a border between labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from ..encoding import TOKEN_BYTES, is_token
from ..messages import Header, Headers
from ..settings.root import CookieSettings

Cookies: TypeAlias = Sequence[tuple[bytes, bytes]]

MAX_COOKIE_BYTES = 4000  # bytes of a whole Set-Cookie value
MAX_NAME_BYTES = 256  # bytes
MAX_CLEARED_PARTS = 64  # parts cleared in one answer; as many as one session may have

# RFC 6265 §4.1.1: printable ASCII without blank, quote, comma, semicolon, backslash.
COOKIE_OCTETS = bytes(range(0x21, 0x7F)).translate(None, b'",;\\')


def read_cookies(headers: Iterable[Header]) -> list[tuple[bytes, bytes]]:
    """The name-value pairs of all Cookie lines, in their order (RFC 6265 §4.2).

    A pair without "=", with a name that is no token, or with a value that no cookie can
    have is skipped. The blank behind a semicolon may be missing. Quotes belong to the
    value, and nothing is unescaped.
    """
    pairs: list[tuple[bytes, bytes]] = []
    for field, line in headers:
        if field == b"cookie":
            _read_line(line, pairs)
    return pairs


def _read_line(line: bytes, pairs: list[tuple[bytes, bytes]]) -> None:
    # Looking for the semicolons one by one beats split(), which walks byte by byte.
    plain = _is_plain(line)
    start, size = 0, len(line)
    while start < size:
        end = line.find(b";", start)
        if end < 0:
            end = size
        name, equals, value = line[start:end].partition(b"=")
        if (
            equals
            and name
            and not name.translate(None, TOKEN_BYTES)
            and (plain or _is_value(value))
        ):
            pairs.append((name, value))
        start = end + 2 if line[end + 1 : end + 2] == b" " else end + 1


def _is_plain(line: bytes) -> bool:
    """Whether *line* has none of the bytes that would make its values doubtful.

    Six searches take a quarter of the time of looking at each byte. The other control
    characters are illegal in any field (RFC 9110 §5.5), and no decoder of our values
    lets them through.
    """
    return (
        line.isascii()
        and line.find(b'"') < 0
        and line.find(b"\\") < 0
        and line.find(b",") < 0
        and line.find(b"\0") < 0
        and line.find(b"\r") < 0
        and line.find(b"\n") < 0
    )


def _is_value(value: bytes) -> bool:
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = value[1:-1]
    return not value.translate(None, COOKIE_OCTETS)


def join_cookie_parts(cookies: Cookies, name: bytes, max_parts: int) -> bytes | None:
    """The value of *name*, or of its parts in numeric order; None if there is none.

    The whole cookie wins over parts, the first of several with one name over the rest.
    More than *max_parts* parts are none: they would not have been written.
    """
    for present, value in cookies:
        if present == name:
            return value
    found = dict(reversed(cookies))
    parts = []
    for index in range(max_parts + 1):
        part = found.get(_part_name(name, b"%d" % index))
        if part is None:
            break
        parts.append(part)
    return b"".join(parts) if 0 < len(parts) <= max_parts else None


def _part_name(name: bytes, number: bytes) -> bytes:
    suffix = b"_" + number
    return name[: MAX_NAME_BYTES - len(suffix)] + suffix


class CookieWriter:
    """Writes and clears the cookie of one name; *samesite* overrides the settings'."""

    def __init__(
        self, name: str, settings: CookieSettings, samesite: str | None = None
    ) -> None:
        if not is_token(name.encode()):
            raise ValueError(f"expected the name of a cookie, got {name!r}")
        samesite = settings.samesite if samesite is None else samesite
        self._name = name.encode()
        self._path = f"; Path={settings.path}".encode() if settings.path else b""
        self._flags = (
            b"; HttpOnly" * settings.httponly
            + b"; Secure" * settings.secure
            + (f"; SameSite={samesite.capitalize()}".encode() if samesite else b"")
        )
        domains = (domain.removeprefix(".") for domain in settings.domains)
        self._domains = tuple(sorted(domains, key=len, reverse=True))

    def set(
        self,
        value: bytes,
        *,
        host: str,
        max_age: float,
        present: Iterable[bytes] = (),
    ) -> Headers:
        """Set the cookie, in parts when its whole line is above 4000 bytes.

        *host* is the request's host, *max_age* the lifetime in seconds (below 1: until
        the browser ends), *present* the names of the cookies that the browser sent:
        those of an earlier value that are not written now are cleared.
        """
        attributes = self._attributes(host, int(max_age))
        written = self._split(value, attributes)
        names = {name for name, _ in written}
        surplus = [name for name in self._ours(present) if name not in names]
        lines = [name + b"=" + piece + attributes for name, piece in written]
        return _set_cookies(lines + self._deletions(surplus, host))

    def clear(self, *, host: str, present: Iterable[bytes]) -> Headers:
        """Delete the cookie and those of its parts that are among *present*."""
        parts = [name for name in self._ours(present) if name != self._name]
        return _set_cookies(self._deletions([self._name, *parts], host))

    def parts_needed(self, value: bytes, host: str, max_age: float) -> int:
        """How many cookies `set` would write."""
        return len(self._split(value, self._attributes(host, int(max_age))))

    def _split(self, value: bytes, attributes: bytes) -> list[tuple[bytes, bytes]]:
        if not value or value.translate(None, COOKIE_OCTETS):
            raise ValueError("expected a value of cookie octets (RFC 6265 §4.1.1)")
        if len(self._name) + 1 + len(value) + len(attributes) <= MAX_COOKIE_BYTES:
            return [(self._name, value)]
        parts: list[tuple[bytes, bytes]] = []
        while value:
            name = _part_name(self._name, b"%d" % len(parts))
            room = MAX_COOKIE_BYTES - len(name) - 1 - len(attributes)
            if room <= 0:
                raise ValueError("the cookie's attributes leave no room for its value")
            parts.append((name, value[:room]))
            value = value[room:]
        return parts

    def _ours(self, present: Iterable[bytes]) -> list[bytes]:
        """Those of *present* that are the cookie or parts of it, by number."""
        ours = {name for name in present if self._is_ours(name)}
        return sorted(ours, key=lambda name: (len(name), name))[: MAX_CLEARED_PARTS + 1]

    def _is_ours(self, name: bytes) -> bool:
        number = name.rpartition(b"_")[2]
        return name == self._name or (
            number.isdigit() and name == _part_name(self._name, number)
        )

    def _deletions(self, names: list[bytes], host: str) -> list[bytes]:
        attributes = self._attributes(host, 0, deletion=True)
        return [name + b"=" + attributes for name in names]

    def _attributes(self, host: str, max_age: int, *, deletion: bool = False) -> bytes:
        domain = self._domain(host)
        return (
            self._path
            + (b"; Domain=" + domain.encode() if domain else b"")
            + (b"; Max-Age=%d" % max_age if max_age > 0 or deletion else b"")
            + self._flags
        )

    def _domain(self, host: str) -> str:
        """The longest configured domain that *host* belongs to, "" for host-only."""
        name = _without_port(host).lower()
        for domain in self._domains:
            if name == domain.lower() or name.endswith("." + domain.lower()):
                return domain
        return ""


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _set_cookies(lines: list[bytes]) -> Headers:
    return tuple((b"set-cookie", line) for line in lines)
