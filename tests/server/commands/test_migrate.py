"""``authproxy migrate --check``: formats of files, exit codes, reports."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from authproxy.commands.cli import main

QUIET = """
provider = "keycloak-oidc"
oidc_issuer_url = "https://idp.example.com/realms/r"
email_domains = "*"
upstreams = "file:///dev/null"
"""
ENVIRONMENT = """
# oauth2-proxy
export OAUTH2_PROXY_CLIENT_SECRET='top-secret'
OAUTH2_PROXY_COOKIE_SECRET=top-secret-0123456789abcdef01234
OAUTH2_PROXY_REVERSE_PROXY="true"
PATH=/usr/bin
"""
OFFICIAL = """
config:
  clientID: web
  clientSecret: top-secret
  cookieSecret: top-secret-0123456789abcdef01234
  configFile: |-
    email_domains = [ "*" ]
    upstreams = [ "file:///dev/null" ]
extraArgs:
  provider: keycloak-oidc
  oidc-issuer-url: https://idp.example.com/realms/r
  reverse-proxy: true
  redirect-url: "{{ .Values.url }}"
extraEnv:
- name: OAUTH2_PROXY_ALLOWED_GROUPS
  value: staff
- name: OAUTH2_PROXY_SIGNATURE_KEY
  valueFrom: {secretKeyRef: {name: a, key: b}}
sessionStorage:
  type: redis
  redis: {standalone: {connectionUrl: "redis://redis:6379"}}
authenticatedEmailsFile: {enabled: true}
"""
OFFICIAL_ALPHA = """
oauth2-proxy:
  alphaConfig:
    enabled: true
    configData:
      providers:
      - id: main
        provider: keycloak-oidc
        clientID: web
        allowedGroups: [staff]
        oidcConfig: {issuerURL: "https://idp.example.com/realms/r"}
  config:
    existingSecret: oauth2-proxy
"""
BITNAMI = """
configuration:
  clientID: oauth2-proxy
  clientSecret: top-secret
  cookieSecret: top-secret-0123456789abcdef01234
  content: |
    reverse_proxy = true
    provider = "keycloak-oidc"
    email_domains = "*"
    upstreams = "file:///dev/null"
  oidcIssuerUrl: https://keycloak.example.com/realms/main
  redirectUrl: ""
extraArgs: ["--skip-provider-button", "--whitelist-domain=.example.com"]
extraEnvVars: [{name: OAUTH2_PROXY_SKIP_AUTH_PREFLIGHT, value: "true"}]
"""
ALPHA = """
providers:
- id: main
  provider: keycloak-oidc
  clientID: web
  clientSecret: top-secret
  oidcConfig: {issuerURL: "https://idp.example.com/realms/r"}
upstreamConfig:
  upstreams:
  - {id: app, path: /, uri: "http://127.0.0.1:8080"}
