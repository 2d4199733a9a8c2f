"""Cookies: parse Cookie fields, write Set-Cookie fields, split long values.

Browsers store about 4 kB per cookie, so a long value is split over ``NAME_0``,
``NAME_1`` … and joined in numeric order. The split, the order of the attributes and the
limit are oauth2-proxy's, so that each can read the other's parts. Unlike oauth2-proxy,
authproxy clears the parts that a longer (or shorter) earlier value left, and matches the
cookie domain on label boundaries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from ..encoding import TOKEN_BYTES, is_token
from ..messages import Header, Headers
from ..settings.root import CookieSettings

Cookies: TypeAlias = Sequence[tuple[bytes, bytes]]
# Which twins (cookies of the same name with another Domain or Path) a response expires:
# none, the host-only one, or all.
Twins: TypeAlias = Literal["none", "host", "all"]

LOGIN_SUFFIX = b"_csrf"  # of the names of login cookies
MAX_COOKIES = 1000  # per request; browsers store about 180 per domain
MAX_COOKIE_BYTES = 4000  # of a whole Set-Cookie value
MAX_NAME_BYTES = 256
MAX_PART_SUFFIX_BYTES = 8  # of the name of a part: "_" and its number
MAX_CLEARED_PARTS = 64  # per response; the maximum of session_cookie_max_parts
MAX_CANDIDATES = 8  # values of one name that are tried per request
MAX_TWIN_DELETIONS = 16  # Set-Cookie fields per response that expire twins

# RFC 6265 §4.1.1: printable ASCII without space, quote, comma, semicolon, backslash.
COOKIE_OCTETS = bytes(range(0x21, 0x7F)).translate(None, b'",;\\')


class Browser(Struct, frozen=True):
    """The browser that cookies are written for: its host, and the names it sent.

    ``twins`` are those that a response may expire. It does so if the browser sent
    several cookies of one name, and with ``expires_twins``, as at a login.
    """

    host: str
    present: tuple[bytes, ...] = ()
    twins: Twins = "none"
    expires_twins: bool = False

    @property
    def twins_to_expire(self) -> Twins:
        """The twins that a response expires."""
        if self.expires_twins or len(set(self.present)) < len(self.present):
            return self.twins
        return "none"


def read_cookies(headers: Iterable[Header]) -> list[tuple[bytes, bytes]]:
    """Return the name-value pairs of all Cookie fields in order (RFC 6265 §4.2).

    Skips a pair without "=", with a name that is not a token, or with an invalid value.
    The space after a semicolon may be missing. Quotes are part of the value, and nothing
    is unescaped. After `MAX_COOKIES` pairs, skipped ones included, the others are ignored.
    """
    count = 0
    pairs: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name == b"cookie" and count < MAX_COOKIES:
            count += _read_field(value, pairs, MAX_COOKIES - count)
    return pairs


def first_cookie_value(headers: Iterable[Header], prefix: bytes) -> bytes | None:
    """Return the unchecked value of the first cookie ``NAME=``, which is *prefix*.

    It is for a lookup among known values: two searches instead of parsing all cookies.
    None does not mean that there is no such cookie.
    """
    for name, field in headers:
        if name == b"cookie":
            at = field.find(prefix)
            if at < 0:
                continue
            if at and field[at - 1 : at] != b";" and field[at - 2 : at] != b"; ":
                return None
            start = at + len(prefix)
            end = field.find(b";", start)
            return field[start:] if end < 0 else field[start:end]
    return None


def cookie_name_count(headers: Iterable[Header], name: bytes) -> int:
    """Return how often *name* occurs in the Cookie fields, in names and values.

    If it occurs once, no other cookie is a part of it or has its name.
    """
    start = name[: MAX_NAME_BYTES - MAX_PART_SUFFIX_BYTES]
    return sum([field.count(start) for other, field in headers if other == b"cookie"])


def _read_field(field: bytes, pairs: list[tuple[bytes, bytes]], limit: int) -> int:
    """Append at most *limit* pairs of *field* to *pairs*; return their number."""
    # Finding the semicolons one by one is faster than split(), which walks byte by byte.
    unambiguous = _is_unambiguous(field)
    start, size, count = 0, len(field), 0
    while start < size and count < limit:
        count += 1
        end = field.find(b";", start)
        if end < 0:
            end = size
        name, equals, value = field[start:end].partition(b"=")
        if (
            equals
            and name
            and not name.translate(None, TOKEN_BYTES)
            and (unambiguous or _is_value(value))
        ):
            pairs.append((name, value))
        start = end + 2 if field[end + 1 : end + 2] == b" " else end + 1
    return count


def _is_unambiguous(field: bytes) -> bool:
    """Return whether all parsers read the cookie values of *field* alike.

    Six searches take a quarter of the time of a check of each byte. The other control
    characters are illegal in any field (RFC 9110 §5.5), and the decoders of session
    cookies reject them.
    """
    return (
        field.isascii()
        and field.find(b'"') < 0
        and field.find(b"\\") < 0
        and field.find(b",") < 0
        and field.find(b"\0") < 0
        and field.find(b"\r") < 0
        and field.find(b"\n") < 0
    )


def _is_value(value: bytes) -> bool:
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = value[1:-1]
    return not value.translate(None, COOKIE_OCTETS)


def join_cookie_parts(cookies: Cookies, name: bytes, max_parts: int) -> bytes | None:
    """Return the value of *name*, or of its parts in numeric order; None without any.

    A whole cookie takes precedence over parts, and the first of several cookies with one
    name over the others. More than *max_parts* parts are ignored, because authproxy does
    not write them.
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


