"""Access rules and conditions of upstreams."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import Forward, Respond, SettingsError
from authproxy_core.access.matchers import ConditionMatcher, UserMatcher
from authproxy_core.access.path_variants import MAX_AMBIGUOUS_BYTES, path_variants
from authproxy_core.access.rules import (
    MAX_CACHED_RESULTS,
    AccessRules,
    RuleResult,
    RuleTable,
)
from authproxy_core.request.original import TrustedProxies
from authproxy_core.session import Session
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.root import UpstreamSettings
from authproxy_core.settings.rules import (
    AccessRule,
    Condition,
    RuleSettings,
    condition_problems,
    rule_problems,
    rule_warnings,
)
from support.harness import Harness, header, settings

ALICE = Session(
    user="u1",
    email="Alice@Example.com",
    groups=("admins", "staff", "role:editor"),
    claims={"department": ["it", "hr"], "level": 3},
)
BOB = Session(user="u2", email="bob@sub.example.com", groups=("staff",))
INVALID_EMAIL = Session(user="u3", email="broken")


def rule(*paths: str, **values: Any) -> AccessRule:
    """A rule; *values* other than name, patterns and policy are its condition's."""
    own = {
        name: values.pop(name)
        for name in ("name", "patterns", "policy")
        if name in values
    }
    return AccessRule(paths=paths, when=Condition(**values), **own)


def table(*rules: AccessRule, **values: Any) -> RuleTable:
    return RuleTable(RuleSettings(rules=rules, **values))


@pytest.mark.parametrize(
    ("condition", "alice", "bob"),
    [
        ({}, True, True),
        ({"groups": ("admins",)}, True, False),
        ({"groups": ("x", "staff")}, True, True),
        ({"roles": ("editor",)}, True, False),
        ({"roles": ("admins",)}, False, False),
        ({"emails": ("alice@example.com",)}, True, False),
        ({"emails": ("BOB@sub.example.com",)}, False, True),
        ({"email_domains": ("example.com",)}, True, False),
        ({"email_domains": ("*.example.com",)}, True, True),
        ({"claims": (("department", ("hr", "x")),)}, True, False),
        ({"claims": (("level", ("3",)),)}, True, False),
        ({"claims": (("email", ("bob@sub.example.com",)),)}, False, True),
        ({"groups": ("admins",), "emails": ("bob@sub.example.com",)}, False, False),
        (
            {"groups": ("admins",), "emails": ("bob@sub.example.com",), "any_of": True},
            True,
            True,
        ),
        ({"any_of": True}, True, True),
    ],
)
def test_user_matcher_permits_users_that_meet_criteria(
    condition: dict[str, Any], alice: bool, bob: bool
) -> None:
    people = UserMatcher(Condition(**condition))
    assert (people.permits(ALICE), people.permits(BOB)) == (alice, bob)
    assert bool(people.missing(ALICE)) is not alice
    assert people.permits(INVALID_EMAIL) is not Condition(**condition).restricts_users


@pytest.mark.parametrize(
    ("hosts", "host", "fits"),
    [
        ((), "any.example", True),
        (("app.example",), "app.example", True),
        (("app.example",), "APP.example.:8443", True),
        (("App.Example.",), "app.example", True),
        (("app.example",), "xapp.example", False),
        (("*.example",), "a.b.example", True),
        (("*.example",), "example", False),
        (("a.example", "*.b.example"), "x.b.example:1", True),
    ],
)
def test_fh19_condition_host_matches_in_any_spelling(
    hosts: tuple[str, ...], host: str, fits: bool
) -> None:
    """CVE-2026-48794: the spelling of a host does not matter."""
    assert ConditionMatcher(Condition(hosts=hosts)).matches(host, b"GET", None) is fits


