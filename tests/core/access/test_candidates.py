"""Indexes of rules and patterns: the same results as trying each of them in turn."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authproxy_core.access.candidates import HostIndex, TextIndex, members
from authproxy_core.access.path_variants import fold_path, path_variants
from authproxy_core.access.rules import RuleTable
from authproxy_core.go_regex import compile_pattern, literal_prefix
from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings

HOSTS = ("a.example", "b.a.example", "*.example", "*.a.example", "c", "[::1]")
SEGMENTS = st.sampled_from(
    ["a", "B", "\u017fk", "K", "a.", "b ", "Ab", "\u0131", "é", "x%2fy", ".."]
)
PATHS = st.lists(SEGMENTS, max_size=3).map(lambda parts: "/" + "/".join(parts))
PATTERNS = st.sampled_from(
    [
        "/a", "^/a/", "/a$", "/ab?", "/a*b", "/(a|B)/x", "/a|/b", "(?i)/a", "/[|(]a", r"/a\.",
        r"\A/K", "/k", "/s", r"/\Qa|(\E", ".*b$", "/é", "^^/a", "/a{0,1}", "(/a)?/b", r"/a\b",
    ]
)  # fmt: skip
RULES = st.builds(
    lambda paths, patterns, hosts, methods, policy: AccessRule(
        paths=tuple(paths),
        patterns=tuple(patterns),
        when=Condition(hosts=tuple(hosts), methods=tuple(methods)),
        policy=policy,
    ),
    st.lists(st.tuples(PATHS, st.sampled_from(["", "/"])).map("".join), max_size=2),
    st.lists(PATTERNS, max_size=1),
    st.lists(st.sampled_from(HOSTS), max_size=2),
    st.lists(st.sampled_from(["GET", "POST"]), max_size=1),
    st.sampled_from(["login", "public", "deny"]),
)


def linear(
    table: RuleTable, host: str | None, method: bytes | None, path: bytes | None
) -> tuple[set[str], bool]:
    """Return the names of the rules that count, and whether that is certain."""
    variants, certain = path_variants(path)
    names = set()
    for variant in variants:
        for rule, match in table.trace(host, method, variant):
            if match.matches is not False:
                names.add(rule.name if rule else "default")
                certain = certain and match.matches is True
    for folded in {fold_path(variant) for variant in variants if variant is not None}:
        for rule in table.rules:
            match = rule.match_folded(host, method, folded)
            if match.matches is not False and not rule.is_public:
                names.add(rule.name)
            if match.matches:
                break
    return names, certain


@settings(max_examples=150, deadline=None)
@given(
    rules=st.lists(RULES, max_size=6),
    host=st.sampled_from([None, "a.example", "B.a.EXAMPLE.:8080", "x.example", "C", "[::1]:1"]),
    method=st.sampled_from([None, b"GET", b"HEAD", b"get", b"POST"]),
    path=st.none() | PATHS,
)  # fmt: skip
def test_rule_table_any_rules_evaluates_as_each_rule_in_turn(
    rules: list[AccessRule], host: str | None, method: bytes | None, path: str | None
) -> None:
    table = RuleTable(RuleSettings(rules=tuple(rules)))
    raw = None if path is None else path.encode()
    result = table.evaluate(host, method, raw)
    names, certain = linear(table, host, method, raw)
    by_name = {rule.name: rule for rule in table.rules}
    assert {name for name, _ in result.requirements} == names & by_name.keys()
    assert set(result.denied_by) == {
        name
        for name in names & by_name.keys()
        if by_name[name].settings.policy == "deny"
    }
    public = all(name in by_name and by_name[name].is_public for name in names)
    assert (result.policy == "public") == (certain and public)


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("^/public/", "/public/"),
        (r"\A/a\.b-c", "/a.b-c"),
        ("^/api/(a|b)/", "/api/"),
        ("^^/a", "/a"),
        ("^/ab*", "/a"),
        (r"^/a\.?", "/a"),
        ("^/ab{0}", "/a"),
        ("^*/a", ""),
        ("/a", ""),
        ("^/a|/b", ""),
        (r"^/a\Q(\E|/b", ""),
        ("^/a[(]|/b)", ""),
        (r"^/a\)|/b", ""),
        ("(?i)^/a", ""),
        ("^", ""),
        ("^/é", "/"),
    ],
)
def test_literal_prefix_of_pattern(pattern: str, literal: str) -> None:
    assert literal_prefix(pattern) == literal


@settings(max_examples=250, deadline=None)
@given(
    pattern=st.lists(
        st.sampled_from(
            ["^", "/", "a", "b", "|", "(", ")", "(?:", "*", "?", "{0}", "[", "]", r"\.", r"\Q",
             r"\E", ".", "é", "(?i)", "$", r"\A", r"\(", r"\|"]
        ),
        max_size=8,
    ).map("".join),
    text=st.text("/ab.(|é\nA", max_size=6),
)  # fmt: skip
def test_literal_prefix_every_match_starts_with_it(pattern: str, text: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except ValueError:
        return
    if compiled.search(text):
        assert text.startswith(literal_prefix(pattern))
    found = compiled.search(text)
    if found and found.start() == 0:
        assert text.startswith(literal_prefix(pattern, anchored=True))


def test_index_of_thousand_rules_finds_few_candidates() -> None:
    """Neither hosts nor paths are tried one by one."""
    numbers = range(1000)
    hosts = HostIndex([f"h{number}.example"] for number in numbers)
    paths: TextIndex[str] = TextIndex()
    for number in numbers:
        paths.add_prefix(f"/app-{number}/", number)
    assert list(members(hosts.find("h7.example:443"))) == [7]
    assert list(members(paths.find("/app-999/x"))) == [999]
    assert not paths.find("/app-1")
