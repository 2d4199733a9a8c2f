"""Alpha configurations: the settings they build, and their problems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from authproxy.commands.cli import main
from authproxy.config.load import load_settings
from authproxy.config.options.table import BY_KEY, FLAT_ONLY
from authproxy.config.read.resolved import ConfigError, UsageError
from authproxy.net.tls import server_context
from authproxy.server_settings import Listener, ServerSettings
from authproxy_core.settings.providers import AllowRule, LoginParameter
from authproxy_core.settings.root import ClaimSource, HeaderRule, Secret
from support.certificates import make_certificate

ENV = {
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
    "PASSWORD": "hidden-password",
}
PROVIDER = """
providers:
- id: idp
  provider: oidc
  clientID: web
  clientSecret: hidden-client-secret
  oidcConfig: {issuerURL: https://idp.example.com/}
"""
SERVER = "server: {bindAddress: '127.0.0.1:4180'}\n"
BASE = PROVIDER + SERVER


def settings(
    text: str, directory: Path, *flags: str, env: Mapping[str, str] | None = None
) -> ServerSettings:
    file = directory / "alpha.yaml"
    file.write_text(text)
    return load_settings([f"--alpha-config={file}", *flags], {**ENV, **(env or {})})


def problems(text: str, directory: Path, *flags: str) -> list[str]:
    try:
        settings(text, directory, *flags)
    except ConfigError as error:
        origin = f" ({directory / 'alpha.yaml'})"
        return [line.replace(origin, "") for line in error.problems]
    return []


@pytest.mark.parametrize(
    "keys", ["workspace: eng", "team: eng", "workspace: eng, team: old"]
)
def test_alpha_bitbucket_workspace_is_set(tmp_path: Path, keys: str) -> None:
    text = f"""
providers:
- id: bitbucket
  provider: bitbucket
  clientID: web
  clientSecret: hidden-client-secret
  bitbucketConfig: {{{keys}}}
"""
    [found] = settings(text + SERVER, tmp_path).core.providers
    assert found.bitbucket.workspace == "eng"


def test_alpha_provider_keys_set_flat_options(tmp_path: Path) -> None:
    text = """
providers:
- id: one
  name: The IdP
  provider: keycloak-oidc
  clientID: web
  clientSecret: hidden-client-secret
  code_challenge_method: S256
  scope: openid groups
  allowedGroups: [a, b]
  keycloakConfig: {roles: [admin]}
  additionalClaims: [department]
  loginURLParameters:
  - {name: prompt, default: [login], allow: [{value: none}, {pattern: '^sel'}]}
  oidcConfig:
    issuerURL: https://idp.example.com/realms/r
    insecureSkipNonce: true
    userIDClaim: upn
    audienceClaims: [azp]
    extraAudiences: [other]
    enabledSigningAlgs: [ES256]
"""
    loaded = settings(text + SERVER, tmp_path)
    [provider] = loaded.core.providers
    assert (provider.id, provider.name, provider.type) == (
        "one",
        "The IdP",
        "keycloak-oidc",
    )
    assert provider.client_secret == Secret("hidden-client-secret")
    assert provider.allowed_groups == ("a", "b", "role:admin")
    assert provider.email_claim == "upn"
    assert provider.skip_nonce
    assert provider.code_challenge_method == "S256"
    assert provider.signing_algs == ("ES256",)
    assert provider.audience_claims == ("azp",)
    assert provider.extra_audiences == ("other",)
    assert provider.additional_claims == ("department",)
    assert provider.login_parameters == (
        LoginParameter(
            "prompt",
            ("login",),
            (AllowRule("none"), AllowRule("^sel", is_pattern=True)),
        ),
    )
    assert any(
        "providers[].oidcConfig.insecureSkipNonce" in warning
        for warning in loaded.warnings
    )


def test_alpha_several_providers(tmp_path: Path) -> None:
    other = PROVIDER.replace("providers:", "").replace("idp\n", "other\n")
    loaded = settings(PROVIDER + other + SERVER, tmp_path)
    assert [provider.id for provider in loaded.core.providers] == ["idp", "other"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["providers: missing; at least one provider is needed"]),
        ("providers: []", ["providers: missing; at least one provider is needed"]),
        ("providers: [{provider: oidc}]", [
            "providers[0].clientID: missing; expected the client ID",
            "providers[0].id: missing; expected an ID for the provider",
            "providers[].clientSecret: missing (or client_secret_file)",
            "providers[].oidcConfig.issuerURL: missing; expected the issuer, for "
            "Keycloak 'https://HOST/realms/REALM'",
         ]),
        (PROVIDER + "- {id: b, clientID: c, clientSecret: hidden-client-secret, "
         "oidcConfig: {issuerURL: 'https://b/'}}",
         ["providers[1].provider: missing; expected the type of the provider"]),
        (PROVIDER + "  caFiles: [x]" + PROVIDER.replace("providers:", "").replace(
            "idp\n", "o\n"),
         ["providers[0].caFiles: expected the same value for all providers"]),
        (PROVIDER + "  code_challenge_method: S512", [
            "providers[0].code_challenge_method: got 'S512', expected 'S256', 'plain', "
            "'none' or nothing"]),
        (PROVIDER + "  loginURLParameters: [{name: a}, {name: a}, {}]", [
            "loginURLParameters: the parameter 'a' is a duplicate",
            "loginURLParameters: a parameter has no name"]),
        (PROVIDER + "  loginURLParameters: [{name: a, allow: [{}, {value: a, "
         "pattern: b}]}]", [
            "providers[0].loginURLParameters[0].allow[0]: expected exactly one of "
            "value and pattern",
            "providers[0].loginURLParameters[0].allow[1]: expected exactly one of "
            "value and pattern"]),
        (PROVIDER + PROVIDER.replace("providers:", ""),
         ["provider: the id 'idp' is used twice"]),
    ],
)  # fmt: skip
def test_alpha_provider_problems(
    text: str, expected: list[str], tmp_path: Path
) -> None:
    found = problems(text + "\n" + SERVER, tmp_path)
    known = [line for line in found if "by default, expected" not in line]
    assert [line.replace("providers[].provider: the", "provider: the") for line in known
            ] == expected  # fmt: skip


def test_alpha_headers_from_claims_and_secrets(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"from file\n")
    text = f"""
injectRequestHeaders:
- name: X-User
  preserveRequestValue: true
  values:
  - claimSource: {{claim: user, prefix: 'u:'}}
  - secretSource: {{value: literal}}
  - secretSource: {{fromEnv: PASSWORD}}
  - secretSource: {{fromFile: {file}}}
- name: Authorization
  InsecureSkipHeaderNormalization: true
  values: [{{claimSource: {{claim: email, basicAuthPassword: {{value: [112, 10]}}}}}}]
injectResponseHeaders:
- {{name: X-Department, values: [{{claimSource: {{claim: department}}}}]}}
"""
    loaded = settings(BASE + text, tmp_path)
    assert loaded.core.inject_request_headers == (
        HeaderRule(
            "X-User",
            (
                ClaimSource("user", "u:"),
                Secret("literal"),
                Secret("hidden-password"),
                Secret("from file"),
            ),
            preserve_request_value=True,
        ),
        HeaderRule(
            "Authorization",
            (ClaimSource("email", "", Secret(b"p\n")),),
            strip_exactly=True,
        ),
    )
    assert loaded.core.inject_response_headers == (
        HeaderRule("X-Department", (ClaimSource("department"),)),
    )
    assert any("another spelling" in warning for warning in loaded.warnings)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{}", "injectRequestHeaders[0].name: missing; expected a header name"),
        ("{name: X, values: [{}]}", "injectRequestHeaders[0].values[0]: expected one "
         "of claimSource and secretSource"),
        ("{name: X, values: [{claimSource: {claim: a}, secretSource: {value: b}}]}",
         "injectRequestHeaders[0].values[0]: expected one of claimSource and "
         "secretSource"),
        ("{name: X, values: [{claimSource: {prefix: a}}]}",
         "injectRequestHeaders[0].values[0].claimSource.claim: missing; expected a "
         "claim name"),
        ("{name: X, values: [{secretSource: {value: a, fromEnv: b}}]}",
         "injectRequestHeaders[0].values[0].secretSource: expected exactly one of "
         "value, fromEnv and fromFile"),
        ("{name: X, values: [{secretSource: {fromEnv: NONE}}]}",
         "injectRequestHeaders[0].values[0].secretSource.fromEnv: the variable 'NONE' "
         "is not set"),
        ("{name: X, values: [{secretSource: {fromFile: /missing}}]}",
         "injectRequestHeaders[0].values[0].secretSource.fromFile: can't read "
         "/missing: No such file or directory"),
        ("{name: X, values: [{secretSource: {fromFile: \"a\\0b\"}}]}",
         "injectRequestHeaders[0].values[0].secretSource.fromFile: expected a file "
         "name"),
        ("{name: X, values: [{secretSource: {value: \"a\\r\\nb: c\"}}]}",
         "injectRequestHeaders[0].values[0].secretSource: a header value can't have "
         "more than one line"),
        ("{name: X, values: [{claim: user}]}",
         "injectRequestHeaders[0].values[0].claim: unknown key; did you mean "
         "claimSource?"),
        ("{name: 'X Y'}", "injectRequestHeaders: the header 'X Y' can't be injected; "
         "expected a field name that does not affect the framing"),
    ],
)  # fmt: skip
def test_alpha_header_problems(entry: str, expected: str, tmp_path: Path) -> None:
    found = problems(f"{BASE}\ninjectRequestHeaders: [{entry}]", tmp_path)
    assert expected in found
    assert len(found) <= 2


def test_alpha_upstreams(tmp_path: Path) -> None:
    text = """
upstreamConfig:
  proxyRawPath: true
  upstreams:
  - {id: app, path: /, uri: 'http://127.0.0.1:1', timeout: 5s, passHostHeader: false,
     flushInterval: -1ns, proxyWebSockets: false, disableKeepAlives: true,
     insecureSkipTLSVerify: true}
  - {id: gone, path: /gone, static: true, staticCode: 410, uri: 'ftp://x'}
  - {id: fine, path: /fine, static: true}
"""
    core = settings(BASE + text, tmp_path).core
    app, gone, fine = core.upstreams
    assert core.proxy_raw_path
    assert (app.id, app.path, app.uri, app.timeout) == (
        "app",
        "/",
        "http://127.0.0.1:1",
        5.0,
    )
    assert (app.pass_host_header, app.proxy_websockets) == (False, False)
    assert app.disable_keep_alives
    assert app.insecure_skip_tls_verify
    assert (gone.static_code, gone.uri, fine.static_code) == (410, "", 200)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ("{path: /, uri: 'http://a'}", "[0].id: missing"),
        ("{id: a, uri: 'http://a'}", "[0].path: missing"),
        ("{id: a, path: /}", "[0].uri: missing; expected a URL, or static: true"),
        ("{id: a, path: /, uri: 'ftp://a'}", "[0].uri: expected http://HOST, "
         "https://HOST, unix:///PATH or file:///PATH"),
        ("{id: a, path: /, uri: 'http://a:b'}", "[0].uri: expected http://HOST, "
         "https://HOST, unix:///PATH or file:///PATH"),
        ("{id: a, path: /, uri: 'http://'}", "[0].uri: expected http://HOST"),
        ("{id: a, path: /, uri: 'http://a', staticCode: 200}",
         "[0].staticCode: requires static: true"),
        ("{id: a, path: /, static: true, staticCode: 99}",
         "[0].staticCode: expected a status code from 200 to 599"),
        ("{id: a, path: /, uri: 'http://a', timeout: -5s}",
         "[0].timeout: negative, expected a duration or 0s for no timeout"),
        ("{id: a, path: /, static: true}, {id: a, path: /b, static: true}",
         "[1].id: duplicate 'a'"),
        ("{id: a, path: /, static: true}, {id: b, path: /, static: true}",
         "[1].path: duplicate '/'"),
    ],
)  # fmt: skip
def test_alpha_upstream_problems(entries: str, expected: str, tmp_path: Path) -> None:
    text = f"{BASE}\nupstreamConfig: {{upstreams: [{entries}]}}"
    assert problems(text, tmp_path) == [f"upstreamConfig.upstreams{expected}"]


def test_alpha_server_plain_and_tls_listener(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    text = f"""
server:
  bindAddress: unix:///run/authproxy.sock,mode=0660
  secureBindAddress: https://127.0.0.1:8443
  tls:
    key: {{fromFile: {certificate.key_file}}}
    cert: {{fromFile: {certificate.cert_file}}}
    minVersion: TLS1.3
"""
    plain, secure = settings(PROVIDER + text, tmp_path).listeners
    assert plain == Listener(path="/run/authproxy.sock", mode=0o660)
    assert (secure.host, secure.port) == ("127.0.0.1", 8443)
    assert secure.tls is not None
    assert secure.tls.min_version == "TLS1.3"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("{}", ["server: no listener: set bindAddress or secureBindAddress"]),
        ("{bindAddress: x}", ["server.bindAddress: got 'x', expected HOST:PORT, "
                              "unix://PATH[,mode=0660] or '-'"]),
        ("{bindAddress: '-', secureBindAddress: ':443'}", [
            "server.tls.cert: expected exactly one of value, fromEnv and fromFile",
            "server.tls.key: expected exactly one of value, fromEnv and fromFile"]),
        ("{secureBindAddress: ':1', tls: {key: {fromFile: x}, cert: {fromFile: y}, "
         "minVersion: TLS1}}",
         ["server.tls.minVersion: got 'TLS1', expected 'TLS1.2', 'TLS1.3' or nothing"]),
    ],
)  # fmt: skip
def test_alpha_server_problems(
    server: str, expected: list[str], tmp_path: Path
) -> None:
    found = problems(f"{PROVIDER}\nserver: {server}", tmp_path)
    assert [line.replace("HOST:PORT, fd:N,", "HOST:PORT,") for line in found
            ] == expected  # fmt: skip


@pytest.mark.parametrize("block", ["server", "metricsServer"])
def test_alpha_server_certificate_as_text(block: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    chain = Path(certificate.cert_file).read_text()
    tls = f"""{{secureBindAddress: ':8443', tls: {{
        cert: {{fromEnv: CHAIN}}, key: {{fromFile: {certificate.key_file}}}}}}}"""
    text = PROVIDER + f"{block}: {tls}\n" + (SERVER if block != "server" else "")
    secure = settings(text, tmp_path, env={"CHAIN": chain}).listeners[-1]
    assert secure.tls is not None
    assert secure.metrics == (block == "metricsServer")
    assert "PRIVATE" not in repr(secure)
    assert server_context(secure.tls).minimum_version.name == "TLSv1_2"

    [problem] = problems(text.replace("fromEnv: CHAIN", "value: broken"), tmp_path)
    assert "can't use (not a file) with the key" in problem
    found = problems(text, tmp_path)
    assert f"{block}.tls.cert.fromEnv: the variable 'CHAIN' is not set" in found


def test_alpha_metrics_server(tmp_path: Path) -> None:
    text = BASE + "metricsServer: {bindAddress: ':9100'}"
    plain, metrics = settings(text, tmp_path).listeners
    assert (plain.metrics, metrics.metrics, metrics.port) == (False, True, 9100)
    text = BASE + "metricsServer: {bindAddress: 'x'}"
    assert problems(text, tmp_path)[0].startswith("metricsServer.bindAddress: got 'x'")


# With flat options


def test_alpha_replaces_88_flags_and_keeps_80() -> None:
    assert len({BY_KEY[key].flag for key in FLAT_ONLY}) == 88
    flags = {option.flag for option in BY_KEY.values() if not option.is_extension}
    assert len(flags - {BY_KEY[key].flag for key in FLAT_ONLY}) == 80


@pytest.mark.parametrize("key", sorted(FLAT_ONLY))
def test_alpha_rejects_flat_flag_and_key_and_ignores_variable(
    key: str, tmp_path: Path
) -> None:
    option = BY_KEY[key]
    value = {"bool": "true", "int": "1", "duration": "1s"}.get(option.kind, "x")
    message = "can't be used with --alpha-config; set it in that file"

    with pytest.raises(UsageError) as caught:
        settings(BASE, tmp_path, f"--{option.flag}={value}")
    assert caught.value.problems == (f"--{option.flag}: {message}",)

    loaded = settings(BASE, tmp_path, env={option.environment: value})
    assert f"{option.environment}: ignored as an option; {message}" in loaded.warnings

    file = tmp_path / "flat.cfg"
    file.write_text(f"{key} = '{value}'")
    [problem] = problems(BASE, tmp_path, f"--config={file}")
    assert problem == f"{key} ({file}:1): {message}"


def test_alpha_keeps_other_flat_options(tmp_path: Path) -> None:
    flags = ("--cookie-name=other", "--ssl-insecure-skip-verify", "--workers=3")
    loaded = settings(BASE, tmp_path, *flags)
    assert loaded.core.cookie.name == "other"
    assert loaded.client.insecure_skip_verify
    assert loaded.workers == 3


def test_alpha_emails_file_with_any_email_allowed_warns(tmp_path: Path) -> None:
    file = tmp_path / "emails"
    file.write_text("ann@example.com\n")
    flag = f"--authenticated-emails-file={file}"
    [warning] = settings(BASE, tmp_path, flag).warnings
    assert "has no effect with '*' in email_domains" in warning


def test_alpha_has_no_default_upstreams_headers_or_parameters(
    tmp_path: Path,
) -> None:
    core = settings(BASE, tmp_path).core
    assert core.upstreams == ()
    assert core.inject_request_headers == core.inject_response_headers == ()
    assert core.providers[0].login_parameters == ()


def test_alpha_minimal_session_conflicts_with_token_header(tmp_path: Path) -> None:
    header = (
        "injectRequestHeaders: [{name: X, values: [{claimSource: {claim: id_token}}]}]"
    )
    [problem] = problems(BASE + header, tmp_path, "--session-cookie-minimal")
    assert problem == (
        "session_cookie_minimal (--session-cookie-minimal): can't be used with "
        "injectRequestHeaders, which needs id_token"
    )


# Command line


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
def test_alpha_config_test_shows_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "alpha.yaml"
    file.write_text(BASE)
    assert main(["--config-test", "--alpha-config", str(file)]) == 0
    assert capsys.readouterr().out == "configuration is valid\n"

    file.write_text(BASE + "bogus: hidden-password")
    assert main(["--config-test", "--alpha-config", str(file)]) == 1
    output = capsys.readouterr().err
    assert f"bogus ({file}): unknown key" in output
    assert "hidden" not in output


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("other", ["--alpha-config=x", "--config-test"])
def test_convert_to_alpha_conflicts_with_other_control_flag(
    other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--convert-config-to-alpha", other]) == 1
    name = other.partition("=")[0]
    expected = f"--convert-config-to-alpha: can't be used with {name}"
    assert expected in capsys.readouterr().err