def test_condition_matcher_methods_and_missing_session() -> None:
    reading = ConditionMatcher(Condition(methods=("GET",)))
    assert reading.matches("a", b"GET", None)
    assert reading.matches("a", b"HEAD", None)
    assert not reading.matches("a", b"POST", None)
    assert not ConditionMatcher(Condition(methods=("POST",))).matches(
        "a", b"HEAD", None
    )
    assert not ConditionMatcher(Condition(groups=("a",))).matches("a", b"GET", None)
    assert ConditionMatcher(Condition(groups=("admins",))).matches("a", b"GET", ALICE)


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        (b"/admin/", True),
        (b"/admin/x", True),
        (b"/admin", True),
        (b"/%61dmin/x", True),
        (b"/administrator", False),
        (b"/exact", True),
        (b"/exact/", False),
        (b"/api/v1/x", True),
        (b"/x/api/v1/", False),
        ("/caf\N{LATIN SMALL LETTER E WITH ACUTE}/".encode(), True),
        (b"/caf%C3%A9/x", True),
        (b"/", False),
    ],
)
def test_rule_table_path_matches(path: bytes, fits: bool) -> None:
    rules = table(
        rule("/admin/", "/exact", "/caf\N{LATIN SMALL LETTER E WITH ACUTE}/",
             patterns=("/api/v[0-9]+/|/nowhere",), policy="deny"),
    )  # fmt: skip
    found = rules.evaluate("a", b"GET", path)
    assert (found.policy == "deny") is fits
    assert found.matched is fits


@pytest.mark.parametrize(
    ("host", "method", "path", "expected"),
    [
        ("x", b"GET", "/a/", (False, "host")),
        ("h.example", b"POST", "/a/", (False, "method")),
        ("h.example", b"GET", "/b", (False, "path")),
        ("h.example", b"GET", "/a/b", (True, "")),
        ("h.example", None, "/a/", (None, "")),
        ("h.example", b"get", "/a/", (None, "")),
        ("h.example", b"GET", None, (None, "")),
        ("h.example", None, "/b", (False, "path")),
        ("h.example", b"POST", None, (False, "method")),
    ],
)
def test_rule_match_reports_result_and_mismatch(
    host: str, method: bytes | None, path: str | None, expected: tuple[bool | None, str]
) -> None:
    [one] = table(rule("/a/", hosts=("h.example",), methods=("GET",))).rules
    match = one.match(host, method, path)
    assert (match.matches, match.mismatch) == expected


def test_rule_table_trace_ends_at_first_certain_match() -> None:
    rules = table(rule("/a/", methods=("GET",)), rule("/b/"), rule("/a/"), rule())
    traced = [
        (found.name if found else None, match.matches)
        for found, match in rules.trace("h.example", None, "/a/x")
    ]
    assert traced == [("rule 1", None), ("rule 2", False), ("rule 3", True)]


def test_rule_table_trace_without_certain_match_ends_with_default() -> None:
    traced = list(table(rule("/a/"), rule("/b/")).trace("h.example", b"GET", "/c"))
    assert [(found, match.matches) for found, match in traced][2:] == [(None, True)]


def test_user_matcher_missing_lists_failed_criteria() -> None:
    people = UserMatcher(
        Condition(groups=("admins",), claims=(("department", ("x",)),))
    )
    assert people.missing(ALICE) == ("claims.department",)
    assert people.missing(BOB) == ("groups", "claims.department")


def test_rule_table_first_match_wins() -> None:
    rules = table(
        rule("/admin/health", policy="public"),
        rule("/admin/", groups=("admins",), name="admin area"),
        rule("/", hosts=("open.example",), policy="public"),
        rule("/", methods=("DELETE",), policy="deny"),
    )
    assert rules.evaluate("a", b"GET", b"/admin/health").policy == "public"
    admin = rules.evaluate("open.example", b"GET", b"/admin/")
    assert (admin.permits(ALICE), admin.permits(BOB)) == (True, False)
    assert admin.reason(BOB) == "rule 2 (admin area)"
    assert rules.evaluate("open.example", b"DELETE", b"/x").policy == "public"
    assert not rules.evaluate("a", b"DELETE", b"/x").permits(ALICE)
    default = rules.evaluate("a", b"GET", b"/x")
    assert (default.policy, default.matched, default.reason(BOB)) == (
        "login",
        False,
        "",
    )
    closed = table(default="deny").evaluate("a", b"GET", b"/")
    assert (closed.policy, closed.reason()) == ("deny", "default")