server: {bindAddress: ":4180"}
"""


def check(
    capsys: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, dict[str, Any]]:
    """Run the check; returns the exit code and the report."""
    code = main(["migrate", "--check", "--json", *map(str, arguments)])
    out, _ = capsys.readouterr()
    assert "top-secret" not in out
    report = json.loads(out)
    assert report["exit_code"] == code
    return code, report


def open_ids(report: dict[str, Any]) -> set[str]:
    return {
        one["id"]
        for one in report["differences"]
        if one["level"] == "look" and not one["accepted"]
    }


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "expected", "stored"),
    [
        ("oauth2-proxy.cfg", QUIET, set(), False),
        ("oauth2-proxy", ENVIRONMENT, {"trusted-proxies"}, False),
        (
            "values.yaml",
            OFFICIAL,
            {"trusted-proxies", "denied-user-keeps-session"},
            True,
        ),
        ("parent.yaml", OFFICIAL_ALPHA, {"denied-user-keeps-session"}, False),
        (
            "bitnami.yml",
            BITNAMI,
            {"trusted-proxies", "preflights", "id-token-in-sign-out"},
            True,
        ),
        (
            "alpha.yaml",
            ALPHA,
            {"forwarded-headers-sent", "websocket-origins"},
            False,
        ),
    ],
)
def test_check_reads_each_format(
    name: str,
    text: str,
    expected: set[str],
    stored: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, report = check(capsys, write(tmp_path, name, text))
    assert report["problems"] == []
    assert open_ids(report) == expected
    assert code == (1 if expected else 0)
    ids = {one["id"] for one in report["differences"]}
    assert ("store-outage" in ids) == stored
    assert str(tmp_path / name) in report["files"]
    assert "/tmp/authproxy-migrate" not in json.dumps(report)


def test_check_combines_files_and_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write(tmp_path, "oauth2-proxy.cfg", QUIET)
    variables = write(tmp_path, "proxy.env", ENVIRONMENT)
    flags = ("--", "--allowed-group=staff", "--client-id", "web")
    _, report = check(capsys, toml, variables, *flags)
    assert open_ids(report) == {"trusted-proxies", "denied-user-keeps-session"}
    assert report["missing"] == []


def test_check_reads_files_that_flags_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write(tmp_path, "oauth2-proxy.cfg", 'email_domains = "*"\n')
    alpha = write(tmp_path, "alpha.yaml", ALPHA)
    _, report = check(capsys, "--", f"--config={toml}", "--alpha-config", alpha)
    assert open_ids(report) == {"forwarded-headers-sent", "websocket-origins"}
    assert "converted-secrets" not in {one["id"] for one in report["differences"]}


def test_check_ignores_variables_of_the_process(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OAUTH2_PROXY_REVERSE_PROXY", "true")
    code, _ = check(capsys, write(tmp_path, "oauth2-proxy.cfg", QUIET))
    assert code == 0


def test_check_reads_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(BITNAMI.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, report = check(capsys, "-")
    assert (code, report["files"]) == (1, ["-"])


def test_check_names_values_that_are_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, report = check(capsys, write(tmp_path, "values.yaml", OFFICIAL))
    text = "\n".join(report["unchecked"])
    for part in (
        "--redirect-url is a template",
        "OAUTH2_PROXY_SIGNATURE_KEY: the value is not in this file",
        "authenticated_emails_file (--authenticated-emails-file): can't read",
    ):
        assert part in text
    [warning] = [text for text in report["warnings"] if "emails_file" in text]
    assert "has no effect with '*' in email_domains" in warning
    _, report = check(capsys, write(tmp_path, "alpha.yaml", OFFICIAL_ALPHA))
    assert "existingSecret" in report["unchecked"][0]
    assert any(text.startswith("cookie_secret: missing") for text in report["missing"])


def test_check_reports_unknown_options_with_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write(tmp_path, "a.cfg", QUIET + 'cookie_domain = "example.com"\n')
    code, report = check(capsys, toml, "--", "--skip-auth-rout=^/a", "--reverse-proxy")
    assert code == 1
    assert report["problems"] == [
        "--skip-auth-rout: unknown flag; did you mean --skip-auth-route?",
        f"cookie_domain ({toml}:6): unknown key; did you mean cookie_domains?",
    ]
    assert open_ids(report) == {"trusted-proxies"}


def test_check_accepted_difference_needs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write(tmp_path, "a.cfg", QUIET + "reverse_proxy = true\n")
    assert check(capsys, toml)[0] == 1
    code, report = check(capsys, "--accept", "trusted-proxies", toml)
    assert (code, open_ids(report)) == (0, set())
    assert main(["migrate", "--check", "--accept=trusted-proxy", str(toml)]) == 2
    assert "did you mean trusted-proxies?" in capsys.readouterr().err


def test_check_report_for_people_has_steps_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = write(tmp_path, "a.cfg", QUIET + 'allowed_groups = "a"\n')
    assert main(["migrate", "--check", str(toml)]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert f"denied-user-keeps-session (allowed_groups ({toml}:6))" in out
    assert 'old behavior: `forbidden_session = "clear"`' in out
    assert "users sign in once more" in out
    assert "  methods\n" not in out
    main(["migrate", "--check", "--all", str(toml)])
    assert "  methods\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "expected", "absent"),
    [
        ('cookie_format = "oauth2-proxy"', "users stay signed in", "once more"),
        ("http2 = false", "does not know: http2", "stay signed"),
        ('session_store_type = "sqlite"', "no such store", "http2"),
    ],
)
def test_check_names_the_way_back(
    options: str,
    expected: str,
    absent: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, report = check(capsys, write(tmp_path, "a.cfg", QUIET + options))
    text = "\n".join(report["roll_back"])
    assert expected in text
    assert absent not in text


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("absent.cfg", None, "No such file"),
        ("a.cfg", "provider = ", "not TOML"),
        ("a.yaml", "a: [", "not YAML"),
        ("a.yaml", "replicas: 2", "expected the TOML file"),
        ("a.cfg", "", "a.cfg: contains no option of oauth2-proxy"),
        ("a.toml", "# nothing\n", "a.toml: contains no option of oauth2-proxy"),
        ("a.env", "\n# nothing\n", "a.env: contains no option of oauth2-proxy"),
        ("a", "PATH=/bin\n", "a: contains no option of oauth2-proxy"),
    ],
)
def test_check_unreadable_or_empty_file_exits_with_2(
    name: str,
    text: str | None,
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if text is not None:
        write(tmp_path, name, text)
    assert main(["migrate", "--check", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err


@pytest.mark.parametrize(
    "arguments", [(), ("--check",), ("a.cfg",), ("--check", "--jsn", "a.cfg")]
)
def test_migrate_invalid_arguments_exit_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["migrate", *arguments]) == 2
    assert "usage: authproxy migrate" in capsys.readouterr().err
