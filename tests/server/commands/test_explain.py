"""Access rules of a running server, and their explanation by ``authproxy explain``."""

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
from support.configuration import ACCESS_RULES, BASE
from support.echo import EchoApp
from support.ports import LOOPBACK
from support.program import Program, session_cookie, toml


@pytest.fixture
def program(tmp_path: Path) -> Iterator[tuple[Program, EchoApp]]:
    with (
        EchoApp() as app,
        Program(
            tmp_path,
            extra=ACCESS_RULES,
            reverse_proxy=True,
            upstreams=[f"http://{LOOPBACK}:{app.port}/"],
        ) as started,
    ):
        yield started.started(), app


def get(
    program: Program, target: str, cookie: str = "", **headers: str
) -> tuple[int, str]:
    """Return status and body of the response."""
    connection = HTTPConnection(LOOPBACK, program.port, timeout=60)
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
    found.write_text(toml(values) + ACCESS_RULES)
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
    output = explain(capsys, file, "GET", "https://a/.GIT/x.", "--user=a@example.com")
    assert "for servers that ignore case" in output
    assert "segment: rule 2: deny" in output
    assert "denied by rule 2" in output
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