@pytest.mark.parametrize(
    "path",
    [
        b"/public/../admin/x",
        b"/public/%2e%2e/admin/x",
        b"/public/..%2fadmin/x",
        b"/public/..%5cadmin/x",
        b"/public/..\\admin/x",
        b"/public/%252e%252e/admin/x",
        b"/public/x/..;/..;a=b/admin/x",
        b"/public//../admin/x",
        b"//admin/x",
        b"/./admin/x",
        b"/admin;x/x",
        b"/%2fadmin/x",
        b"/public/.. /admin/x",
        b"/public/\xff/../../admin/x",
        b"/public/..%00/../admin/x",
        b"/admin%2fx",
        b"/admin%252fx",
        b"/admin/.",
        b"/public/%2e%2e%2fadmin",
        b"/%EF%BD%81dmin/x",  # SK43
        b"/%20admin/x",
        b"/admin%20/x",
        b"/admin./x",
        b"/%E2%80%8Badmin/x",
        b"/%CD%8Fadmin/x",
        b"/ad%C2%ADmin/x",
    ],
)
def test_sk_ambiguous_path_must_meet_rules_of_every_variant(path: bytes) -> None:
    """No spelling of a protected path is public or has weaker requirements."""
    rules = table(
        rule("/admin/", groups=("admins",)),
        rule("/public/", policy="public"),
        rule("/"),
    )
    found = rules.evaluate("a", b"GET", path)
    assert found.policy == "login"
    assert (found.permits(ALICE), found.permits(BOB)) == (True, False)
    denied = table(rule("/admin/", policy="deny"), rule("/", policy="public"))
    assert denied.evaluate("a", b"GET", path).policy == "deny"


@pytest.mark.parametrize(
    "segment", ["\\", "%5c", "", "%20", "%01", "%00", "%09", "\\\\", "%2f", ";", "%3b"]
)
def test_sk_segment_that_some_servers_drop_keeps_the_path_protected(
    segment: str,
) -> None:
    """Servers disagree on whether ".." removes *segment* or the one before it."""
    rules = table(rule("/admin/", policy="deny"), rule("/", policy="public"))
    for path in (f"/x/../admin/{segment}/../secret", f"/x/../{segment}/admin/secret"):
        assert rules.evaluate("a", b"GET", path.encode()).policy == "deny", path


def test_rule_table_long_ambiguous_path_must_meet_all_rules() -> None:
    rules = table(rule("/x/", groups=("staff",)), rule("/y/", policy="deny"))
    path = b"/x//".ljust(MAX_AMBIGUOUS_BYTES, b"a")
    assert rules.evaluate("a", b"GET", path).policy == "login"
    assert rules.evaluate("a", b"GET", path + b"a").policy == "deny"
    plain = path.replace(b"//", b"/a") + b"a"
    assert rules.evaluate("a", b"GET", plain).policy == "login"


def test_rule_table_encoded_slash_requires_login_and_matching_rules() -> None:
    """An encoded slash requires a login, but only the rules of its variants."""
    rules = table(rule("/api/", groups=("staff",)), rule("/public/", policy="public"))
    found = rules.evaluate("a", b"GET", b"/api/projects/group%2Fname")
    assert (found.policy, found.permits(BOB), found.permits(INVALID_EMAIL)) == (
        "login",
        True,
        False,
    )
    assert rules.evaluate("a", b"GET", b"/public/a%2Fb").policy == "login"


@given(st.binary(max_size=40))
def test_path_variants_any_bytes_yield_variants(path: bytes) -> None:
    found, _ = path_variants(b"/" + path)
    assert found
    rules = table(rule("/", patterns=("x+",), groups=("a",)), default="deny")
    assert rules.evaluate("a", b"GET", b"/" + path).policy == "login"


@given(
    st.lists(
        st.sampled_from(["admin", "..", ".", "", "x", "%2e%2e", "admin;a", "%2f", "\\"])
    )
)
def test_path_variants_contain_path_without_dot_segments(segments: list[str]) -> None:
    """A path that dot segments lead to /admin has /admin as a variant."""
    path = "/" + "/".join(segments)
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment not in ("", "."):
            kept.append(segment)
    if kept[:1] == ["admin"]:
        rules = table(rule("/admin/", policy="deny"), rule("/", policy="public"))
        assert rules.evaluate("a", b"GET", path.encode()).policy == "deny"


