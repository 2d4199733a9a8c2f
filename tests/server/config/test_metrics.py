"""Options of the metrics endpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.server_settings import Listener
from support.certificates import make_certificate
from support.configuration import problems, settings


def metrics(*flags: str) -> list[Listener]:
    return [listener for listener in settings(*flags).listeners if listener.metrics]


@pytest.mark.parametrize("address", ["", "-"])
def test_metrics_address_off(address: str) -> None:
    assert metrics(f"--metrics-address={address}") == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (":9100", Listener(port=9100, metrics=True)),
        ("http://[::1]:9100", Listener(host="::1", port=9100, metrics=True)),
        ("unix:///m,mode=0600", Listener(path="/m", mode=0o600, metrics=True)),
    ],
)
def test_metrics_address_forms(address: str, expected: Listener) -> None:
    assert metrics(f"--metrics-address={address}") == [expected]


def test_metrics_plain_and_tls_listener(tmp_path: Path) -> None:
    cert = make_certificate(tmp_path, "localhost")
    plain, secure = metrics(
        "--metrics-address=:1",
        "--metrics-secure-address=https://127.0.0.1:2",
        f"--metrics-tls-cert-file={cert.cert_file}",
        f"--metrics-tls-key-file={cert.key_file}",
    )
    assert (plain.port, plain.tls, secure.port, secure.host) == (
        1,
        None,
        2,
        "127.0.0.1",
    )
    assert secure.tls is not None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("--metrics-address=9100",),
            [
                "metrics_address (--metrics-address): got '9100', expected HOST:PORT, "
                "unix://PATH[,mode=0660] or '-'"
            ],
        ),
        (
            ("--metrics-address=unix://,mode=9",),
            [
                "metrics_address (--metrics-address): got 'unix://', expected a path "
                "after unix://",
                "metrics_address (--metrics-address): got '9', expected an octal mode "
                "such as 0660",
            ],
        ),
        (
            ("--metrics-secure-address=x",),
            [
                "metrics_tls_cert_file: missing; metrics_secure_address requires a "
                "certificate and its key",
                "metrics_tls_key_file: missing; metrics_secure_address requires a "
                "certificate and its key",
                "metrics_secure_address (--metrics-secure-address): got 'x', expected "
                "HOST:PORT",
            ],
        ),
    ],
)
def test_metrics_options_invalid_rejected(
    flags: tuple[str, ...], expected: list[str]
) -> None:
    assert list(problems(*flags)) == expected


def test_metrics_certificate_missing_rejected() -> None:
    [problem] = problems(
        "--metrics-secure-address=:2",
        "--metrics-tls-cert-file=/missing/c",
        "--metrics-tls-key-file=/missing/k",
    )
    assert problem == (
        "metrics_tls_cert_file: can't read /missing/c: No such file or directory"
    )


def test_metrics_certificate_without_address_warns() -> None:
    assert settings("--metrics-tls-cert-file=/c").warnings == (
        "metrics_tls_cert_file (--metrics-tls-cert-file): has no effect without "
        "metrics_secure_address",
    )
