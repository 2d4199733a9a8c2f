"""Access rules: host, path and method, to what they demand. The first that fits counts.

A path that programs read in different ways (dots, doubled or encoded separators, …) has
several readings. A request for it must satisfy what each of them demands, and none of them
makes it public. The same holds for what a gateway did not tell: a rule that may be meant
is satisfied as well as the next one that surely is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from unicodedata import normalize
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from ..go_regex import compile_pattern
from ..identity.headers import BUILT_IN_CLAIMS, extra_claims
from ..messages import Headers, Request, first_header
from ..request.original import ORIGINAL_FIELDS, OriginalRequest, TrustedProxies
from ..session import Session
from ..settings.auth_bypass import AuthBypassSettings
from ..settings.root import Settings
from ..settings.rules import AccessRule, Policy, RuleSettings, claims_of, label
from .auth_bypass import AuthBypass, unambiguous_path
from .matchers import MatchResult, RequestMatcher, UserMatcher

MAX_CACHED = 4096  # places whose ruling is remembered
LONGEST_CACHED = 512  # bytes of a path
DECODINGS = 3  # that some chain of programs may do
# A field that no client can send: the tail of the forward-auth endpoint.
TAIL_FIELD = b":original-uri"
# All that `Trust.named` makes host, method and URI of, for a peer.
CACHE_KEY_FIELDS = ORIGINAL_FIELDS | {TAIL_FIELD}
PARAMETERS = re.compile(r";[^/]*")
CUTS = re.compile(r"[?#\x00]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
SLASHES = re.compile(r"[/\\]+")


class RuleResult(Struct, frozen=True):
    """What the rules say of a place: for nobody, for all, or for whom.

    ``demands`` are names of rules, each with what it says of people, and ``denials`` are
    the names of those by which it is for nobody. ``matched`` is False when no rule is
    about it.
    """

    policy: Policy
    requirements: tuple[tuple[str, UserMatcher], ...]
    denied_by: tuple[str, ...]
    matched: bool

    def permits(self, session: Session) -> bool:
        """Whether the user may go there."""
        return self.policy != "deny" and all(
            people.permits(session) for _, people in self.requirements
        )

    def reason(self, session: Session | None = None) -> str:
        """For logs: the rules by which somebody is refused."""
        unmet = [
            name
            for name, people in self.requirements
            if session is not None and not people.permits(session)
        ]
        return ", ".join(self.denied_by or unmet)


class Rule:
    """A compiled rule."""

    def __init__(self, settings: AccessRule, number: int) -> None:
        self.name = label(settings, number)
        self.settings = settings
        self.people = UserMatcher(settings.when)
        self._requests = RequestMatcher(settings.when)
        self._exact = frozenset(settings.paths) | {
            # Most programs answer for /admin as for /admin/.
            path.removesuffix("/") or "/"
            for path in settings.paths
        }
        self._below = tuple(path for path in settings.paths if path.endswith("/"))
        self._patterns = [
            compile_pattern(rf"\A(?:{text})") for text in settings.patterns
        ]
        self._any_path = not (settings.paths or settings.patterns)

    def matches(self, host: str, method: bytes | None, path: str | None) -> MatchResult:
        """Whether it is about a request; None when that can't be told."""
        if not self._requests.at_host(host):
            return False
        by_method, by_path = self._requests.by_method(method), self._by_path(path)
        if by_method is False or by_path is False:
            return False
        return True if by_method and by_path else None

    def mismatch(self, host: str, method: bytes, path: str) -> str:
        """Why it is not about a request: host, method, path, or "" (it is)."""
        if not self._requests.at_host(host):
            return "host"
        if not self._requests.by_method(method):
            return "method"
        return "" if self._by_path(path) else "path"

    def _by_path(self, path: str | None) -> MatchResult:
        if self._any_path:
            return True
        if path is None:
            return None
        return (
            path in self._exact
            or path.startswith(self._below)
            or any(pattern.search(path) for pattern in self._patterns)
        )


class RuleTable:
    """All rules, in their order."""

    def __init__(self, settings: RuleSettings) -> None:
        self.rules = tuple(
            Rule(rule, number) for number, rule in enumerate(settings.rules, 1)
        )
        self.default = settings.default
        self._known: dict[tuple[str, bytes | None, bytes | None], RuleResult] = {}

    def evaluate(
        self, host: str, method: bytes | None, path: bytes | None
    ) -> RuleResult:
        """What is said of a request; None is what nobody has told."""
        key = (host, method, path)
        found = self._known.get(key)
        if found is None:
            found = self._judged(host, method, path)
            if path is None or len(path) <= LONGEST_CACHED:
                if len(self._known) >= MAX_CACHED:
                    self._known.clear()
                self._known[key] = found
        return found

    def _judged(
        self, host: str, method: bytes | None, path: bytes | None
    ) -> RuleResult:
        seen, sure = path_variants(path)
        hits: dict[str, Rule | None] = {}
        for reading in seen:
            for rule, certain in self.matching_rules(host, method, reading):
                hits[rule.name if rule else "default"] = rule
                sure = sure and certain
        policies = {
            name: rule.settings.policy if rule else self.default
            for name, rule in hits.items()
        }
        denials = tuple(name for name, said in policies.items() if said == "deny")
        policy: Policy = "deny" if denials else "login"
        if sure and set(policies.values()) == {"public"}:
            policy = "public"
        demands = tuple((rule.name, rule.people) for rule in hits.values() if rule)
        return RuleResult(policy, demands, denials, bool(demands))

    def matching_rules(
        self, host: str, method: bytes | None, path: str | None
    ) -> Iterator[tuple[Rule | None, bool]]:
        """The rules that may count, and whether they surely do; None: the default."""
        for rule in self.rules:
            fits = rule.matches(host, method, path)
            if fits is not False:
                yield rule, fits is True
            if fits:
                return
        yield None, True