def test_rule_table_unknown_method_or_path_must_meet_all_possible_rules() -> None:
    """Without path or method, all rules that may match must be satisfied."""
    rules = table(
        rule("/public/", methods=("GET",), policy="public"),
        rule("/admin/", groups=("admins",)),
        rule("/", groups=("staff",)),
    )
    unknown = rules.evaluate("a", b"GET", None)
    assert (unknown.policy, unknown.permits(ALICE), unknown.permits(BOB)) == (
        "login",
        True,
        False,
    )
    method = rules.evaluate("a", None, b"/public/x")
    assert (method.policy, method.permits(BOB), method.permits(INVALID_EMAIL)) == (
        "login",
        True,
        False,
    )
    hosts = table(rule(hosts=("open.example",), policy="public"))
    assert hosts.evaluate("open.example", None, None).policy == "login"
    assert hosts.evaluate(None, None, None).policy == "login"


def test_auth_check_without_host_must_meet_rules_of_every_host() -> None:
    """The Host field is that of the gateway's subrequest, not the client's."""
    harness = harness_with(
        access=RuleSettings(
            rules=(
                rule(hosts=("open.example",), policy="public"),
                rule(hosts=("admin.example.com",), groups=("admins",)),
            )
        )
    )
    uri, method, _ = forwarded_fields("/x")
    for host in (b"app.example.com", b"open.example"):
        fields = (uri, method, (b"host", host))
        answer = harness.get("/oauth2/auth", *fields, peer=GATEWAY)
        assert answer.status == 401, host
    harness.log_in("bob")
    answer = harness.get("/oauth2/auth", uri, method, peer=GATEWAY)
    assert answer.status == 403
    [event] = answer.events
    assert event.detail == (
        "denied by rule 2; the gateway did not send the host; user bob@example.com, "
        "request GET app.example.com/x"
    )
    assert (
        harness.get("/oauth2/auth", *forwarded_fields("/x"), peer=GATEWAY).status == 202
    )
    url = (b"x-original-url", b"https://app.example.com/x")
    assert harness.get("/oauth2/auth", url, method, peer=GATEWAY).status == 202
    url = (b"x-original-url", b"https://admin.example.com/x")
    assert harness.get("/oauth2/auth", url, method, peer=GATEWAY).status == 403


@pytest.mark.parametrize(
    "path",
    [
        b"/ADMIN/x",
        b"/Admin",
        b"/admin./x",
        b"/admin%20/x",
        b"/admin..%20./x",
        b"/admin.",
        b"/%c1%a1dmin/x",
        b"/%e0%81%a1dmin/x",
        b"/%f0%80%81%a1dmin/x",
        b"/public/%c0%ae%c0%ae/admin/x",
        b"/public%c0%afx/..%c1%1c..%c1%1cadmin/x",
        b"/%e0%9f%bf/../admin/x",
        b"/%f0%8d%a0%80/../admin/x",
        b"/caf%e9/x",
        b"/CAF%C3%89/x",
        b"/cafe%CC%81/x",
        b"/v2/KEYS/x",
        b"/\xe2\x84\xaaeys/x",
    ],
)
def test_restrictive_rule_matches_every_spelling(path: bytes) -> None:
    rules = table(
        rule(
            "/admin/", "/caf\xe9/", patterns=("/keys/", "/v[0-9]/keys/"), policy="deny"
        ),
        rule("/public/", policy="public"),
    )
    assert rules.evaluate("a", b"GET", path).policy == "deny"
    groups = table(
        rule(
            "/admin/",
            "/caf\xe9/",
            patterns=("/keys/", "/v[0-9]/keys/"),
            groups=("admins",),
        )
    ).evaluate("a", b"GET", path)
    assert (groups.permits(ALICE), groups.permits(BOB)) == (True, False)


def test_public_rule_matches_no_other_spelling() -> None:
    rules = table(rule("/public/", policy="public"), rule("/x/", policy="deny"))
    for path in (b"/Public/x", b"/PUBLIC/", b"/public./x"):
        found = rules.evaluate("a", b"GET", path)
        assert (found.policy, found.matched) == ("login", False), path
    assert rules.evaluate("a", b"GET", b"/public/X").policy == "public"


def test_restrictive_rule_in_other_spelling_yields_to_earlier_public_rule() -> None:
    rules = table(
        rule("/admin/health", policy="public"),
        rule("/admin/", methods=("GET",), policy="deny"),
    )
    assert rules.evaluate("a", b"GET", b"/admin/health").policy == "public"
    assert rules.evaluate("a", b"GET", b"/admin/HEALTH").policy == "deny"
    assert rules.evaluate("a", b"POST", b"/ADMIN/x").policy == "login"


