"""oauth2-proxy and authproxy accept and reject the same configurations.

Only the exit codes of ``--config-test`` are compared: 0 valid, 1 invalid, 2 invalid
command line.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from support.configuration import BASE
from support.programs import find

pytestmark = pytest.mark.peers

FLAGS = [
    "--reverse-proxy", "--reverse-proxy=T", "--reverse-proxy=yes", "--reverse-proxy=",
    "--cookie-expire=1.5h", "--cookie-expire=0", "--cookie-expire=1",
    "--cookie-expire=1d", "--cookie-expire=", "--cookie-expire=-1h",
    "--logging-max-size=0x10", "--logging-max-size=08", "--logging-max-size=1_0",
    "--logging-max-size=_1", "--logging-max-size=9223372036854775808",
    '--email-domain="a,b",c', '--email-domain=a"b', '--email-domain="a"b',
    "--email-domain=", "--email-domain=\n", "--email-domain",
    "--google-use-organization-id=x", "--google-use-organization-id",
    "--cookie-samesite=lax", "--cookie-samesite=Lax", "--cookie-name=a b",
    "--cookie-secret=short", "--trusted-proxy-ip=10.0.0.1/8", "--upstream=ftp://x",
    "--upstream=http://a/%zz", "--upstream=file:///dev/null", "--set-basic-auth",
    "--redirect-url=http://a b/", "--oidc-enabled-signing-alg=none", "--bogus",
    "-x", "--=x", "---x", "-h", "--",
]  # fmt: skip
VARIABLES = [
    ("REVERSE_PROXY", "true"), ("REVERSE_PROXY", "yes"), ("REVERSE_PROXY", ""),
    ("COOKIE_EXPIRE", "60"), ("COOKIE_EXPIRE", "60s"), ("LOGGING_MAX_SIZE", "a"),
    ("EMAIL_DOMAINS", ""), ("EMAIL_DOMAINS", 'a"b'), ("CLIENT_ID", ""),
]  # fmt: skip
TEXTS = [
    'cookie_expire = ""', "cookie_expire = 3600", "cookie_expire = 1.5",
    'cookie_expire = "3600"', 'cookie_expire = "0"', "cookie_expire = true",
    'logging_max_size = "0x10"', 'logging_max_size = ""', "logging_max_size = 1.5",
    'logging_max_size = "1.5"', 'reverse_proxy = "yes"', 'reverse_proxy = ""',
    "reverse_proxy = 2", "reverse_proxy = [true]", "provider_display_name = 12",
    "cookie_domains = 5", "cookie_domains = ['a', 'b']", 'Cookie_Name = "x"',
    'email-domains = "x"', 'config = "x"', "[table]\na = 1", "bad",
    'reverse_proxy = true\nreal_client_ip_header = "X"', 'real_client_ip_header = "X"',
    'upstreams = ["http://a", "http://b"]', 'upstreams = ["x"]',
    "pass_authorization_header = true\nbasic_auth_password = 'x'",
    "session_cookie_minimal = true\ncookie_refresh = '1h'",
]  # fmt: skip


def oauth2_proxy_exit_code(arguments: list[str], env: dict[str, str]) -> int:
    program = find("oauth2-proxy")
    if program is None:
        pytest.skip("oauth2-proxy isn't installed")
    command = [str(program), "--config-test", *arguments]
    run = subprocess.run(command, env=env, capture_output=True, timeout=20, check=False)
    return run.returncode


def authproxy_exit_code(
    arguments: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> int:
    for name in [name for name in os.environ if name.startswith("OAUTH2_PROXY_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return main(["--config-test", *arguments])


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_exit_code_as_oauth2_proxy(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authproxy_exit_code([flag], BASE, monkeypatch) == oauth2_proxy_exit_code(
        [flag], BASE
    )


@pytest.mark.parametrize(("name", "value"), VARIABLES)
def test_variable_exit_code_as_oauth2_proxy(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {**BASE, f"OAUTH2_PROXY_{name}": value}
    assert authproxy_exit_code([], env, monkeypatch) == oauth2_proxy_exit_code([], env)


@pytest.mark.parametrize("text", TEXTS)
def test_toml_exit_code_as_oauth2_proxy(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.cfg"
    file.write_text(text)
    arguments = ["--config", str(file)]
    assert authproxy_exit_code(arguments, BASE, monkeypatch) == oauth2_proxy_exit_code(
        arguments, BASE
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--bogus", "--version"],
        ["--bogus", "value", "--version"],
        ["--client-id", "--version"],
        ["--version=false"],
        ["--config-test=foo", "--version"],
        ["--help", "--version"],
        ["--config", "--version"],
        ["--bogus", "--help"],
        ["--help", "--bogus"],
    ],
    ids=" ".join,
)
def test_control_flags_exit_code_as_oauth2_proxy(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert authproxy_exit_code(arguments, BASE, monkeypatch) == oauth2_proxy_exit_code(
        arguments, BASE
    )