def path_variants(path: bytes | None) -> tuple[tuple[str | None, ...], bool]:
    """How a path may be read by who gets it; and whether that is all but sure.

    None is a path that nobody told.
    """
    if path is None:
        return (None,), False
    clear = unambiguous_path(path)
    if clear is not None and normalize("NFKC", clear) == clear:
        return (clear,), True
    texts = [path]
    for _ in range(DECODINGS):
        texts.append(unquote_to_bytes(texts[-1]))
    found: dict[str | None, None] = {}
    for raw in texts:
        text = raw.decode("utf-8", "replace")
        for one in _variants(text):
            found |= dict.fromkeys((one, _resolved(one)))
    return tuple(found), False


def _variants(text: str) -> Iterator[str]:
    """*text*, cut where a decoded path may end, without parameters, made plain."""
    for whole in (text, normalize("NFKC", text)):
        for one in (whole, CUTS.split(whole, maxsplit=1)[0]):
            yield one
            yield PARAMETERS.sub("", one)


def _resolved(path: str) -> str:
    """*path* with one kind of slash, and without dots (RFC 3986 §5.2.4).

    Without control characters, too, and blanks around a segment: some drop them.
    """
    kept: list[str] = []
    segments = [CONTROLS.sub("", one).strip() for one in SLASHES.split(path)]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    end = "/" if segments[-1] in ("", ".", "..") and kept else ""
    return "/" + "/".join(kept) + end


class AccessRules:
    """The table, asked about requests: those that we carry, and those of a gateway."""

    def __init__(
        self, settings: RuleSettings, trust: TrustedProxies, prefix: str
    ) -> None:
        self.table = RuleTable(settings)
        self._trust = trust
        self._asking = (f"{prefix}/auth".encode(), f"{prefix}/forward_auth".encode())
        self._last: tuple[Request, RuleResult] | None = None
        self._told: dict[tuple[str, Headers], RuleResult] = {}

    def evaluate(self, request: Request) -> RuleResult:
        """What is said of *request*, or of what a gateway asks about by it.

        Raises `RequestError`.
        """
        last = self._last
        if last is not None and last[0] is request:
            return last[1]
        path = request.target.partition(b"?")[0]
        found = self._asked(request) if path in self._asking else self._sent(request)
        self._last = (request, found)
        return found

    def _sent(self, request: Request) -> RuleResult:
        """About the request itself: what else a gateway says is not what we carry."""
        host = self._trust.original(request).host
        return self.table.evaluate(host, request.method, path_of(request.target))

    def _asked(self, request: Request) -> RuleResult:
        """About what a gateway tells; the same is told again and again."""
        fields = tuple(
            [field for field in request.headers if field[0] in CACHE_KEY_FIELDS]
        )
        key = (request.peer, fields)
        found = self._told.get(key)
        if found is None:
            found = self._told_by(request)
            if sum(len(value) for _, value in fields) <= LONGEST_CACHED:
                if len(self._told) >= MAX_CACHED:
                    self._told.clear()
                self._told[key] = found
        return found

    def _told_by(self, request: Request) -> RuleResult:
        tail = first_header(request.headers, TAIL_FIELD) or b""
        original, method, uri = self._trust.named(request, tail)
        return self.table.evaluate(
            original.host,
            original.method if method else None,
            path_of(original.uri) if uri else None,
        )


class RulesThenBypass(AuthBypass):
    """A gate where access rules come first; what none is about passes as without them."""

    def __init__(
        self, settings: AuthBypassSettings, trust: TrustedProxies, rules: AccessRules
    ) -> None:
        super().__init__(settings, trust)
        self._access = rules

    def applies(self, request: Request, original: OriginalRequest) -> bool:
        """Whether *request* needs no login."""
        ruling = self._access.evaluate(request)
        if ruling.matched or ruling.policy == "deny":
            return ruling.policy == "public"
        return super().applies(request, original)


def path_of(uri: bytes) -> bytes:
    """The path of a URI in origin-form."""
    return uri.partition(b"?")[0]


def build_access_control(
    settings: Settings, trust: TrustedProxies
) -> tuple[AuthBypass, AccessRules | None]:
    """What judges requests before sessions are looked at; None: there are no rules."""
    if not settings.access.any:
        return AuthBypass(settings.auth_bypass, trust), None
    rules = AccessRules(settings.access, trust, settings.proxy_prefix)
    return RulesThenBypass(settings.auth_bypass, trust, rules), rules


def required_claims(settings: Settings) -> tuple[str, ...]:
    """The names of the claims that headers, rules and upstreams ask for."""
    headers = (*settings.inject_request_headers, *settings.inject_response_headers)
    conditions = (
        *(rule.when for rule in settings.access.rules),
        *(upstream.condition for upstream in settings.upstreams),
    )
    asked = claims_of(conditions) - BUILT_IN_CLAIMS
    return tuple(sorted(asked.union(extra_claims(headers))))