def test_rule_table_cached_results_bounded() -> None:
    rules = table(rule("/", policy="public"))
    first = rules.evaluate("a", b"GET", b"/0")
    assert rules.evaluate("a", b"GET", b"/0") is first
    long = b"/" + b"x" * 600
    assert rules.evaluate("a", b"GET", long) is not rules.evaluate("a", b"GET", long)
    for number in range(MAX_CACHED_RESULTS + 10):
        rules.evaluate("a", b"GET", b"/%d" % number)
    assert len(rules._results) <= MAX_CACHED_RESULTS


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (rule("/", groups=("a",), policy="public"), "criteria for users"),
        (rule("admin"), "the path 'admin'"),
        (rule("/a%20b"), "the path"),
        (rule("/a//b"), "the path"),
        (rule(patterns=("(",)), "the pattern '('"),
        (rule(patterns=(r"/a\Qb",)), "the pattern"),
        (rule(patterns=("/" * 4096,)), "longer than"),
        (rule(patterns=("",)), "an empty pattern"),
        (rule(hosts=("a:80",)), "the host 'a:80'"),
        (rule(hosts=("*",)), "the host '*'"),
        (rule(hosts=("[::1]:8",)), "the host"),
        (rule(methods=("get",)), "the method 'get'"),
        (rule(methods=("A B",)), "the method"),
        (rule(email_domains=("@x",)), "the domain '@x'"),
        (rule(claims=(("access_token", ("x",)),)), "other than a token"),
        (rule(groups=("",)), "matches no user"),
    ],
)
def test_rule_problems_invalid_rule_reported(bad: AccessRule, text: str) -> None:
    [problem] = rule_problems(RuleSettings(rules=(rule("/"), bad)))
    assert problem.startswith("access_rules: rule 2: ")
    assert text in problem


@pytest.mark.parametrize(
    ("rules", "default", "warned"),
    [
        ((rule(hosts=("a.b",), policy="deny"),), "login", True),
        ((rule(hosts=("a.b",), groups=("x",)), rule("/a/")), "login", True),
        ((rule(hosts=("a.b",), groups=("x",)), rule(patterns=("/a",))), "login", True),
        ((rule(hosts=("a.b",), groups=("x",)), rule(methods=("PUT",))), "login", True),
        ((rule(hosts=("a.b",), groups=("x",)),), "deny", False),
        ((rule(hosts=("a.b",), groups=("x",)), rule("/")), "login", False),
        ((rule(hosts=("a.b",), groups=("x",)), rule()), "login", False),
        ((rule(hosts=("a.b",), policy="public"),), "login", False),
        ((rule("/a/", policy="deny"),), "login", False),
    ],
)
def test_rule_warnings_unlisted_host_skips_restrictive_rules(
    rules: tuple[AccessRule, ...], default: Any, warned: bool
) -> None:
    warnings = list(rule_warnings(RuleSettings(rules=rules, default=default)))
    assert [text[:50] for text in warnings] == [
        "a request with another Host than the listed ones s"
    ] * warned


def test_condition_problems_valid_condition_empty() -> None:
    good = Condition(hosts=("a.b", "*.c.d"), methods=("GET",), email_domains=("*.x.y",))
    assert not list(condition_problems(good))


# -- through `AuthProxy`

GUARDED = RuleSettings(
    rules=(
        rule("/public/", policy="public"),
        rule("/.git/", policy="deny"),
        rule("/admin/", groups=("admins",)),
        rule("/api/", methods=("DELETE",), groups=("admins",)),
        rule("/hr/", claims=(("department", ("hr",)),)),
    )
)
APP = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1/")
GATEWAY = "10.0.0.1"


def harness_with(**changes: Any) -> Harness:
    values = {"access": GUARDED, "upstreams": (APP,), "reverse_proxy": True, **changes}
    return Harness(settings(**values))


def forwarded_fields(uri: str, method: str = "GET") -> tuple[tuple[bytes, bytes], ...]:
    """Forwarded headers of a gateway for an original request."""
    return (
        (b"x-forwarded-uri", uri.encode()),
        (b"x-forwarded-method", method.encode()),
        (b"x-forwarded-host", b"app.example.com"),
    )


