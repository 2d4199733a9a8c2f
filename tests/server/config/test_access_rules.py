"""Access rules and conditions of TOML and alpha files."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy_core.settings.rules import AccessRule, Condition
from support.configuration import ACCESS_RULES, BASE, problems, settings


def test_access_rules_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text('access_rules_default = "deny"\n' + ACCESS_RULES)
    access = settings(file=file).core.access
    assert access.default == "deny"
    assert access.rules == (
        AccessRule(name="health", paths=("/healthz",), policy="public"),
        AccessRule(paths=("/.git/", "/.env"), policy="deny"),
        AccessRule(
            name="admin area",
            paths=("/admin/",),
            patterns=("/[a-z]+/admin/",),
            when=Condition(
                hosts=("app.example", "*.app.example"),
                groups=("admins",),
                emails=("boss@example.com",),
                any_of=True,
            ),
        ),
        AccessRule(
            when=Condition(
                methods=("DELETE",),
                roles=("editor",),
                email_domains=("example.com",),
                claims=(("level", ("3", "4")), ("active", ("true",))),
            )
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("paths = '/'", "rule 1: no policy; expected 'login', 'public', 'deny', or users"),
        ("policy = 'open'", "rule 1: got the policy 'open', expected 'login'"),
        ("groups = []", "rule 1: groups is empty"),
        ("groups = [1]", "rule 1: groups: expected a list of strings"),
        ("policy = 1", "rule 1: policy: expected a string"),
        ("any_of = 'x'\npolicy = 'deny'", "rule 1: any_of: expected true or false"),
        ("claims = 'x'", "rule 1: claims: expected claim names with values"),
        ("claims = {a = 1.5}", "rule 1: claims: expected strings, numbers or booleans"),
        ("claims = {a = []}", "rule 1: claims.a is empty"),
        ("claims = {}", "rule 1: claims is empty"),
        ("group = ['a']\npolicy = 'deny'", "rule 1: unknown key 'group'; did you mean groups?"),
        ("xyz = 1\npolicy = 'deny'", "rule 1: unknown key 'xyz'"),
        ("paths = 'x'\npolicy = 'deny'", "rule 1: got the path 'x'"),
        ("policy = 'public'\ngroups = 'a'", "rule 1: the policy 'public' can't be"),
    ],
)  # fmt: skip
def test_access_rules_invalid_rule_rejected(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "config"
    file.write_text(f"[[access_rules]]\n{text}\n")
    found = problems(file=file)
    assert any(expected in line and "access_rules" in line for line in found), found


def test_access_rules_not_tables_rejected(tmp_path: Path) -> None:
    file = tmp_path / "config"
    for text in ("access_rules = 1", "access_rules = [1]", "[access_rules]\na = 1"):
        file.write_text(text)
        [problem] = problems(file=file)
        assert "expected [[access_rules]] tables" in problem
    file.write_text("[[access_rule]]\n")
    [problem] = problems(file=file)
    assert "did you mean access_rules?" in problem


ALPHA = """
providers:
- id: main
  provider: oidc
  clientID: web
  clientSecret: s
  oidcConfig: {issuerURL: "https://idp.example.com"}
server: {bindAddress: "127.0.0.1:0"}
upstreamConfig:
  upstreams:
  - {id: admins, path: /, uri: "http://127.0.0.1:1", when: {groups: [admins]}}
  - id: staff
    path: /
    uri: http://127.0.0.1:2
    when: {claims: {department: [it]}, emailDomains: [example.com], anyOf: true}
"""


def test_access_rules_and_conditions_from_alpha_file(tmp_path: Path) -> None:
    alpha, file = tmp_path / "alpha.yaml", tmp_path / "config"
    alpha.write_text(
        ALPHA
        + "accessRules:\n- {paths: [/admin/], groups: [admins], name: x}\n"
        + "- {policy: public, hosts: [a.b]}\n"
    )
    kept = {"OAUTH2_PROXY_COOKIE_SECRET", "OAUTH2_PROXY_EMAIL_DOMAINS"}
    bare = {key: "" for key in BASE if key not in kept}
    flags = (f"--alpha-config={alpha}",)
    core = settings(*flags, env=bare).core
    assert core.access.rules == (
        AccessRule(name="x", paths=("/admin/",), when=Condition(groups=("admins",))),
        AccessRule(policy="public", when=Condition(hosts=("a.b",))),
    )
    assert [upstream.condition for upstream in core.upstreams] == [
        Condition(groups=("admins",)),
        Condition(
            claims=(("department", ("it",)),),
            email_domains=("example.com",),
            any_of=True,
        ),
    ]
    file.write_text("[[access_rules]]\npolicy = 'deny'\n")
    [problem] = problems(*flags, env=bare, file=file)
    assert "can't be used with accessRules" in problem
    alpha.write_text(
        ALPHA.replace("groups: [admins]", "groups: []") + "accessRules: [{}]\n"
    )
    found = problems(*flags, env=bare)
    assert any("upstreams[0].when" in line and "empty" in line for line in found)
    assert any("accessRules[0]" in line and "no policy" in line for line in found)
