"""Identity headers: the session's claims for an upstream or a gateway.

Rules are compiled once. A missing claim still yields its header, empty, so that a
gateway that copies headers overwrites the client's value. Names that CGI, WSGI or PHP
fold to a protected one (``_`` or ``.`` for ``-``) are stripped as well.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter

from ..bounded_cache import BoundedCache
from ..encoding import header_text
from ..messages import Header, Headers
from ..session import Session
from ..settings.root import ClaimSource, HeaderRule, Secret
from .claims import claim_list

# RFC 9110 §7.6.1: fields for one connection only.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
BUILT_IN_CLAIMS = frozenset(
    {
        "access_token",
        "created_at",
        "email",
        "expires_on",
        "groups",
        "id_token",
        "preferred_username",
        "refresh_token",
        "user",
    }
)
TEXT_CLAIMS = BUILT_IN_CLAIMS - {"created_at", "expires_on", "groups"}
MAX_CACHED_SESSIONS = 1024  # sessions whose headers are cached
FOLDED = bytes.maketrans(b"_.", b"--")


def folded(name: bytes) -> bytes:
    """Return a lower-case field name as servers fold it: ``_`` and ``.`` to ``-``."""
    return name.translate(FOLDED)


def claim_values(session: Session, claim: str) -> tuple[str, ...]:
    """Return the values of a claim of the session, without empty ones."""
    if claim in TEXT_CLAIMS:
        text: str = getattr(session, claim)
        return (text,) if text else ()
    if claim == "groups":
        # A comma would separate two groups where the joined list is split.
        return tuple(group.replace(",", "%2C") for group in session.groups)
    if claim in ("created_at", "expires_on"):
        moment = session.created_at if claim == "created_at" else session.expires_at
        return (_go_time(moment),) if moment else ()
    return tuple(value for value in claim_list(session.claims.get(claim)) if value)


def _go_time(moment: float) -> str:
    """Format seconds since the epoch as Go prints a UTC time, in whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).strftime(
        "%Y-%m-%d %H:%M:%S +0000 UTC"
    )


CREDENTIAL_FIELDS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})


def extra_claims(rules: Iterable[HeaderRule]) -> tuple[str, ...]:
    """Return the sorted names of the claims in *rules* that are not built in."""
    names = {
        value.claim
        for rule in rules
        for value in rule.values
        if isinstance(value, ClaimSource) and value.claim not in BUILT_IN_CLAIMS
    }
    return tuple(sorted(names))


def _render(source: ClaimSource | Secret, session: Session | None) -> list[bytes]:
    if isinstance(source, Secret):
        return [source.value]
    if session is None:
        return []
    values = claim_values(session, source.claim)
    if source.basic_auth_password is not None:
        password = source.basic_auth_password.value
        return [
            b"Basic " + base64.b64encode(value.encode() + b":" + password)
            for value in values
        ]
    return [header_text(source.prefix + value) for value in values]


class HeaderInjector:
    """Builds the headers of a list of rules for a session.

    *named*: the headers are for a response; the first one is GAP-Auth, the name of the
    session's user. In requests, credentials without a value are left out: a server may
    take an empty field for invalid credentials.
    """

    def __init__(self, rules: Sequence[HeaderRule], *, named: bool = False) -> None:
        self._named = named
        self._rules: list[tuple[bytes, tuple[ClaimSource | Secret, ...]]] = [
            (rule.name.lower().encode(), rule.values) for rule in rules
        ]
        self._values = [(name, _value_getter(sources)) for name, sources in self._rules]
        self._sets_cookies = any(name == b"set-cookie" for name, _ in self._rules)
        stripping = [rule for rule in rules if not rule.preserve_request_value]
        self._built: BoundedCache[int, tuple[Session | None, Headers]] = BoundedCache(
            MAX_CACHED_SESSIONS
        )
        self.stripped = frozenset(
            folded(rule.name.lower().encode())
            for rule in stripping
            if not rule.strip_exactly
        )
        self.stripped_exactly = frozenset(
            rule.name.lower().encode() for rule in stripping if rule.strip_exactly
        )
        self.kept = frozenset(
            folded(rule.name.lower().encode())
            for rule in rules
            if rule.preserve_request_value
        )

    def headers(self, session: Session | None) -> Headers:
        """Return one field per rule, its values joined by commas; empty without values.

        Cookies cannot be joined (RFC 6265 §3): each value is a separate field. The same
        object is returned for every request of a session.
        """
        built = self._built.get(id(session))
        if built is not None and built[0] is session:
            return built[1]
        headers = self.build(session)
        self._built.put(id(session), (session, headers))
        return headers

    def build(self, session: Session | None) -> Headers:
        """Return `headers` of a *session* that no later request will have.

        Keeping it would fill the CPU's cache with sessions that nothing reads again.
        """
        fields = tuple([(name, value(session)) for name, value in self._values])
        if not self._named:
            fields = tuple(
                [one for one in fields if one[1] or one[0] not in CREDENTIAL_FIELDS]
            )
        elif session is not None:
            fields = ((b"gap-auth", header_text(session.name)), *fields)
        if not self._sets_cookies:
            return fields
        cookies = [
            (name, text)
            for name, sources in self._rules
            if name == b"set-cookie"
            for source in sources
            for text in _render(source, session)
        ]
        return (*(field for field in fields if field[0] != b"set-cookie"), *cookies)


def _value_getter(
    sources: tuple[ClaimSource | Secret, ...],
) -> Callable[[Session | None], bytes]:
    """Return a function that builds the value of a rule's field for a session."""
    source = sources[0] if len(sources) == 1 else None
    if (
        isinstance(source, ClaimSource)
        and source.claim in TEXT_CLAIMS
        and source.basic_auth_password is None
    ):
        return _text_getter(source.claim, source.prefix)
    return lambda session: b",".join(
        [text for one in sources for text in _render(one, session)]
    )


def _text_getter(claim: str, prefix: str) -> Callable[[Session | None], bytes]:
    """Return a faster function for the usual rule: a single claim that is text."""
    attribute = attrgetter(claim)

    def value(session: Session | None) -> bytes:
        text: str = attribute(session) if session is not None else ""
        return header_text(prefix + text) if text else b""

    return value


def connection_options(headers: Iterable[Header]) -> set[bytes]:
    """Return the lower-case options of the Connection fields (RFC 9110 §7.6.1)."""
    return {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