def auth_check(
    harness: Harness, uri: str, method: str = "GET", **changes: Any
) -> Respond:
    given = {"peer": GATEWAY, **changes}
    return harness.get("/oauth2/auth", *forwarded_fields(uri, method), **given)


def status(harness: Harness, target: str, **changes: Any) -> int:
    decision = harness.send(target, **changes)
    return 200 if isinstance(decision, Forward) else decision.status  # type: ignore[union-attr]


def test_access_rules_apply_to_auth_checks() -> None:
    harness = harness_with()
    assert auth_check(harness, "/public/x").status == 202
    assert auth_check(harness, "/x").status == 401
    assert auth_check(harness, "/.git/config").status == 403
    harness.log_in("bob")
    for uri, expected in (
        ("/public/x", 202),
        ("/x", 202),
        ("/.git/config", 403),
        ("/admin/x", 403),
        ("/x/../admin/x", 403),
        ("/hr/", 403),
    ):
        assert auth_check(harness, uri).status == expected, uri
    assert auth_check(harness, "/api/x").status == 202
    assert auth_check(harness, "/api/x", "DELETE").status == 403
    harness.log_in("alice")
    assert auth_check(harness, "/admin/x").status == 202
    assert auth_check(harness, "/api/x", "DELETE").status == 202


def test_access_rules_denial_event_names_rule_user_and_url() -> None:
    harness = harness_with()
    harness.log_in("bob")
    response = auth_check(harness, "/admin/x?token=secret")
    [event] = response.events
    assert (event.kind, event.reason, event.detail) == (
        "denied",
        "rule",
        "denied by rule 3; user bob@example.com, request GET app.example.com/admin/x",
    )
    [long] = auth_check(harness, "/admin/" + "x" * 5000).events
    assert len(long.detail) < 700
    [proxied] = harness.get("/admin/y?token=secret").events
    assert proxied.detail.endswith("request GET app.example.com/admin/y")
    tail = harness.get("/oauth2/forward_auth/admin/z?token=secret", peer=GATEWAY)
    assert tail.events[0].detail.endswith("request GET app.example.com/admin/z")
    assert (response.verdict, response.reason, response.user) == (
        "denied",
        "rule",
        "bob@example.com",
    )


def test_public_path_with_session_gets_identity_headers() -> None:
    harness = harness_with()
    assert header(auth_check(harness, "/public/"), b"x-auth-request-email") == b""
    harness.log_in("bob")
    assert (
        header(auth_check(harness, "/public/"), b"x-auth-request-email")
        == b"bob@example.com"
    )


def test_auth_check_without_original_uri_requires_access_everywhere() -> None:
    """Without the original URI, only users with access to every path are allowed."""
    harness = harness_with(access=RuleSettings(rules=GUARDED.rules[2:4]))
    assert harness.get("/oauth2/auth", peer=GATEWAY).status == 401
    harness.log_in("bob")
    assert harness.get("/oauth2/auth", peer=GATEWAY).status == 403
    assert auth_check(harness, "/x", peer="203.0.113.9").status == 403
    harness.log_in("alice")
    assert harness.get("/oauth2/auth", peer=GATEWAY).status == 202


def test_access_rules_cached_checks_bounded() -> None:
    """The cache key is the peer and the forwarded headers; long ones are not cached."""
    rules = AccessRules(
        GUARDED, TrustedProxies(settings(reverse_proxy=True)), "/oauth2"
    )
    harness = harness_with()

    def evaluate(uri: str, peer: str = GATEWAY) -> RuleResult:
        request = harness.request("/oauth2/auth", *forwarded_fields(uri), peer=peer)
        return rules.evaluate(request)

    assert evaluate("/public/").policy == "public"
    assert evaluate("/public/", "203.0.113.9").policy == "deny"  # an untrusted peer
    assert [name for name, _ in evaluate("/admin/").requirements] == ["rule 3"]
    cached = len(rules._checks)
    evaluate("/" + "x" * 600)
    assert len(rules._checks) == cached
    for number in range(MAX_CACHED_RESULTS):
        evaluate(f"/{number}")
    assert len(rules._checks) <= MAX_CACHED_RESULTS


