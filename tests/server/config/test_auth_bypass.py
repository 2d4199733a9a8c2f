"""Options about what passes without a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.config.read.resolved import ConfigError
from support.certificates import make_certificate
from support.configuration import settings


def problem(*flags: str) -> str:
    """The one problem of *flags*."""
    with pytest.raises(ConfigError) as caught:
        settings(*flags)
    [text] = caught.value.problems
    return text


def test_rules_reach_the_gate() -> None:
    gate = settings(
        "--skip-auth-route=GET=^/a$,^/b$",
        "--skip-auth-regex=^/c$",
        "--skip-auth-preflight",
        "--api-route=^/api/",
        "--trusted-ip=192.0.2.0/24",
    ).core.auth_bypass
    assert gate.skip_auth_routes == ("GET=^/a$", "^/b$")
    assert gate.skip_auth_regex == ("^/c$",)
    assert gate.skip_auth_preflight
    assert gate.api_routes == ("^/api/",)
    assert gate.trusted_ips == ("192.0.2.0/24",)


@pytest.mark.parametrize(
    ("flag", "said"),
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
        ("--force-https", "no request could ever come over https"),
    ],
)
def test_bad_rules_stop_the_start(flag: str, said: str) -> None:
    name = flag.partition("=")[0]
    assert problem(flag).partition(": ")[2].startswith(said)
    assert f"({name})" in problem(flag)


def test_https_goes_to_the_port_of_its_address() -> None:
    gate = settings("--force-https", "--reverse-proxy").core.auth_bypass
    assert (gate.force_https, gate.https_port) == (True, 443)
    flags = ("--force-https", "--reverse-proxy", "--https-address=:8443")
    assert settings(*flags).core.auth_bypass.https_port == 8443
    flags = ("--force-https", "--reverse-proxy", "--https-address=-")
    assert settings(*flags).core.auth_bypass.https_port == 443


def test_what_may_let_too_much_pass_is_named() -> None:
    flags = ("--skip-auth-route=/a", "--skip-auth-regex=b", "--skip-auth-route=^/c")
    warnings = settings(*flags).warnings
    assert [text.partition(" ")[0] for text in warnings] == [
        "skip_auth_regex",
        "skip_auth_routes",
    ]
    assert all("is not anchored" in text for text in warnings)
    flags = ("--reverse-proxy", "--trusted-ip=192.0.2.7", "--trusted-proxy-ip=10.0.0.1")
    [about_gateways] = settings(*flags).warnings
    assert "X-Forwarded-Uri" in about_gateways


def test_https_goes_to_the_port_that_listens(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path, "localhost")
    gate = settings(
        "--force-https",
        "--https-address=127.0.0.1:9443",
        f"--tls-cert-file={certificate.cert_file}",
        f"--tls-key-file={certificate.key_file}",
    ).core.auth_bypass
    assert gate.https_port == 9443
