"""Options of requests that bypass authentication, and of HTTPS."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.config.read.resolved import ConfigError
from support.certificates import make_certificate
from support.configuration import settings


def problem(*flags: str) -> str:
    """Return the only problem of *flags*."""
    with pytest.raises(ConfigError) as caught:
        settings(*flags)
    [text] = caught.value.problems
    return text


def test_auth_bypass_options_are_set() -> None:
    bypass = settings(
        "--skip-auth-route=GET=^/a$,^/b$",
        "--skip-auth-regex=^/c$",
        "--skip-auth-preflight",
        "--api-route=^/api/",
        "--trusted-ip=192.0.2.0/24",
    ).core.auth_bypass
    assert bypass.skip_auth_routes == ("GET=^/a$", "^/b$")
    assert bypass.skip_auth_regex == ("^/c$",)
    assert bypass.skip_auth_preflight
    assert bypass.api_routes == ("^/api/",)
    assert bypass.trusted_ips == ("192.0.2.0/24",)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--skip-auth-route=GET=^/a(",
            "got '^/a(', expected a regular expression in Go",
        ),
        ("--skip-auth-regex=(?=a)", "got '(?=a)', expected a regular expression in Go"),
        ("--api-route=[", "got '[', expected a regular expression in Go"),
        (
            "--trusted-ip=192.0.2.7/24",
            "got '192.0.2.7/24', expected an address or a net",
        ),
        ("--force-https", "no request can arrive over HTTPS"),
    ],
)
def test_auth_bypass_invalid_option_rejected(flag: str, message: str) -> None:
    name = flag.partition("=")[0]
    assert problem(flag).partition(": ")[2].startswith(message)
    assert f"({name})" in problem(flag)


def test_force_https_port_from_https_address() -> None:
    bypass = settings("--force-https", "--reverse-proxy").core.auth_bypass
    assert (bypass.force_https, bypass.https_port) == (True, 443)
    flags = ("--force-https", "--reverse-proxy", "--https-address=:8443")
    assert settings(*flags).core.auth_bypass.https_port == 8443
    flags = ("--force-https", "--reverse-proxy", "--https-address=-")
    assert settings(*flags).core.auth_bypass.https_port == 443


def test_auth_bypass_unanchored_patterns_warn() -> None:
    flags = ("--skip-auth-route=/a", "--skip-auth-regex=b", "--skip-auth-route=^/c")
    warnings = settings(*flags).warnings
    assert [text.partition(" ")[0] for text in warnings] == [
        "skip_auth_regex",
        "skip_auth_routes",
    ]
    assert all("is not anchored" in text for text in warnings)
    flags = ("--reverse-proxy", "--trusted-ip=192.0.2.7", "--trusted-proxy-ip=10.0.0.1")
    [gateway_warning] = settings(*flags).warnings
    assert "X-Forwarded-Uri" in gateway_warning


def test_access_rules_that_other_hosts_skip_warn(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    rule = '[[access_rules]]\nhosts = ["a.example"]\npolicy = "deny"\n'
    file.write_text(rule)
    [warning] = settings(file=file).warnings
    assert warning.startswith("access_rules_default: a request with another Host")
    file.write_text(f'access_rules_default = "deny"\n{rule}')
    assert settings(file=file).warnings == ()


@pytest.mark.parametrize(
    ("flag", "option"),
    [
        ("--skip-auth-route=^/a$,", "skip_auth_routes"),
        ("--skip-auth-regex=^/a$,", "skip_auth_regex"),
        ("--email-domain=a.example,", "email_domains"),
        ("--trusted-ip=192.0.2.7,", "trusted_ips"),
    ],
)
def test_surplus_comma_is_error(flag: str, option: str) -> None:
    assert problem(flag).startswith(f"{option} ({flag.partition('=')[0]}): got ")
    name, value = f"OAUTH2_PROXY_{option.upper()}", flag.partition("=")[2]
    with pytest.raises(ConfigError) as caught:
        settings(env={name: value})
    [text] = caught.value.problems
    assert text.startswith(f"{option} ({name}): got ")


def test_unix_gateway_that_is_not_trusted_warns() -> None:
    flags = ("--reverse-proxy", "--http-address=unix:///run/x", "--trusted-proxy-ip")
    [warning] = settings(*flags[:2], f"{flags[2]}=10.0.0.1").warnings
    assert warning.startswith(
        "trusted_proxy_ips (--trusted-proxy-ip): does not contain"
    )
    assert settings(*flags[:2], f"{flags[2]}=10.0.0.1,unix").warnings == ()


def test_force_https_port_from_tls_listener(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    bypass = settings(
        "--force-https",
        "--https-address=127.0.0.1:9443",
        f"--tls-cert-file={certificate.cert_file}",
        f"--tls-key-file={certificate.key_file}",
    ).core.auth_bypass
    assert bypass.https_port == 9443
