"""The option table: complete, consistent, applied and documented."""

from __future__ import annotations

import re
import ssl
import subprocess
import tomllib
import typing
from pathlib import Path
from types import MemberDescriptorType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from msgspec import Struct

from authproxy import __version__
from authproxy.config.help import COMMANDS, COMMON, common_help, full_help
from authproxy.config.options.option import Option
from authproxy.config.options.table import BY_KEY, CONTROL_OPTIONS, OPTIONS
from authproxy.config.read.values import format_duration
from authproxy.config.reference import markdown
from authproxy.server_settings import (
    LogFileSettings,
    LogSettings,
    ServerSettings,
    StoreSettings,
    TracingSettings,
)
from authproxy_core.settings import (
    CookieSettings,
    ProviderSettings,
    Settings,
    UpstreamSettings,
)
from authproxy_core.settings.credentials import CredentialSettings
from authproxy_core.settings.providers import (
    EntraIdSettings,
    GithubSettings,
    GoogleSettings,
    LoginGovSettings,
)
from support.certificates import make_certificate
from support.configuration import account_file, key_file, settings
from support.programs import ROOT, find

# Flags with another default than in oauth2-proxy.
OTHER_DEFAULTS = {"insecure-oidc-skip-nonce"}
TYPES = {
    "string": str,
    "bool": bool,
    "int": int,
    "duration": float,
    "list": tuple,
    "string-bool": bool,
}

