"""Header mapping: what an upstream or a gateway is told about the user.

Rules are compiled once. A claim that the session lacks still gives its header, empty,
so that a gateway which copies headers overwrites what the client sent. Names that fold
to a protected one in CGI, WSGI or PHP (``_``, ``.`` for ``-``) are stripped as well.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter

from ..encoding import header_text
from ..messages import Header, Headers
from ..session import Session
from ..settings.root import ClaimSource, HeaderRule, Secret
from .claims import claim_list

# RFC 9110 §7.6.1: fields that concern one connection only.
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
MAX_CACHED_SESSIONS = 1024  # whose headers are remembered
FOLDED = bytes.maketrans(b"_.", b"--")


def folded(name: bytes) -> bytes:
    """How a lower-case header name arrives where ``-``, ``_`` and ``.`` are one."""
    return name.translate(FOLDED)


def claim_values(session: Session, claim: str) -> tuple[str, ...]:
    """The values of a claim of the session; empty texts are none."""
    if claim in TEXT_CLAIMS:
        text: str = getattr(session, claim)
        return (text,) if text else ()
    if claim == "groups":
        # A comma would end a group for whoever splits the joined list.
        return tuple(group.replace(",", "%2C") for group in session.groups)
    if claim in ("created_at", "expires_on"):
        moment = session.created_at if claim == "created_at" else session.expires_at
        return (_go_time(moment),) if moment else ()
    return tuple(value for value in claim_list(session.claims.get(claim)) if value)


def _go_time(moment: float) -> str:
    """A moment as Go prints a time in UTC, to whole seconds."""
    return datetime.fromtimestamp(int(moment), UTC).strftime(
        "%Y-%m-%d %H:%M:%S +0000 UTC"
    )


def extra_claims(rules: Iterable[HeaderRule]) -> tuple[str, ...]:
    """The claims that rules ask for and that a session does not have by itself."""
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
    """The headers that a list of rules gives for a session.

    With *named* they begin with GAP-Auth, the name of the session's user.
    """

    def __init__(self, rules: Sequence[HeaderRule], *, named: bool = False) -> None:
        self._named = named
        self._rules: list[tuple[bytes, tuple[ClaimSource | Secret, ...]]] = [
            (rule.name.lower().encode(), rule.values) for rule in rules
        ]
        self._values = [(name, _value_of(sources)) for name, sources in self._rules]
        self._sets_cookies = any(name == b"set-cookie" for name, _ in self._rules)
        stripping = [rule for rule in rules if not rule.preserve_request_value]
        self._known: dict[int, tuple[Session | None, Headers]] = {}
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
        """One field per rule, its values joined by commas; empty when there is none.

        Cookies can't be joined (RFC 6265 §3): each value is a field of its own.
        What it is for a session is remembered, and the same object is given again: each
        session comes with many requests.
        """
        known = self._known.get(id(session))
        if known is not None and known[0] is session:
            return known[1]
        if len(self._known) >= MAX_CACHED_SESSIONS:
            self._known.clear()
        made = self._made(session)
        self._known[id(session)] = (session, made)
        return made

    def _made(self, session: Session | None) -> Headers:
        fields = self._joined(session)
        if self._named and session is not None:
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
        return (*(one for one in fields if one[0] != b"set-cookie"), *cookies)

    def _joined(self, session: Session | None) -> Headers:
        return tuple([(name, value(session)) for name, value in self._values])


def _value_of(
    sources: tuple[ClaimSource | Secret, ...],
) -> Callable[[Session | None], bytes]:
    """What gives the value of a rule's field for a session."""
    source = sources[0] if len(sources) == 1 else None
    if (
        isinstance(source, ClaimSource)
        and source.claim in TEXT_CLAIMS
        and source.basic_auth_password is None
    ):
        return _text_of(source.claim, source.prefix)
    return lambda session: b",".join(
        [text for one in sources for text in _render(one, session)]
    )


def _text_of(claim: str, prefix: str) -> Callable[[Session | None], bytes]:
    """The same for the usual rule: one claim that is a text."""
    attribute = attrgetter(claim)

    def value(session: Session | None) -> bytes:
        text: str = attribute(session) if session is not None else ""
        return header_text(prefix + text) if text else b""

    return value


def connection_options(headers: Iterable[Header]) -> set[bytes]:
    """What the Connection fields name (RFC 9110 §7.6.1), lower-case."""
    return {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
