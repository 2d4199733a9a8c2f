"""Every option of the original in every form that it may be given: who accepts what?

As in ``test_config_original`` only the exit codes of ``--config-test`` are compared.
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
ORIGINAL = [option for option in OPTIONS if not option.is_extension]
# Texts that are no value of the kind, in any form.
NONSENSE = {"bool": "yes", "string-bool": "yes", "int": "1.5x", "duration": "5"}
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


def theirs(arguments: list[str], env: dict[str, str]) -> int:
    program = find("oauth2-proxy")
    if program is None:
        pytest.skip("oauth2-proxy isn't installed")
    command = [str(program), "--config-test", *arguments]
    run = subprocess.run(command, env=env, capture_output=True, timeout=60, check=False)
    return run.returncode


def both(
    arguments: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int]:
    """The exit codes: theirs, ours."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ours = main(["--config-test", *arguments])
    for name in env:
        monkeypatch.delenv(name)
    return theirs(arguments, env), ours


def text_of(option: Option) -> str:
    """The default, as a flag or a variable says it."""
    match option.default:
        case bool():
            return "true" if option.default else "false"
        case tuple():
            return ",".join(option.default)
        case float():
            return format_duration(option.default)
    return str(option.default)


def quoted(text: str) -> str:
    return "'" + text + "'"


def toml_of(option: Option) -> str:
    """The default, as a file says it."""
    if isinstance(option.default, tuple):
        return "[" + ", ".join(map(quoted, option.default)) + "]"
    text = text_of(option)
    plain = option.kind in ("bool", "int", "string-bool")
    return text if plain else quoted(text)


def given(option: Option) -> bool:
    """Whether the configuration that the tests begin with has it already."""
    return option.environment in BASE


def test_all_defaults_are_good_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = [option for option in ORIGINAL if not given(option)]
    flags = [f"--{option.flag}={text_of(option)}" for option in rest]
    assert both(flags, BASE, monkeypatch) == (0, 0)

    variables = {option.environment: text_of(option) for option in rest}
    assert both([], {**BASE, **variables}, monkeypatch) == (0, 0)

    file = tmp_path / "file.cfg"
    file.write_text("".join(f"{one.key} = {toml_of(one)}\n" for one in rest))
    assert both(["--config", str(file)], BASE, monkeypatch) == (0, 0)


@pytest.mark.parametrize(
    "option",
    [option for option in ORIGINAL if option.kind in NONSENSE],
    ids=lambda option: option.key,
)
def test_nonsense_in_every_form(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = NONSENSE[option.kind]
    found = both([f"--{option.flag}={text}"], BASE, monkeypatch)
    assert found == ((1, 1) if option.kind == "string-bool" else (2, 2))
    env = {**BASE, option.environment: text}
    assert both([], env, monkeypatch) == (1, 1)
    file = tmp_path / "file.cfg"
    file.write_text(f"{option.key} = {quoted(text)}\n")
    assert both(["--config", str(file)], BASE, monkeypatch) == (1, 1)


@pytest.mark.parametrize("option", ORIGINAL, ids=lambda option: option.key)
def test_a_table_is_no_value(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file.cfg"
    file.write_text(f"{option.key} = {{a = 1}}\n")
    expected = (0, 0) if given(option) else (1, 1)  # only what wins is read
    assert both(["--config", str(file)], BASE, monkeypatch) == expected


@pytest.mark.parametrize("key", sorted(FLAT_ONLY))
def test_flat_options_beside_an_alpha_file(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = next(one for one in ORIGINAL if one.key == key)
    alpha = tmp_path / "alpha.yaml"
    alpha.write_text(ALPHA)
    arguments = ["--alpha-config", str(alpha)]
    flag = f"--{option.flag}={text_of(option)}"
    assert both([*arguments, flag], ALPHA_ENV, monkeypatch) == (2, 2)
    variable = {option.environment: text_of(option)}
    assert both(arguments, {**ALPHA_ENV, **variable}, monkeypatch) == (0, 0)
    file = tmp_path / "file.cfg"
    file.write_text(f"{key} = {toml_of(option)}\n")
    found = both([*arguments, "--config", str(file)], ALPHA_ENV, monkeypatch)
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
def test_alpha_files(
    more: str, accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ALPHA if not more.startswith("providers") else ALPHA.split("providers")[0]
    alpha = tmp_path / "alpha.yaml"
    alpha.write_text(f"{before}{more}\n")
    found = both(["--alpha-config", str(alpha)], ALPHA_ENV, monkeypatch)
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
        # These are none.
        "loginURLParameters: {}", "scope: 5", "allowedGroups: a", "scopes: openid",
        "codeChallengeMethod: S256", "oidcConfig: {issuer: x}", "githubConfig: [a]",
        "useSystemTrustStore: 'true'", "googleConfig: {groups: [a]}",
    ],
)  # fmt: skip
def test_keys_of_alpha_providers(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha = tmp_path / "alpha.yaml"
    text = ALPHA if more != "id: a" else ALPHA.replace("- id: a\n ", "-")
    if more.startswith("oidcConfig"):
        text = text.replace("oidcConfig", "# ")
    alpha.write_text(f"{text}  {more}\n")
    their_code, our_code = both(["--alpha-config", str(alpha)], ALPHA_ENV, monkeypatch)
    assert their_code == our_code
