"""Each option of oauth2-proxy as a flag, variable and TOML key.

As in ``test_oauth2_proxy`` only the exit codes of ``--config-test`` are compared.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.config.options.option import Option
from authproxy.config.options.table import FLAT_ONLY, OPTIONS
from authproxy.config.read.values import format_duration
from support.configuration import BASE
from support.programs import find

pytestmark = pytest.mark.peers
OAUTH2_PROXY_OPTIONS = [option for option in OPTIONS if not option.is_extension]
SINCE_7_15_5 = {"bitbucket_workspace"}  # options that older versions do not have
# Invalid values of each kind.
INVALID_VALUES = {"bool": "yes", "string-bool": "yes", "int": "1.5x", "duration": "5"}
ALPHA_ENV = {
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
    "SECRET": "s",
}
ALPHA = """
server: {bindAddress: '127.0.0.1:4180'}
providers:
- id: a
  provider: oidc
  clientID: web
  clientSecret: $SECRET
  oidcConfig: {issuerURL: https://idp.example.com/}
"""


def oauth2_proxy_exit_code(arguments: list[str], env: dict[str, str]) -> int:
    program = find("oauth2-proxy")
    if program is None:
        pytest.skip("oauth2-proxy isn't installed")
    command = [str(program), "--config-test", *arguments]
    run = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    return run.returncode


def exit_codes(
    arguments: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """Return the exit codes of oauth2-proxy and authproxy."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    code = main(["--config-test", *arguments])
    for name in env:
        monkeypatch.delenv(name)
    return oauth2_proxy_exit_code(arguments, env), code


def default_text(option: Option) -> str:
    """Format the default as in a flag or variable."""
    match option.default:
        case bool():
            return "true" if option.default else "false"
        case tuple():
            return ",".join(option.default)
        case float():
            return format_duration(option.default)
    return str(option.default)


def quote(text: str) -> str:
    return "'" + text + "'"


def default_toml(option: Option) -> str:
    """Format the default as in TOML."""
    if isinstance(option.default, tuple):
        return "[" + ", ".join(map(quote, option.default)) + "]"
    text = default_text(option)
    plain = option.kind in ("bool", "int", "string-bool")
    return text if plain else quote(text)


def is_in_base(option: Option) -> bool:
    """Return whether the base configuration sets *option*."""
    return option.environment in BASE


def test_defaults_accepted_as_flag_variable_and_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = [
        option
        for option in OAUTH2_PROXY_OPTIONS
        if not is_in_base(option) and option.key not in SINCE_7_15_5
    ]
    flags = [f"--{option.flag}={default_text(option)}" for option in rest]
    assert exit_codes(flags, BASE, monkeypatch) == (0, 0)

    variables = {option.environment: default_text(option) for option in rest}
    assert exit_codes([], {**BASE, **variables}, monkeypatch) == (0, 0)

    file = tmp_path / "file.cfg"
    file.write_text(
        "".join(f"{option.key} = {default_toml(option)}\n" for option in rest)
    )
    assert exit_codes(["--config", str(file)], BASE, monkeypatch) == (0, 0)


@pytest.mark.parametrize(
    "option",
    [option for option in OAUTH2_PROXY_OPTIONS if option.kind in INVALID_VALUES],
    ids=lambda option: option.key,
)
def test_invalid_value_exit_code_as_oauth2_proxy(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = INVALID_VALUES[option.kind]
    found = exit_codes([f"--{option.flag}={text}"], BASE, monkeypatch)
    assert found == ((1, 1) if option.kind == "string-bool" else (2, 2))
    env = {**BASE, option.environment: text}
    assert exit_codes([], env, monkeypatch) == (1, 1)
    file = tmp_path / "file.cfg"
    file.write_text(f"{option.key} = {quote(text)}\n")
    assert exit_codes(["--config", str(file)], BASE, monkeypatch) == (1, 1)


@pytest.mark.parametrize("option", OAUTH2_PROXY_OPTIONS, ids=lambda option: option.key)
def test_toml_table_as_value_exit_code_as_oauth2_proxy(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.cfg"
    file.write_text(f"{option.key} = {{a = 1}}\n")
    expected = (
        (0, 0) if is_in_base(option) else (1, 1)
    )  # overridden values are not parsed
    assert exit_codes(["--config", str(file)], BASE, monkeypatch) == expected


@pytest.mark.parametrize("key", sorted(FLAT_ONLY))
def test_flat_option_with_alpha_file_exit_code_as_oauth2_proxy(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [option] = [option for option in OAUTH2_PROXY_OPTIONS if option.key == key]
    alpha = tmp_path / "alpha.yaml"
    alpha.write_text(ALPHA)
    arguments = ["--alpha-config", str(alpha)]
    flag = f"--{option.flag}={default_text(option)}"
    assert exit_codes([*arguments, flag], ALPHA_ENV, monkeypatch) == (2, 2)
    variable = {option.environment: default_text(option)}
    assert exit_codes(arguments, {**ALPHA_ENV, **variable}, monkeypatch) == (0, 0)
    file = tmp_path / "file.cfg"
    file.write_text(f"{key} = {default_toml(option)}\n")
    found = exit_codes([*arguments, "--config", str(file)], ALPHA_ENV, monkeypatch)
    assert found == (1, 1)


HEADER = "injectRequestHeaders: [{name: X, values: [%s]}]"
UPSTREAM = "upstreamConfig: {upstreams: [%s]}"
GOOD = "id: a, path: /, uri: 'http://h'"


@pytest.mark.parametrize(
    ("more", "accepted"),
    [
        ("", True),
        ("# $NOTHING and ${NOTHING:-x}", True),
        ("x: ${NOTHING", False),
        ("bogus: 1", False),
        ("Server: {}", False),
        ("METRICSSERVER: {BINDADDRESS: '127.0.0.1:9100'}", True),
        ("metricsServer: {bindAddress: 5}", False),
        ("metricsServer: ~", True),
        (HEADER % "{claimSource: {claim: user, prefix: 'a '}}", True),
        (HEADER % "{claim: user}", False),
        (HEADER % "{claimSource: {claim: ''}}", False),
        (HEADER % "{secretSource: {value: a}}", True),
        (HEADER % "{secretSource: {value: [97, 98]}}", True),
        (HEADER % "{secretSource: {value: 5}}", False),
        (HEADER % "{secretSource: {value: a, fromEnv: SECRET}}", False),
        (HEADER % "{secretSource: {fromEnv: SECRET}}", True),
        (HEADER % "{secretSource: {fromEnv: NOTHING}}", False),
        (HEADER % "{secretSource: {fromFile: /missing}}", False),
        (HEADER % "{secretSource: {fromFile: /dev/null}}", True),
        (HEADER % "{claimSource: {claim: a, basicAuthPassword: {}}}", False),
        (HEADER % "{claimSource: {claim: a}, secretSource: {value: b}}", False),
        (HEADER % "", True),
        ("injectRequestHeaders: [{values: []}]", False),
        ("injectRequestHeaders: [{name: X, preserveRequestValue: 'true'}]", False),
        ("injectRequestHeaders: [{name: X, InsecureSkipHeaderNormalization: true}]",
         True),
        ("injectRequestHeaders: [{name: X}, {name: X}]", False),
        ("injectRequestHeaders: {name: X}", False),
        (UPSTREAM % f"{{{GOOD}}}", True),
        (UPSTREAM % f"{{{GOOD}, timeout: 5s, flushInterval: 1.5}}", True),
        (UPSTREAM % f"{{{GOOD}, timeout: 5d}}", False),
        (UPSTREAM % f"{{{GOOD}, timeout: 5000000000}}", True),
        (UPSTREAM % f"{{{GOOD}, passHostHeader: no}}", False),
        (UPSTREAM % f"{{{GOOD}, staticCode: 200}}", False),
        (UPSTREAM % f"{{{GOOD}}}, {{{GOOD}}}", False),
        (UPSTREAM % "{id: a, path: /, static: true, staticCode: 204}", True),
        (UPSTREAM % "{id: a, path: /, static: true, staticCode: '204'}", False),
        (UPSTREAM % "{id: a, path: /}", False),
        (UPSTREAM % "{id: a, uri: 'http://h'}", False),
        (UPSTREAM % "{path: /, uri: 'http://h'}", False),
        (UPSTREAM % "{id: a, path: /, uri: 'ftp://h'}", False),
        (UPSTREAM % "{id: a, path: '^/(.*)$', rewriteTarget: '/$1', uri: 'http://h'}",
         True),
        ("upstreamConfig: {proxyRawPath: true}", True),
        ("providers: []", False),
        ("providers: [{id: a}]", False),
        ("a: 1\na: 1", False),
        ("[", False),
    ],
)  # fmt: skip
def test_alpha_file_exit_code_as_oauth2_proxy(
    more: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ALPHA if not more.startswith("providers") else ALPHA.split("providers")[0]
    alpha = tmp_path / "alpha.yaml"
    alpha.write_text(f"{before}{more}\n")
    found = exit_codes(["--alpha-config", str(alpha)], ALPHA_ENV, monkeypatch)
    assert [code == 0 for code in found] == [accepted, accepted]


@pytest.mark.parametrize(
    "more",
    [
        "id: a", "name: N", "caFiles: []", "useSystemTrustStore: true",
        "loginURL: https://i/", "redeemURL: https://i/", "profileURL: https://i/",
        "validateURL: https://i/", "authRequestResponseMode: form_post",
        "skipClaimsFromProfileURL: true", "resource: r", "scope: openid",
        "allowedGroups: [a]", "code_challenge_method: S256", "additionalClaims: [a]",
        "backendLogoutURL: https://i/", "keycloakConfig: {groups: [a]}",
        "azureConfig: {tenant: t, graphGroupField: id}",
        "microsoftEntraIDConfig: {allowedTenants: [t], federatedTokenAuth: false}",
        "ADFSConfig: {skipScope: true}", "bitbucketConfig: {team: t, repository: r}",
        "githubConfig: {org: o, team: t, repo: o/r, token: t, users: [u]}",
        "gitlabConfig: {group: [g], projects: [p]}",
        "googleConfig: {useOrganizationID: false, adminAPIUserScope: cloud}",
        "loginGovConfig: {pubjwkURL: 'https://i/'}",
        "loginURLParameters: [{name: prompt, default: [login], allow: [{value: a}, "
        "{pattern: b}]}]",
        # Invalid keys or types.
        "loginURLParameters: {}", "scope: 5", "allowedGroups: a", "scopes: openid",
        "codeChallengeMethod: S256", "oidcConfig: {issuer: x}", "githubConfig: [a]",
        "useSystemTrustStore: 'true'", "googleConfig: {groups: [a]}",
    ],
)  # fmt: skip
def test_alpha_provider_key_exit_code_as_oauth2_proxy(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = tmp_path / "alpha.yaml"
    text = ALPHA if more != "id: a" else ALPHA.replace("- id: a\n ", "-")
    if more.startswith("oidcConfig"):
        text = text.replace("oidcConfig", "# ")
    alpha.write_text(f"{text}  {more}\n")
    expected, code = exit_codes(["--alpha-config", str(alpha)], ALPHA_ENV, monkeypatch)
    assert code == expected
