"""`--convert-config-to-alpha`: the same document and settings as oauth2-proxy."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from authproxy.commands.cli import main
from authproxy.config.alpha.convert import convert_to_alpha
from authproxy.config.alpha.substitute import substitute_variables
from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError
from authproxy.config.read.sources import parse_flags
from support.programs import find

ENV = {
    "OAUTH2_PROXY_CLIENT_ID": "web",
    "OAUTH2_PROXY_CLIENT_SECRET": "hidden-client-secret",
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
    "OAUTH2_PROXY_OIDC_ISSUER_URL": "https://idp.example.com/realms/r",
    "OAUTH2_PROXY_PROVIDER": "oidc",
    "OAUTH2_PROXY_BASIC_AUTH_PASSWORD": "",
    "OAUTH2_PROXY_INSECURE_OIDC_SKIP_NONCE": "false",
}
PASSWORD = {"OAUTH2_PROXY_BASIC_AUTH_PASSWORD": "hidden-password"}

SAMPLES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "defaults": ((), {}),
    "upstreams": (("--upstream=http://127.0.0.1:1/a/", "--upstream=https://h",
                   "--upstream=unix:///run/x.sock", "--upstream=static://202",
                   "--pass-host-header=false", "--flush-interval=-1ns",
                   "--upstream-timeout=90s", "--proxy-websockets=false",
                   "--ssl-upstream-insecure-skip-verify", "--disable-keep-alives"), {}),
    "files": (("--upstream=file:///dev/null", "--upstream=file:///srv/#/www/",
               "--upstream=file:///srv/www/"), {}),
    "static without a code": (("--upstream=static://x",), {}),
    "response headers": (("--set-xauthrequest", "--pass-access-token",
                 "--set-authorization-header", "--pass-user-headers=false"), {}),
    "basic": (("--set-basic-auth", "--set-xauthrequest"), PASSWORD),
    "email as user": (("--prefer-email-to-user", "--set-basic-auth"), PASSWORD),
    "no headers": (("--pass-basic-auth=false", "--pass-user-headers=false"), {}),
    "tokens": (("--pass-authorization-header", "--pass-access-token",
                "--skip-auth-strip-headers=false"), {}),
    "tls": (("--tls-cert-file=/a/c$.pem", "--tls-key-file=/a/k.pem",
             "--tls-min-version=TLS1.3", "--https-address=:8443",
             "--tls-cipher-suite=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), {}),
    "certificate only": (("--tls-cert-file=/a/c.pem",), {}),
    "no address": (("--http-address=",), {}),
    "metrics": (("--metrics-address=:9100", "--metrics-secure-address=:9101",
                 "--metrics-tls-cert-file=/c", "--metrics-tls-key-file=/k"), {}),
    "keycloak": (("--provider=keycloak-oidc", "--allowed-role=admin",
                  "--keycloak-group=g", "--allowed-group=a,b",
                  "--provider-display-name=Key & Cloak", "--scope=openid"), {}),
    "old keycloak": (("--provider=keycloak", "--keycloak-group=g"), {}),
    "github": (("--provider=github", "--github-org=o", "--github-team=t,u",
                "--github-user=me", "--github-repo=r"), {}),
    "gitlab": (("--provider=gitlab", "--gitlab-group=g", "--gitlab-project=p=30"), {}),
    "google": (("--provider=google", "--google-group=g", "--google-admin-email=a@b.c",
                "--google-use-organization-id=true"), {}),
    "old google group": (("--provider=google",), {"OAUTH2_PROXY_GOOGLE_GROUP": "old"}),
    "azure": (("--provider=azure", "--azure-tenant=t", "--resource=r",
               "--azure-graph-group-field=f"), {}),
    "entra": (("--provider=entra-id", "--entra-id-allowed-tenant=t"), {}),
    "bitbucket": (("--provider=bitbucket", "--bitbucket-team=t"), {}),
    "login.gov": (("--provider=login.gov", "--jwt-key-file=/k",
                   "--pubjwk-url=https://j/"), {}),
    "of another type": (("--github-org=o", "--gitlab-group=g", "--jwt-key-file=/k"), {}),
    "oidc": (("--oidc-email-claim=upn", "--oidc-groups-claim=roles",
              "--user-id-claim=sub", "--oidc-audience-claim=azp",
              "--oidc-extra-audience=x", "--skip-oidc-discovery",
              "--oidc-jwks-url=https://i/j", "--oidc-enabled-signing-alg=ES256",
              "--insecure-oidc-allow-unverified-email",
              "--insecure-oidc-skip-issuer-verification"), {}),
    "addresses": (("--login-url=https://i/a", "--redeem-url=https://i/b",
                   "--profile-url=https://i/c", "--validate-url=https://i/d",
                   "--provider-ca-file=/ca", "--use-system-trust-store",
                   "--skip-claims-from-profile-url"), {}),
    "login parameters": (("--prompt=login", "--acr-values=1 2",
                          "--approval-prompt=auto"), {}),
    "approval": (("--approval-prompt=auto", "--code-challenge-method=S256"), {}),
    "old name of PKCE": (("--force-code-challenge-method=plain",
                          "--auth-request-response-mode=form_post"), {}),
    "dollars": (("--provider-display-name=$HOME and ${X} and $1",), {}),
}  # fmt: skip


def convert(*flags: str, env: dict[str, str]) -> str:
    return convert_to_alpha(parse_flags(flags), env)[0]


def read(text: str, env: dict[str, str]) -> Any:
    """Parse the document, with secrets substituted as oauth2-proxy prints them."""
    document = yaml.safe_load(substitute_variables(text, env))
    for key in ("injectRequestHeaders", "injectResponseHeaders"):
        for header in document.get(key, ()):
            for value in header["values"]:
                password = value["claimSource"].get("basicAuthPassword", {})
                if "fromEnv" in password:
                    secret = env[password.pop("fromEnv")]
                    password["value"] = list(secret.encode())
    return document


@pytest.mark.peers
@pytest.mark.parametrize("name", SAMPLES)
def test_convert_to_alpha_equals_oauth2_proxy(name: str) -> None:
    program = find("oauth2-proxy")
    if program is None:
        pytest.skip("oauth2-proxy isn't installed")
    flags, more = SAMPLES[name]
    env = {**ENV, **more}
    run = subprocess.run(
        [program, "--convert-config-to-alpha", *flags],
        env=env,
        capture_output=True,
        timeout=20,
        check=True,
    )

    assert read(convert(*flags, env=env), env) == yaml.safe_load(run.stdout)


@pytest.mark.parametrize(
    "name",
    ["defaults", "upstreams", "response headers", "basic", "email as user", "no headers",
     "tokens", "keycloak", "oidc", "login parameters", "approval", "dollars"],
)  # fmt: skip
def test_convert_to_alpha_keeps_settings(name: str, tmp_path: Path) -> None:
    flags, more = SAMPLES[name]
    if name == "upstreams":  # two of them share a path
        flags = tuple(
            flag for flag in flags if "static" not in flag and "unix" not in flag
        )
    if name == "oidc":
        flags += ("--login-url=https://i/a", "--redeem-url=https://i/b")
    env = {**ENV, **more}
    file = tmp_path / "alpha.yaml"
    file.write_text(convert(*flags, env=env))

    flat, alpha = (
        load_settings(flags, env),
        load_settings([f"--alpha-config={file}"], env),
    )

    replace = msgspec.structs.replace
    for rules in ("inject_request_headers", "inject_response_headers"):
        for flat_rule, alpha_rule in zip(
            getattr(flat.core, rules), getattr(alpha.core, rules), strict=True
        ):
            values = tuple(
                replace(value, prefix="")  # ignored with a password
                if value.basic_auth_password is not None
                else value
                for value in alpha_rule.values
            )
            assert replace(alpha_rule, values=values) == flat_rule
    assert alpha.core.providers == flat.core.providers
    assert alpha.core.upstreams == flat.core.upstreams
    assert alpha.listeners == flat.listeners
    assert alpha.client == flat.client


def test_convert_to_alpha_prints_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "flat.cfg"
    file.write_text(
        "client_secret = 'hidden-1'\nbasic_auth_password = 'hidden-2'\n"
        "provider = 'github'\ngithub_token = 'hidden-3'\nset_basic_auth = true\n"
    )
    monkeypatch.delenv("OAUTH2_PROXY_CLIENT_SECRET", raising=False)
    assert main(["--convert-config-to-alpha", "--config", str(file)]) == 0
    printed = capsys.readouterr()
    assert "hidden" not in printed.out + printed.err
    assert "clientSecret: '${OAUTH2_PROXY_CLIENT_SECRET}'" in printed.out
    assert "fromEnv: OAUTH2_PROXY_BASIC_AUTH_PASSWORD" in printed.out
    assert (
        f"warning: client_secret ({file}:1): not printed; set "
        "OAUTH2_PROXY_CLIENT_SECRET for the alpha file" in printed.err
    )


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--upstream=http://[x",), "upstreams (--upstream): got 'http://[x'"),
        (
            ("--set-basic-auth",),
            "set_basic_auth (--set-basic-auth): requires basic_auth_password",
        ),
    ],
)
def test_convert_to_alpha_reports_problems(
    flags: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(*flags, env=ENV)
    assert any(problem in line for line in caught.value.problems)
