"""Access rules: the policy for a host, method and path. The first match wins.

Servers decode an ambiguous path (dots, doubled or encoded separators, …) in different
ways, so it has several variants. A request for it must meet the requirements of every
variant, and none of them makes it public. If a gateway does not send the host, method or
path, each rule that may match counts, up to the first that certainly does.

Some servers ignore the case of a path and the dots and spaces at the end of a segment. A
rule that restricts access matches in these spellings too; a public one never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from ..bounded_cache import BoundedCache
from ..go_regex import compile_pattern, literal_prefix
from ..identity.headers import BUILT_IN_CLAIMS, extra_claims
from ..messages import Headers, Request, first_header
from ..request.original import ORIGINAL_FIELDS, OriginalRequest, TrustedProxies
from ..session import Session
from ..settings.auth_bypass import AuthBypassSettings
from ..settings.root import Settings
from ..settings.rules import AccessRule, Policy, RuleSettings, claims_of, label
from .auth_bypass import AuthBypass, auth_endpoints
from .candidates import HostIndex, TextIndex, members
from .matchers import MatchResult, RequestMatcher, UserMatcher
from .path_variants import fold_path, path_variants

MAX_CACHED_RESULTS = 4096  # hosts, methods and paths, or sets of forwarded headers
MAX_CACHED_BYTES = 512  # bytes of a path or of forwarded headers worth caching
MAX_DESCRIBED_LENGTH = 512  # characters of a URL in the log
# Set by the forward-auth endpoint. No client can send it: ":" is not a token character.
TAIL_FIELD = b":original-uri"
# Apart from the peer, `TrustedProxies.find_original` depends on these fields only.
CACHE_KEY_FIELDS = ORIGINAL_FIELDS | {TAIL_FIELD}


class RuleResult(Struct, frozen=True):
    """The policy for a request and what it requires of the user.

    ``requirements`` are pairs of a rule's name and its user conditions; a user must
    satisfy all of them. ``denied_by`` are the names of the rules that deny the request
    to every user. ``matched`` is False if no rule matches and the default applies.
    ``unknown`` are the parts of the original request that the gateway did not send, if
    a rule depends on them.
    """

    policy: Policy
    requirements: tuple[tuple[str, UserMatcher], ...]
    denied_by: tuple[str, ...]
    matched: bool
    unknown: tuple[str, ...] = ()

    def permits(self, session: Session) -> bool:
        """Return whether the user of *session* is allowed."""
        return self.policy != "deny" and all(
            users.permits(session) for _, users in self.requirements
        )

    def reason(self, session: Session | None = None) -> str:
        """Return the names of the rules that deny access, for the log."""
        unmet = [
            name
            for name, users in self.requirements
            if session is not None and not users.permits(session)
        ]
        text = ", ".join(self.denied_by or unmet)
        if not self.unknown:
            return text
        return f"{text}; the gateway did not send the {', '.join(self.unknown)}"


class RuleMatch(Struct, frozen=True):
    """Whether a rule matches a request: True, False, or None if that is unknown.

    ``mismatch`` is the part of the request that differs if the rule does not match.
    """

    matches: MatchResult
    mismatch: Literal["", "host", "method", "path"] = ""


_MATCH, _UNKNOWN = RuleMatch(True), RuleMatch(None)
_OTHER_HOST = RuleMatch(False, "host")
_OTHER_METHOD = RuleMatch(False, "method")
_OTHER_PATH = RuleMatch(False, "path")


class Rule:
    """A compiled rule."""

    def __init__(self, settings: AccessRule, number: int) -> None:
        self.name = label(settings, number)
        self.settings = settings
        self.users = UserMatcher(settings.when)
        self._requests = RequestMatcher(settings.when)
        self._exact = frozenset(settings.paths) | {
            # Most servers treat /admin like /admin/.
            path.removesuffix("/") or "/"
            for path in settings.paths
        }
        self._prefixes = tuple(path for path in settings.paths if path.endswith("/"))
        self._patterns = [
            compile_pattern(rf"\A(?:{text})") for text in settings.patterns
        ]
        self._any_path = not (settings.paths or settings.patterns)
        self._folded_exact = frozenset(map(fold_path, self._exact))
        self._folded_prefixes = tuple(map(fold_path, self._prefixes))
        self._folded_patterns = [
            compile_pattern(rf"(?i)\A(?:{text})") for text in settings.patterns
        ]

    @property
    def is_public(self) -> bool:
        """Whether the rule allows requests without a login."""
        return self.settings.policy == "public"

    def add_to(self, by_path: TextIndex[str], folded: TextIndex[str], bit: int) -> None:
        """Add the rule as item *bit* for its paths, as written and as `fold_path` does."""
        if self._any_path:
            by_path.add_any(bit)
            folded.add_any(bit)
        for index, exact, prefixes in (
            (by_path, self._exact, self._prefixes),
            (folded, self._folded_exact, self._folded_prefixes),
        ):
            for path in exact:
                index.add_exact(path, bit)
            for path in prefixes:
                index.add_prefix(path, bit)
        for pattern in self.settings.patterns:
            literal = literal_prefix(pattern, anchored=True)
            by_path.add_prefix(literal, bit)
            # Of the characters that re2 takes for an ASCII letter in another case, a
            # folded path has only the lower-case letter.
            folded.add_prefix(literal.lower(), bit)

    def match(
        self, host: str | None, method: bytes | None, path: str | None
    ) -> RuleMatch:
        """Match a request. What is None was not sent; *path* is decoded."""
        return self._match(host, method, self._matches_path(path))

    def match_folded(
        self, host: str | None, method: bytes | None, path: str
    ) -> RuleMatch:
        """Match a request whose server ignores what `fold_path` removed from *path*."""
        by_path = (
            self._any_path
            or path in self._folded_exact
            or path.startswith(self._folded_prefixes)
            or any(pattern.search(path) for pattern in self._folded_patterns)
        )
        return self._match(host, method, by_path)

    def _match(
        self, host: str | None, method: bytes | None, by_path: MatchResult
    ) -> RuleMatch:
        by_host = self._requests.matches_host(host)
        if by_host is False:
            return _OTHER_HOST
        by_method = self._requests.matches_method(method)
        if by_method is False:
            return _OTHER_METHOD
        if by_path is False:
            return _OTHER_PATH
        return _MATCH if by_host and by_method and by_path else _UNKNOWN

    def _matches_path(self, path: str | None) -> MatchResult:
        if self._any_path:
            return True
        if path is None:
            return None
        return (
            path in self._exact
            or path.startswith(self._prefixes)
            or any(pattern.search(path) for pattern in self._patterns)
        )


class RuleTable:
    """All rules, in their order, and indexes of them by host and path."""

    def __init__(self, settings: RuleSettings) -> None:
        self.rules = tuple(
            Rule(rule, number) for number, rule in enumerate(settings.rules, 1)
        )
        self.default = settings.default
        self._by_host = HostIndex(rule.when.hosts for rule in settings.rules)
        self._by_path: TextIndex[str] = TextIndex()
        self._by_folded_path: TextIndex[str] = TextIndex()
        for number, rule in enumerate(self.rules):
            rule.add_to(self._by_path, self._by_folded_path, number)
        self._results: BoundedCache[
            tuple[str | None, bytes | None, bytes | None], RuleResult
        ] = BoundedCache(MAX_CACHED_RESULTS)

    def evaluate(
        self, host: str | None, method: bytes | None, path: bytes | None
    ) -> RuleResult:
        """Return the result for a request.

        *host* is ``host[:port]``, *path* is still escaped. What is None was not sent by
        the gateway.
        """
        key = (host, method, path)
        result = self._results.get(key)
        if result is None:
            result = self._evaluate(host, method, path)
            if path is None or len(path) <= MAX_CACHED_BYTES:
                self._results.put(key, result)
        return result

    def _evaluate(
        self, host: str | None, method: bytes | None, path: bytes | None
    ) -> RuleResult:
        variants, certain = path_variants(path)
        matched: dict[str, Rule | None] = {}
        for variant in variants:
            for rule, match in self._matching(host, method, variant):
                matched[rule.name if rule else "default"] = rule
                certain = certain and match.matches is True
        for rule in self.rules_of_other_spellings(host, method, variants):
            matched[rule.name] = rule
        policies = {
            name: rule.settings.policy if rule else self.default
            for name, rule in matched.items()
        }
        denied_by = tuple(name for name, policy in policies.items() if policy == "deny")
        policy: Policy = "deny" if denied_by else "login"
        if certain and set(policies.values()) == {"public"}:
            policy = "public"
        requirements = tuple(
            (rule.name, rule.users) for rule in matched.values() if rule
        )
        parts = {"host": host, "method": method, "path": path}
        unknown = tuple(name for name, value in parts.items() if value is None)
        return RuleResult(
            policy,
            requirements,
            denied_by,
            bool(requirements),
            () if certain else unknown,
        )

    def rules_of_other_spellings(
        self,
        host: str | None,
        method: bytes | None,
        variants: Iterable[str | None],
    ) -> Iterator[Rule]:
        """Yield the restrictive rules for servers that see other spellings as equal.

        *variants* are those of `path_variants`. A rule may come more than once.
        """
        by_host = self._by_host.find(host)
        for path in {fold_path(path) for path in variants if path is not None}:
            for number in members(by_host & self._by_folded_path.find(path)):
                rule = self.rules[number]
                match = rule.match_folded(host, method, path)
                if match.matches is not False and not rule.is_public:
                    yield rule
                if match.matches:
                    break

    def _matching(
        self, host: str | None, method: bytes | None, path: str | None
    ) -> Iterator[tuple[Rule | None, RuleMatch]]:
        """Yield what `trace` yields, without the rules that do not match."""
        candidates = self._by_host.find(host) & self._by_path.find(path)
        for number in members(candidates):
            rule = self.rules[number]
            match = rule.match(host, method, path)
            if match.matches is not False:
                yield rule, match
            if match.matches:
                return
        yield None, _MATCH

    def trace(
        self, host: str | None, method: bytes | None, path: str | None
    ) -> Iterator[tuple[Rule | None, RuleMatch]]:
        """Yield each rule with its match, up to the first that certainly matches.

        If there is no such rule, the default comes last, as None. *path* is decoded.
        """
        for rule in self.rules:
            match = rule.match(host, method, path)
            yield rule, match
            if match.matches:
                return
        yield None, _MATCH


class AccessRules:
    """Evaluates the rules for proxied requests and for auth checks of gateways."""

    def __init__(
        self, settings: RuleSettings, trust: TrustedProxies, prefix: str
    ) -> None:
        self.table = RuleTable(settings)
        self._trust = trust
        self._auth_endpoints = tuple(map(str.encode, auth_endpoints(prefix)))
        self._last: tuple[Request, RuleResult] | None = None
        self._checks: BoundedCache[tuple[str, Headers], RuleResult] = BoundedCache(
            MAX_CACHED_RESULTS
        )

    def evaluate(self, request: Request) -> RuleResult:
        """Return the result for *request*; at an auth endpoint, for the original request.

        Raises `RequestError`.
        """
        last = self._last
        if last is not None and last[0] is request:
            return last[1]
        path = request.target.partition(b"?")[0]
        result = (
            self._evaluate_check(request)
            if path in self._auth_endpoints
            else self._evaluate_proxied(request)
        )
        self._last = (request, result)
        return result

    def describe(self, request: Request) -> str:
        """Return method, host and path that the rules match for *request*, for the log."""
        path = request.target.partition(b"?")[0]
        if path in self._auth_endpoints:
            tail = first_header(request.headers, TAIL_FIELD) or b""
            original = self._trust.find_original(request, tail).original
            method, path = original.method, path_of(original.uri)
        else:
            original, method = self._trust.original(request), request.method
        text = f"{method.decode('latin-1')} {original.host}{path.decode('latin-1')}"
        return text[:MAX_DESCRIBED_LENGTH]

    def _evaluate_proxied(self, request: Request) -> RuleResult:
        """Evaluate the rules for the method and path that the upstream will receive."""
        host = self._trust.original(request).host
        return self.table.evaluate(host, request.method, path_of(request.target))

    def _evaluate_check(self, request: Request) -> RuleResult:
        """Evaluate the rules for an auth check; the same headers come repeatedly."""
        fields = tuple(
            [field for field in request.headers if field[0] in CACHE_KEY_FIELDS]
        )
        key = (request.peer, fields)
        result = self._checks.get(key)
        if result is None:
            result = self._evaluate_original(request)
            if sum(len(value) for _, value in fields) <= MAX_CACHED_BYTES:
                self._checks.put(key, result)
        return result

    def _evaluate_original(self, request: Request) -> RuleResult:
        tail = first_header(request.headers, TAIL_FIELD) or b""
        target = self._trust.find_original(request, tail)
        original = target.original
        return self.table.evaluate(
            original.host if target.has_host else None,
            original.method if target.has_method else None,
            path_of(original.uri) if target.has_uri else None,
        )


class RulesThenBypass(AuthBypass):
    """Access rules first; the bypass options decide only where no rule matches."""

    def __init__(
        self,
        settings: AuthBypassSettings,
        trust: TrustedProxies,
        prefix: str,
        rules: AccessRules,
    ) -> None:
        super().__init__(settings, trust, prefix)
        self._rules_first = rules

    def applies(self, request: Request, original: OriginalRequest) -> bool:
        """Return whether *request* needs no login."""
        result = self._rules_first.evaluate(request)
        if result.matched or result.policy == "deny":
            return result.policy == "public"
        return super().applies(request, original)


def path_of(uri: bytes) -> bytes:
    """Return the path of a *uri* in origin-form."""
    return uri.partition(b"?")[0]


def build_access_control(
    settings: Settings, trust: TrustedProxies
) -> tuple[AuthBypass, AccessRules | None]:
    """Build the checks that precede the session's; None if there are no rules."""
    if not settings.access.is_active:
        return AuthBypass(settings.auth_bypass, trust, settings.proxy_prefix), None
    rules = AccessRules(settings.access, trust, settings.proxy_prefix)
    bypass = RulesThenBypass(settings.auth_bypass, trust, settings.proxy_prefix, rules)
    return bypass, rules


def required_claims(settings: Settings) -> tuple[str, ...]:
    """Return the sorted names of the claims that headers, rules and upstreams use.

    Built-in claims, which every session has, are left out.
    """
    headers = (*settings.inject_request_headers, *settings.inject_response_headers)
    conditions = (
        *(rule.when for rule in settings.access.rules),
        *(upstream.condition for upstream in settings.upstreams),
    )
    claims = claims_of(conditions) - BUILT_IN_CLAIMS
    return tuple(sorted(claims.union(extra_claims(headers))))