def is_cookie_or_part(present: bytes, name: bytes) -> bool:
    """Return whether *present* is the cookie *name* or one of its parts."""
    if not present.startswith(name):
        return False
    suffix = present[len(name) :]
    return not suffix or (suffix[:1] == b"_" and suffix[1:].isdigit())


def login_cookie_name(name: bytes) -> bytes:
    """Return the name of the login cookie that *name* is or is a part of, else b""."""
    if not name.endswith(LOGIN_SUFFIX):
        name, _, number = name.rpartition(b"_")
        if not number.isdigit():
            return b""
    return name if name.endswith(LOGIN_SUFFIX) else b""


def is_session_or_login_cookie(present: bytes, name: bytes) -> bool:
    """Return whether *present* is the session cookie *name*, a part, or a login cookie."""
    if not present.startswith(name):  # the usual case
        return False
    login = login_cookie_name(present)
    return is_cookie_or_part(present, name) or login.startswith(name + b"_")


def candidate_values(cookies: Cookies, name: bytes, max_parts: int) -> list[bytes]:
    """Return the values that the cookies called *name*, or its parts, may have.

    A browser sends several cookies of one name if they differ in Domain or Path, and
    does not tell them apart (RFC 6265 §5.4). Parts are joined by their position among
    the parts of the same number. Of more than `MAX_CANDIDATES` values, the first and
    the last ones are returned.
    """
    found: dict[bytes, list[bytes]] = {}
    for present, value in cookies:
        found.setdefault(present, []).append(value)
    values = dict.fromkeys(found.get(name, ()))
    parts: list[list[bytes]] = []
    while len(parts) < max_parts:
        same_number = found.get(_part_name(name, b"%d" % len(parts)))
        if same_number is None:
            break
        parts.append(same_number)
    values.update(dict.fromkeys(_join_twins(parts)))
    candidates = list(values)
    half = MAX_CANDIDATES // 2
    if len(candidates) > MAX_CANDIDATES:
        return candidates[:half] + candidates[-half:]
    return candidates


def count_values(present: Iterable[bytes], name: bytes) -> int:
    """Return how many values the *present* names of cookies and parts stand for."""
    counts = Counter(present)
    return counts.pop(name, 0) + max(counts.values(), default=0)


def _join_twins(parts: Sequence[Sequence[bytes]]) -> Iterator[bytes]:
    """Yield the joined values of twins, whose numbers of parts may differ."""
    if not parts:
        return
    count = max(map(len, parts))
    half = MAX_CANDIDATES // 2
    positions = range(count)
    common = 0  # leading parts that every twin has
    while common < len(parts) and len(parts[common]) == count:
        common += 1
    for position in dict.fromkeys((*positions[:half], *positions[-half:])):
        yield b"".join(part[min(position, len(part) - 1)] for part in parts)
        if common < len(parts):
            yield b"".join(part[position] for part in parts[:common])


def _part_name(name: bytes, number: bytes) -> bytes:
    suffix = b"_" + number
    return name[: MAX_NAME_BYTES - len(suffix)] + suffix


