"""Access rules: configuration, decisions of a running server, `explain`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.commands.explain import parse_arguments
from authproxy.config.read.resolved import ConfigError
from authproxy_core.session import Session
from authproxy_core.settings.rules import AccessRule, Condition
from support.configuration import BASE, problems, settings
from support.echo import EchoApp
from support.ports import LOOPBACK
from support.program import Program, session_cookie, toml

RULES = """
[[access_rules]]
name = "health"
paths = "/healthz"
policy = "public"

[[access_rules]]
paths = ["/.git/", "/.env"]
policy = "deny"

[[access_rules]]
name = "admin area"
hosts = ["app.example", "*.app.example"]
paths = ["/admin/"]
patterns = ["/[a-z]+/admin/"]
groups = ["admins"]
emails = "boss@example.com"
any_of = true

[[access_rules]]
methods = ["DELETE"]
roles = ["editor"]
email_domains = ["example.com"]

[access_rules.claims]
level = [3, "4"]
active = true
"""


def test_access_rules_from_toml(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text('access_rules_default = "deny"\n' + RULES)
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
    assert [one.condition for one in core.upstreams] == [
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


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Program, EchoApp]]:
    with (
        EchoApp() as app,
        Program(
            tmp_path,
            extra=RULES,
            reverse_proxy=True,
            upstreams=[f"http://{LOOPBACK}:{app.port}/"],
        ) as started,
    ):
        yield started.started(), app


def get(
    program: Program, target: str, cookie: str = "", **headers: str
) -> tuple[int, str]:
    """Return status and body of the response."""
    connection = HTTPConnection(LOOPBACK, program.port, timeout=10)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if cookie:
            fields["Cookie"] = cookie
        connection.request("GET", target, headers={"Host": "app.example", **fields})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_access_rules_decide_forwarded_requests_and_auth_checks(
    program: tuple[Program, EchoApp],
) -> None:
    running, _ = program
    user = session_cookie(Session(user="u", email="u@example.com", groups=("staff",)))
    admin = session_cookie(Session(user="a", email="a@example.com", groups=("admins",)))
    status, body = get(running, "/healthz")
    assert (status, json.loads(body)["target"]) == (200, "/healthz")
    assert get(running, "/healthz/..%2fadmin/", user)[0] in (301, 403)
    assert get(running, "/.git/config", admin)[0] == 403
    assert get(running, "/admin/", user)[0] == 403
    assert get(running, "/admin/", admin)[0] == 200
    assert get(running, "/x", user)[0] == 200
    for uri, cookie, expected in (
        ("/healthz", "", 202),
        ("/x", "", 401),
        ("/x", user, 202),
        ("/admin/x", user, 403),
        ("/healthz/../admin/x", user, 403),
        ("/admin/x", admin, 202),
        ("/.env", admin, 403),
    ):
        fields = {"X_Forwarded_Uri": uri, "X_Forwarded_Method": "GET"}
        assert get(running, "/oauth2/auth", cookie, **fields)[0] == expected, uri
    running.wait_until(lambda: "denied by rule 3 (admin area)" in running.log())


def explain(capsys: pytest.CaptureFixture[str], file: Path, *arguments: str) -> str:
    assert main(["explain", "--config", str(file), *arguments]) == 0
    return capsys.readouterr().out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "config"
    values = {
        key.removeprefix("OAUTH2_PROXY_").lower(): value for key, value in BASE.items()
    }
    values["upstreams"] = "http://127.0.0.1:1/"
    found.write_text(toml(values) + RULES)
    return found


def test_explain_shows_rules_and_decisions(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    output = explain(
        capsys,
        file,
        "GET",
        "https://app.example/admin/x",
        "--user=alice",
        "--group",
        "staff",
    )
    assert "as 'alice@example.com', groups: staff" in output
    assert "rule 1 (health): path does not match" in output
    assert "rule 3 (admin area): denied, because of the user's groups, emails" in output
    assert "forwarded by authproxy: denied: 403 (rule)" in output
    assert "auth check of a gateway: denied: 403 (rule), denied by rule 3" in output
    output = explain(
        capsys, file, "GET", "https://app.example/admin/x", "--group=admins", "--role=r"
    )
    assert "rule 3 (admin area): allowed" in output
    assert "forwarded by authproxy: allowed, to the upstream '/'" in output
    assert "auth check of a gateway: allowed: 202 (session)" in output
    output = explain(capsys, file, "GET", "https://app.example/admin/x?a=b")
    assert "rule 3 (admin area): requires a login" in output
    assert "forwarded by authproxy: requires a login: 403" in output
    output = explain(capsys, file, "GET", "https://other.example/healthz")
    assert "rule 1 (health): public" in output
    assert "gateway: allowed: 202" in output
    output = explain(
        capsys, file, "DELETE", "https://a/x", "--email=a@example.com", "--claim=level=3",
        "--role=editor", "--claim", "active=true",
    )  # fmt: skip
    assert "rule 4: allowed" in output
    output = explain(capsys, file, "GET", "https://a/x/..%2fy", "--user=a@example.com")
    assert "the path is ambiguous" in output
    assert "no rule matches: login" in output
    capsys.readouterr()


def test_explain_without_rules(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bare = tmp_path / "config"
    values = {
        key.removeprefix("OAUTH2_PROXY_").lower(): value for key, value in BASE.items()
    }
    values |= {"email_domains": "company.com"}
    bare.write_text(toml(values))
    output = explain(capsys, bare, "GET", "http://a", "--user=x")
    assert "access rules: none" in output
    assert "'x@company.com'" in output
    output = explain(
        capsys,
        bare,
        "GET",
        "http://a/oauth2/start",
        f"--custom-templates-dir={tmp_path}",
    )
    assert "forwarded by authproxy: response: " in output
    output = explain(
        capsys, bare, "GET", "http://a/srv/x", "--upstream=file:///srv/", "--user=x"
    )
    assert "allowed, to the files of '/srv/'" in output


def test_explain_invalid_arguments_rejected(
    capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    assert main(["explain", "--config", str(file)]) == 2
    assert "usage: authproxy explain" in capsys.readouterr().err
    assert (
        main(["explain", "--config", str(file), "GET", "http://a/", "--claim=x"]) == 2
    )
    assert "NAME=VALUE" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        parse_arguments(["get", "http://a/"])