def test_forward_auth_with_uri_in_path_evaluates_rules() -> None:
    harness = harness_with()
    prefix = "/oauth2/forward_auth"
    assert harness.get(f"{prefix}/public/x", peer=GATEWAY).status == 202
    harness.log_in("bob")
    assert harness.get(f"{prefix}/admin/x?a=b", peer=GATEWAY).status == 403
    assert harness.get(f"{prefix}/x?a=b", peer=GATEWAY).status == 202
    harness.log_in("alice")
    assert harness.get(f"{prefix}/admin/x", peer=GATEWAY).status == 202
    page = harness.get(
        "/oauth2/forward_auth",
        *forwarded_fields("/.git/"),
        (b"accept", b"text/html"),
        (b"sec-fetch-mode", b"navigate"),
        peer=GATEWAY,
    )
    assert page.status == 403
    assert b"This page is not available." in page.body


def test_access_rules_apply_to_proxied_requests() -> None:
    harness = harness_with()
    assert status(harness, "/public/x") == 200
    assert status(harness, "/x") == 403  # the sign-in page
    git = harness.get("/.git/config")
    assert git.status == 403
    assert b"This page is not available." in git.body
    harness.log_in("bob")
    assert status(harness, "/x") == 200
    denied = harness.get("/admin/x")
    assert denied.status == 403
    assert b"does not have access" in denied.body
    assert [event.reason for event in denied.events] == ["rule"]
    assert status(harness, "/api/x", method=b"DELETE") == 403
    harness.log_in("alice")
    assert status(harness, "/admin/x") == 200
    assert status(harness, "/admin/x?allowed_groups=nobody") == 403


def test_fh22_unknown_host_gets_default_policy() -> None:
    rules = RuleSettings(rules=(rule(hosts=("a.example",), policy="public"),))
    closed = msgspec.structs.replace(rules, default="deny")
    for settings_of_rules, expected in ((rules, 401), (closed, 403)):
        harness = harness_with(access=settings_of_rules)
        for host in (b"b.example", b"a.example.evil.example", b"xa.example", b"[::1]"):
            named = (*forwarded_fields("/x")[:2], (b"x-forwarded-host", host))
            response = harness.get("/oauth2/auth", *named, jar={}, peer=GATEWAY)
            assert response.status == expected
        named = (*forwarded_fields("/x")[:2], (b"x-forwarded-host", b"a.example"))
        assert harness.get("/oauth2/auth", *named, jar={}, peer=GATEWAY).status == 202


def test_az29_cached_decisions_depend_on_path_method_and_query() -> None:
    """Each check is repeated, so most decisions come from a cache."""
    harness = harness_with()
    harness.log_in("bob")
    for _ in range(4):
        assert auth_check(harness, "/public/x").status == 202
        assert auth_check(harness, "/admin/x").status == 403
        assert auth_check(harness, "/api/x").status == 202
        assert auth_check(harness, "/api/x", "DELETE").status == 403
        for group, expected in (("staff", 202), ("admins", 403)):
            fields = forwarded_fields("/x")
            query = f"/oauth2/auth?allowed_groups={group}"
            assert harness.get(query, *fields, peer=GATEWAY).status == expected


def test_fh_forwarded_uri_ignored_for_rules_of_proxied_request() -> None:
    """CVE-2026-40575: the forwarded request counts, not the gateway's header."""
    harness = harness_with()
    harness.log_in("bob")
    assert status(harness, "/admin/x", peer=GATEWAY) == 403
    decision = harness.send("/admin/x", *forwarded_fields("/public/"), peer=GATEWAY)
    assert isinstance(decision, Respond)
    assert decision.status == 403


def test_az32_access_rules_take_precedence_over_bypass() -> None:
    """A matching rule decides; otherwise the bypass options apply."""
    gate = AuthBypassSettings(skip_auth_regex=("^/",))
    harness = harness_with(auth_bypass=gate)
    assert status(harness, "/x") == 200
    assert auth_check(harness, "/x").status == 202
    assert auth_check(harness, "/admin/x").status == 401
    assert status(harness, "/admin/x") == 403
    closed = harness_with(auth_bypass=gate, access=RuleSettings(default="deny"))
    assert auth_check(closed, "/x").status == 403
    assert status(closed, "/x") == 403