class CookieWriter:
    """Writes and clears the cookie of one name; *samesite* overrides the settings."""

    def __init__(
        self, name: str, settings: CookieSettings, samesite: str | None = None
    ) -> None:
        if not is_token(name.encode()):
            raise ValueError(f"cookie name: got {name!r}, expected a token")
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
        twins: Twins = "none",
    ) -> Headers:
        """Return the Set-Cookie fields for *value*, in parts if one exceeds the limit.

        *host* is the host of the request. *max_age* is in seconds; below 1, the cookie
        lasts until the browser exits. *present* are the names of the cookies in the
        request: those of an earlier value that are not written again are cleared, and
        the *twins* of all of them are expired.
        """
        attributes = self._attributes(self._domain(host), int(max_age))
        written = self._split(value, attributes)
        names = {name for name, _ in written}
        known = self._matching(present)
        surplus = [name for name in known if name not in names]
        cookies = [name + b"=" + part + attributes for name, part in written]
        return _set_cookie_fields(
            self._twin_deletions(known, host, twins)
            + cookies
            + self._deletions(surplus, host)
        )

    def clear(
        self, *, host: str, present: Iterable[bytes], twins: Twins = "none"
    ) -> Headers:
        """Return the Set-Cookie fields that delete the cookie and its *present* parts.

        The *twins* of the present ones are expired too.
        """
        known = self._matching(present)
        names = [self._name, *(name for name in known if name != self._name)]
        return _set_cookie_fields(
            self._twin_deletions(known, host, twins) + self._deletions(names, host)
        )

    def parts_needed(self, value: bytes, host: str, max_age: float) -> int:
        """Return the number of cookies that `set` would write."""
        attributes = self._attributes(self._domain(host), int(max_age))
        return len(self._split(value, attributes))

    def _split(self, value: bytes, attributes: bytes) -> list[tuple[bytes, bytes]]:
        if not value or value.translate(None, COOKIE_OCTETS):
            raise ValueError("expected a value of cookie octets (RFC 6265 §4.1.1)")
        if len(self._name) + 1 + len(value) + len(attributes) <= MAX_COOKIE_BYTES:
            return [(self._name, value)]
        parts: list[tuple[bytes, bytes]] = []
        while value:
            name = _part_name(self._name, b"%d" % len(parts))
            size = MAX_COOKIE_BYTES - len(name) - 1 - len(attributes)
            if size <= 0:
                raise ValueError("cookie attributes too long: no space for the value")
            parts.append((name, value[:size]))
            value = value[size:]
        return parts

    def _matching(self, present: Iterable[bytes]) -> list[bytes]:
        """Return those of *present* that are the cookie or parts of it, by number."""
        names = {name for name in present if self._is_cookie_or_part(name)}
        by_number = sorted(names, key=lambda name: (len(name), name))
        return by_number[: MAX_CLEARED_PARTS + 1]

    def _is_cookie_or_part(self, name: bytes) -> bool:
        number = name.rpartition(b"_")[2]
        return name == self._name or (
            number.isdigit() and name == _part_name(self._name, number)
        )

    def _deletions(self, names: list[bytes], host: str) -> list[bytes]:
        attributes = self._attributes(self._domain(host), 0, deletion=True)
        return [name + b"=" + attributes for name in names]

    def _twin_deletions(
        self, names: Sequence[bytes], host: str, twins: Twins
    ) -> list[bytes]:
        """Return the deletions of the twins of *names*, which never delete *names*.

        They come before the other fields: a browser may take the Domain of a public
        suffix for the host-only cookie (RFC 6265 §5.3).
        """
        if twins == "none" or not names:
            return []
        written = (self._path, self._domain(host).lower())
        others = [(self._path, "")]
        if twins == "all":
            domains = ("", *_domains_of(host))
            paths = dict.fromkeys((self._path, b"; Path=/"))
            others = [(path, domain) for path in paths for domain in domains]
        deletions = [
            name + b"=" + self._attributes(domain, 0, deletion=True, path=path)
            for path, domain in others
            if (path, domain) != written
            for name in names
        ]
        return deletions[:MAX_TWIN_DELETIONS]

    def _attributes(
        self,
        domain: str,
        max_age: int,
        *,
        deletion: bool = False,
        path: bytes | None = None,
    ) -> bytes:
        return (
            (self._path if path is None else path)
            + (b"; Domain=" + domain.encode() if domain else b"")
            + (b"; Max-Age=%d" % max_age if max_age > 0 or deletion else b"")
            + self._flags
        )

    def _domain(self, host: str) -> str:
        """Return the longest configured domain that *host* is in, "" for host-only."""
        name = _without_port(host).lower()
        for domain in self._domains:
            if name == domain.lower() or name.endswith("." + domain.lower()):
                return domain
        return ""


def _domains_of(host: str) -> list[str]:
    """Return the values of Domain that a browser may accept from *host*.

    None for an address or a name of one label.
    """
    labels = _without_port(host).lower().split(".")
    if labels[-1].isdigit() or "[" in labels[0]:
        return []
    return [".".join(labels[start:]) for start in range(len(labels) - 1)]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _set_cookie_fields(values: list[bytes]) -> Headers:
    return tuple((b"set-cookie", value) for value in values)