# Flags that set an option to another value than its default, with required options.
SAMPLES: dict[str, tuple[str, ...]] = {
    "max_form_bytes": ("--max-form-bytes=4096",),
    "azure_graph_group_field": (
        "--azure-graph-group-field=name",
        "--provider=azure",
    ),
    "azure_tenant": ("--azure-tenant=contoso", "--provider=azure"),
    "bitbucket_repository": ("--bitbucket-repository=a/b", "--provider=bitbucket"),
    "bitbucket_team": ("--bitbucket-team=a", "--provider=bitbucket"),
    "bitbucket_workspace": ("--bitbucket-workspace=a", "--provider=bitbucket"),
    "entra_id_allowed_tenants": (
        "--entra-id-allowed-tenant=t",
        "--provider=entra-id",
    ),
    "github_org": ("--github-org=a", "--provider=github"),
    "github_repo": ("--github-repo=a/b", "--provider=github"),
    "github_team": ("--github-team=a:b", "--provider=github"),
    "github_token": ("--github-token=t", "--provider=github"),
    "github_users": ("--github-user=a", "--provider=github"),
    "gitlab_groups": ("--gitlab-group=a", "--provider=gitlab"),
    "gitlab_projects": ("--gitlab-project=a/b=30", "--provider=gitlab"),
    "pubjwk_url": ("--pubjwk-url=https://idp/k",),
    "access_rules_default": ("--access-rules-default=deny",),
    "allowed_roles": ("--allowed-role=admin", "--provider=keycloak-oidc"),
    "approval_prompt": ("--approval-prompt=auto",),
    "auth_logging_format": ("--auth-logging-format={{.Status}}",),
    "auth_request_response_mode": ("--auth-request-response-mode=form_post",),
    "auth_success_status": ("--auth-success-status=204",),
    "backchannel_logout": ("--backchannel-logout", "--session-revocation"),
    "backend_logout_url": ("--backend-logout-url=https://idp/end?t={id_token}",),
    "session_idle_timeout": ("--session-idle-timeout=30m",),
    "basic_auth_password": ("--basic-auth-password=p",),
    "code_challenge_method": ("--code-challenge-method=S256",),
    "cookie_csrf_per_request_limit": (
        "--cookie-csrf-per-request-limit=3",
        "--cookie-csrf-per-request",
    ),
    "cookie_csrf_samesite": ("--cookie-csrf-samesite=lax",),
    "cookie_format": ("--cookie-format=oauth2-proxy",),
    "cookie_path": ("--cookie-path=/x",),
    "cookie_samesite": ("--cookie-samesite=lax",),
    "cookie_secret": ("--cookie-secret=fedcba9876543210",),
    "cookie_secrets": ("--cookie-secrets=fedcba9876543210",),
    "custom_sign_in_logo": ("--custom-sign-in-logo=-",),
    "forbidden_session": ("--forbidden-session=clear",),
    "force_code_challenge_method": ("--force-code-challenge-method=S256",),
    "http_address": ("--http-address=127.0.0.1:8080",),
    "https_address": ("--https-address=127.0.0.1:8443",),
    "logging_format": ("--logging-format=json",),
    "metrics_address": ("--metrics-address=:9",),
    "metrics_secure_address": ("--metrics-secure-address=:9",),
    "login_url": ("--login-url=https://idp/a",),
    "oidc_enabled_signing_algs": ("--oidc-enabled-signing-alg=ES256",),
    "oidc_issuer_url": ("--oidc-issuer-url=https://idp/",),
    "oidc_jwks_url": ("--oidc-jwks-url=https://idp/a",),
    "profile_url": ("--profile-url=https://idp/a",),
    "provider": ("--provider=keycloak-oidc",),
    "proxy_prefix": ("--proxy-prefix=/auth",),
    "redeem_url": ("--redeem-url=https://idp/a",),
    "redis_ca_path": (f"--redis-ca-path={ssl.get_default_verify_paths().cafile}",),
    "redis_connection_url": ("--redis-connection-url=redis://other",),
    "redirect_url": ("--redirect-url=https://app/x",),
    "request_logging_format": ("--request-logging-format={{.Host}}",),
    "session_store_type": ("--session-store-type=sqlite", "--sqlite-path=/tmp/s.db"),
    "set_basic_auth": ("--set-basic-auth", "--basic-auth-password=p"),
    "shared_state": ("--shared-state=none",),
    "sqlite_path": ("--sqlite-path=/tmp/s.db",),
    "signature_key": ("--signature-key=sha256:key",),
    "skip_oidc_discovery": (
        "--skip-oidc-discovery",
        "--oidc-jwks-url=https://idp/a",
        "--login-url=https://idp/b",
        "--redeem-url=https://idp/c",
    ),
    "standard_logging_format": ("--standard-logging-format={{.Message}}",),
    "tls_cipher_suites": (
        "--tls-cipher-suite=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    "tls_min_version": ("--tls-min-version=TLS1.3",),
    "proxy_protocol_from": ("--proxy-protocol-from=10.0.0.0/8",),
    "extra_jwt_issuers": (
        "--extra-jwt-issuers=https://a.example=b",
        "--skip-jwt-bearer-tokens",
    ),
    "trusted_ips": ("--trusted-ip=10.0.0.0/8",),
    "trusted_proxy_ips": ("--trusted-proxy-ip=10.0.0.0/8",),
    "upstreams": ("--upstream=http://127.0.0.1:1/",),
    "websocket_origins": ("--websocket-origin=https://pages.example.com",),
    "validate_url": ("--validate-url=https://idp/a",),
    "workers": ("--workers=7",),
    "otlp_endpoint": ("--otlp-endpoint=http://127.0.0.1:4318",),
    "trace_sample_ratio": ("--trace-sample-ratio=0.5",),
}
REDIS = ("--session-store-type=redis", "--redis-connection-url=redis://r")
SENTINEL = (
    "--session-store-type=redis",
    "--redis-use-sentinel",
    "--redis-sentinel-master-name=m",
    "--redis-sentinel-connection-urls=redis://s",
)
CLUSTER = (
    "--session-store-type=redis",
    "--redis-use-cluster",
    "--redis-cluster-connection-urls=redis://c",
)
# Flags that an option requires to have an effect.
REQUIRED_FLAGS: dict[str, tuple[str, ...]] = {
    "force_https": ("--reverse-proxy",),
    "hsts_include_subdomains": ("--hsts-max-age=1h",),
    "pass_host_header": ("--upstream=http://127.0.0.1:1/",),
    "pass_user_headers": ("--pass-basic-auth=false",),
    "pass_basic_auth": ("--pass-user-headers=false",),
    "ssl_upstream_insecure_skip_verify": ("--upstream=http://127.0.0.1:1/",),
    "upstream_timeout": ("--upstream=http://127.0.0.1:1/",),
    "upstream_ca_files": ("--upstream=http://127.0.0.1:1/",),
    "proxy_websockets": ("--upstream=http://127.0.0.1:1/",),
    "disable_keep_alives": ("--upstream=http://127.0.0.1:1/",),
}


# They require environment variables; test_providers.py covers them.
COVERED_ELSEWHERE = {
    "entra_id_federated_token_auth",
    "google_use_application_default_credentials",
}


# Accepted for compatibility with oauth2-proxy.
WITHOUT_EFFECT = {"flush_interval"}


def applied_options() -> list[Option]:
    skipped = COVERED_ELSEWHERE | WITHOUT_EFFECT
    return [option for option in OPTIONS if option.key not in skipped]


def sample(option: Option, directory: Path) -> tuple[str, ...]:
    """Return flags that set *option* to another value than its default."""
    if option.key in SAMPLES:
        return SAMPLES[option.key]
    name = f"--{option.flag}"
    if option.key == "htpasswd_file":
        file = directory / "htpasswd"
        file.write_text("sam:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")
        return (f"{name}={file}",)
    if option.key.endswith("_connection_urls"):
        return (f"{name}=redis://other",)
    match option.default:
        case bool():
            return (f"{name}={'false' if option.default else 'true'}",)
        case int():
            return (f"{name}={option.default + 1}",)
        case float():
            return (f"{name}={format_duration(option.default + 1)}",)
    if option.key == "logging_filename":
        return (f"{name}={directory / 'log'}",)
    if option.key == "google_service_account_json":
        return (f"{name}={account_file(directory, 'two')}",)
    if option.key == "jwt_key":
        return (f"{name}={key_file(directory, 'two').read_text()}",)
    if option.key == "jwt_key_file":
        return (f"{name}={key_file(directory, 'two')}",)
    if option.key == "custom_templates_dir":
        (directory / "sign_in.html").write_text("<p>x</p>")
        return (f"{name}={directory}",)
    if option.key == "cookie_secrets_files":
        (directory / "secret").write_text("fedcba9876543210")
        return (f"{name}={directory / 'secret'}",)
    if option.key.endswith(("_file", "_files")):
        certificate = make_certificate(directory, "localhost")
        return (f"{name}={certificate.cert_file}",)
    return (f"{name}=sample",)


def required_flags(option: Option, directory: Path) -> tuple[str, ...]:
    flags = REQUIRED_FLAGS.get(option.key, ())
    if option.key.startswith("google_"):
        flags = (
            "--provider=google",
            f"--google-service-account-json={account_file(directory, 'one')}",
            "--google-admin-email=admin@example.com",
        )
    if option.key == "jwt_key":
        pem = key_file(directory, "one").read_text()
        flags = ("--provider=login.gov", f"--jwt-key={pem}")
    elif option.key in ("jwt_key_file", "pubjwk_url"):
        key = key_file(directory, "one")
        flags = ("--provider=login.gov", f"--jwt-key-file={key}")
    if option.key.startswith("redis_use_"):
        flags = (*REDIS, *SENTINEL[2:], *CLUSTER[2:])
    elif option.key.startswith("redis_sentinel_"):
        flags = SENTINEL
    elif option.key.startswith("redis_cluster_"):
        flags = CLUSTER
    elif option.key.startswith("redis_"):
        flags = REDIS
    if option.flag.startswith(("tls-", "https-", "http2")):
        certificate = make_certificate(directory, "localhost")
        flags = (
            f"--tls-cert-file={certificate.cert_file}",
            f"--tls-key-file={certificate.key_file}",
        )
    if option.field_of(LogFileSettings):
        flags = (f"--logging-filename={directory / 'log'}",)
    if option.key == "metrics_secure_address":
        certificate = make_certificate(directory, "localhost")
        flags = (
            f"--metrics-tls-cert-file={certificate.cert_file}",
            f"--metrics-tls-key-file={certificate.key_file}",
        )
    if option.key in ("client_secret_file", "cookie_secret_file"):
        flags = (f"--{option.flag.removesuffix('-file')}=",)
    return flags


def field_values(value: object, option: Option) -> list[object]:
    """Return the values in *value* of the field that *option* sets."""
    if isinstance(value, tuple):
        return [found for item in value for found in field_values(item, option)]
    if not isinstance(value, Struct):
        return []
    found: list[object] = []
    for name in value.__struct_fields__:
        field = getattr(value, name)
        if name == option.field_of(type(value)):
            found.append(field)
        found += field_values(field, option)
    return found


@pytest.mark.parametrize("option", applied_options(), ids=lambda option: option.key)
def test_option_changes_its_settings_field(option: Option, tmp_path: Path) -> None:
    if option.key.endswith(("tls_cert_file", "tls_key_file")):
        certificate = make_certificate(tmp_path, "localhost")
        prefix = "metrics-" if option.key.startswith("metrics_") else ""
        changed = settings(
            f"--{prefix}tls-cert-file={certificate.cert_file}",
            f"--{prefix}tls-key-file={certificate.key_file}",
            "--metrics-secure-address=:9",
            *required_flags(BY_KEY["metrics_secure_address"], tmp_path),
        )
        assert changed.listeners != settings().listeners
        return
    if option.key in ("client_secret_file", "cookie_secret_file"):
        file = tmp_path / "secret"
        file.write_text("fedcba9876543210")
        value = f"--{option.flag}={file}"
        changed = settings(value, *required_flags(option, tmp_path))
        assert field_values(changed, option) != field_values(settings(), option)
        return
    common = required_flags(option, tmp_path)
    before = settings(*common)
    after = settings(*common, *sample(option, tmp_path))
    if option.key == "upstreams":
        assert (before.core.upstreams, len(after.core.upstreams)) == ((), 1)
    else:
        assert field_values(after, option) != field_values(before, option)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_option_row_is_complete(option: Option) -> None:
    assert isinstance(option.default, TYPES[option.kind])
    assert option.help
    assert not option.help.endswith(".")
    assert option.environment == f"OAUTH2_PROXY_{option.key.upper()}"
    has_field = isinstance(option.setting, MemberDescriptorType)
    assert has_field != (option.key in WITHOUT_EFFECT)


# Fields that are built from options of another type: a path becomes the content of the
# file, several options become one value.
BUILT: set[object] = {
    TracingSettings.headers,
    TracingSettings.sample_ratio,
    CookieSettings.secrets,
    CredentialSettings.jwt_issuers,
    CredentialSettings.users,
    EntraIdSettings.federated_token,
    GithubSettings.token,
    GoogleSettings.credentials,
    LogSettings.exclude_paths,
    LogSettings.file,
    LoginGovSettings.jwt_key,
    ProviderSettings.client_secret,
    ProviderSettings.login_parameters,
    ServerSettings.listeners,
    ServerSettings.store,
    Settings.authenticated_emails,
    Settings.hsts,
    Settings.inject_request_headers,
    Settings.inject_response_headers,
    Settings.pages,
    Settings.signature_key,
    Settings.upstreams,
    StoreSettings.redis,
    UpstreamSettings.ca_pem,
}


def plain_type(hint: Any) -> Any:
    """Return *hint* without bounds and choices."""
    match get_origin(hint), get_args(hint):
        case (typing.Annotated, (bounded, *_)):
            return plain_type(bounded)
        case (typing.Literal, (choice, *_)):
            return type(choice)
    return hint


def is_plain(option: Option) -> bool:
    """Return whether the settings field of *option* has the type of its values."""
    field = option.setting
    if option.key in WITHOUT_EFFECT:
        return field is None
    assert isinstance(field, MemberDescriptorType)
    hints = get_type_hints(field.__objclass__, include_extras=True)
    kind = TYPES[option.kind]
    return plain_type(hints[field.__name__]) == (
        tuple[str, ...] if kind is tuple else kind
    )


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_option_kind_fits_type_of_settings_field(option: Option) -> None:
    assert is_plain(option) or option.setting in BUILT


def test_built_fields_have_options_of_another_type() -> None:
    assert {option.setting for option in OPTIONS if not is_plain(option)} == BUILT


def test_option_names_are_unique() -> None:
    assert len(BY_KEY) == len(OPTIONS)
    flags = [option.flag for option in (*OPTIONS, *CONTROL_OPTIONS)]
    assert {flag for flag in flags if flags.count(flag) > 1} == {"google-group"}


def test_options_include_all_169_of_oauth2_proxy() -> None:
    assert sum(not option.is_extension for option in OPTIONS) == 169


def test_secret_options_are_marked() -> None:
    pattern = re.compile(r"secret|password|token$|jwt_key$|signature_key")
    assert {
        option.key
        for option in OPTIONS
        if pattern.search(option.key)
        and not option.key.endswith(("_file", "_files"))
        and option.kind in ("string", "list")
    } <= {option.key for option in OPTIONS if option.secret}


def test_options_md_is_generated_from_table() -> None:
    assert (ROOT / "docs" / "options.md").read_text() == markdown()


def test_common_help_fits_a_screen_and_names_the_rest() -> None:
    lines = common_help().splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert all(f"authproxy {name} " in common_help() for name in COMMANDS)
    assert "--help-all" in common_help()
    assert {f"  --{BY_KEY[key].flag}" for key in COMMON} <= {
        line[:30].rstrip() for line in lines
    }


def test_full_help_lists_every_flag() -> None:
    text = full_help()
    assert "[extension]   not in oauth2-proxy" in text
    for option in (*OPTIONS, *CONTROL_OPTIONS):
        assert f"\n  --{option.flag}" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_version_equals_project_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert __version__ == project["version"]


@pytest.mark.peers
def test_flags_and_defaults_equal_oauth2_proxy() -> None:
    program = find("oauth2-proxy")
    if program is None:
        pytest.skip("oauth2-proxy isn't installed")
    text = subprocess.run(
        [program, "--help"], capture_output=True, text=True, timeout=20, check=True
    ).stderr
    found = re.findall(
        r'^ +--([a-z0-9-]+)\b.*?(?:\(default (?:"(.*)"|\[(.*)\]|(\S+))\))?$', text, re.M
    )
    defaults = {name: "".join(groups) for name, *groups in found}
    own_defaults = {
        option.flag: default_as_go(option)
        for option in (*OPTIONS, *CONTROL_OPTIONS)
        if not option.is_extension
    }
    for name in SINCE_7_15_5 - defaults.keys():
        del own_defaults[name]
    assert defaults.keys() == own_defaults.keys()
    zeros = {"false": "", "0": "", "0s": ""}
    differing = {
        name
        for name, default in defaults.items()
        if zeros.get(default, default)
        != zeros.get(own_defaults[name], own_defaults[name])
    }
    assert differing == OTHER_DEFAULTS


SINCE_7_15_5 = {"bitbucket-workspace"}  # flags that older versions do not have


def default_as_go(option: Option) -> str:
    match option.default:
        case bool():
            return "true" if option.default else "false"
        case float():
            return format_duration(option.default)
        case tuple():
            return ",".join(option.default)
    return str(option.default)