def test_access_rules_apply_to_stale_session() -> None:
    harness = harness_with(cookie={"refresh": 60.0})
    harness.log_in("bob")
    harness.clock.now += 61
    assert auth_check(harness, "/admin/x").status == 403
    assert auth_check(harness, "/x").status == 202


def test_required_claims_of_rules_stored_in_session() -> None:
    """The session stores claims that only a rule requires, without built-in ones."""
    claims = (("department", ("hr",)), ("email", ("x",)))
    upstream = UpstreamSettings(
        id="hr",
        path="/",
        uri="http://127.0.0.1:1/",
        condition=Condition(claims=(("level", ("3",)),)),
    )
    harness = harness_with(
        access=RuleSettings(rules=(rule("/", claims=claims),)), upstreams=(upstream,)
    )
    [provider] = harness.proxy._providers.values()
    assert provider._extra_claims == ("department", "level")


# -- upstreams with conditions


def upstream(name: str, path: str = "/", **when: Any) -> UpstreamSettings:
    return UpstreamSettings(
        id=name, path=path, uri="http://127.0.0.1:1/", condition=Condition(**when)
    )


def test_upstream_first_matching_condition_chosen() -> None:
    """The first upstream whose condition matches; 403 if only the path matches."""
    harness = harness_with(
        access=RuleSettings(),
        upstreams=(
            upstream("admins", groups=("admins",)),
            upstream("writes", methods=("POST",)),
            upstream("staff", groups=("staff",)),
            upstream("deep", "/deep/", groups=("admins",)),
            upstream("exact", "/only/x/", groups=("nobody",)),
        ),
    )
    harness.log_in("bob")

    def chosen(target: str, method: bytes = b"GET") -> str:
        decision = harness.send(target, method=method)
        return (
            decision.upstream.id
            if isinstance(decision, Forward)
            else str(decision.status)
        )  # type: ignore[union-attr]

    assert chosen("/x") == "staff"
    assert chosen("/x", b"POST") == "writes"
    assert chosen("/deep/x") == "staff"
    harness.log_in("alice")
    assert chosen("/x", b"POST") == "admins"
    assert chosen("/deep/x") == "deep"


def test_upstream_without_matching_condition_denied() -> None:
    harness = harness_with(
        access=RuleSettings(), upstreams=(upstream("app", "/app/", groups=("admins",)),)
    )
    harness.log_in("bob")
    page = harness.get("/app/x")
    assert (page.status, page.reason) == (403, "upstream")
    assert harness.get("/elsewhere").status == 404
    assert harness.get("/app").status == 301
    skipped = harness_with(
        access=RuleSettings(rules=(rule("/", policy="public"),)),
        upstreams=(upstream("app", groups=("admins",)),),
    )
    assert status(skipped, "/") == 403


def test_upstreams_of_one_path_require_conditions() -> None:
    with pytest.raises(SettingsError, match="duplicate path '/'"):
        harness_with(upstreams=(upstream("a"), upstream("b")))
    harness_with(upstreams=(upstream("a", groups=("x",)), upstream("b")))
    with pytest.raises(SettingsError, match="upstreams: 'a': got the method 'get'"):
        harness_with(upstreams=(upstream("a", methods=("get",)),))


@pytest.mark.parametrize(
    "path", ["/%EF%BD%81dmin/x", "/public/%EF%BC%8E%EF%BC%8E/admin/x"]
)
def test_rule_table_full_width_letters_match_normalized_path(path: str) -> None:
    rules = table(rule("/admin/", policy="deny"), rule("/", policy="public"))
    assert rules.evaluate("a", b"GET", path.encode()).policy == "deny"


def test_rule_table_lower_case_method_may_match_any_rule() -> None:
    rules = table(rule(methods=("POST",), policy="deny"), rule("/", policy="public"))
    assert rules.evaluate("a", b"post", b"/").policy == "deny"
    assert rules.evaluate("a", b"GET", b"/").policy == "public"


def test_auth_check_method_of_subrequest_is_not_the_original_method() -> None:
    public = RuleSettings(rules=(rule("/x", methods=("GET",), policy="public"),))
    harness = harness_with(access=public)
    assert auth_check(harness, "/x").status == 202
    without_method = [
        field for field in forwarded_fields("/x") if field[0] != b"x-forwarded-method"
    ]
    assert harness.get("/oauth2/auth", *without_method, peer=GATEWAY).status == 401
