"""TLS contexts of listeners over a reload."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from authproxy.net.tls import renew_context, server_context
from authproxy.server_settings import TlsSettings
from authproxy_core.settings.root import Secret
from support.certificates import make_certificate


def tls_settings(folder: Path, *, rsa: bool = False) -> TlsSettings:
    folder.mkdir()
    certificate = make_certificate(folder, "a.example", rsa=rsa)
    return TlsSettings(cert_file=certificate.cert_file, key_file=certificate.key_file)


def test_renew_context_same_kind_of_certificate_keeps_the_context(
    tmp_path: Path,
) -> None:
    old, new = (tls_settings(tmp_path / name) for name in ("old", "new"))
    current = server_context(old)
    assert renew_context(current, server_context(old)) is current
    fresh = server_context(new)
    assert renew_context(current, fresh) is current
    assert (current.settings, current.chain) == (new, fresh.chain)
    pem = Path(old.cert_file).read_bytes() + Path(old.key_file).read_bytes()
    from_pem = server_context(replace(old, pem=Secret(pem)))
    assert renew_context(current, from_pem) is current
    assert current.chain == Secret(pem)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_version": "TLS1.3"},
        {"http2": False},
        {"cipher_suites": ("ECDHE-RSA-AES128-GCM-SHA256",)},
    ],
)
def test_renew_context_other_settings_replace_the_context(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = tls_settings(tmp_path / "one")
    current, fresh = map(server_context, (settings, replace(settings, **changes)))
    assert renew_context(current, fresh) is fresh
    assert renew_context(None, fresh) is fresh
    assert renew_context(current, None) is None


def test_renew_context_other_type_of_key_replaces_the_context(tmp_path: Path) -> None:
    """The old certificate would stay in the context beside the new one."""
    current = server_context(tls_settings(tmp_path / "ec"))
    fresh = server_context(tls_settings(tmp_path / "rsa", rsa=True))
    assert renew_context(current, fresh) is fresh


def test_renew_context_certificate_that_fails_replaces_the_context(
    tmp_path: Path,
) -> None:
    current, fresh = (
        server_context(tls_settings(tmp_path / name)) for name in ("old", "new")
    )
    fresh.key = current.key
    assert renew_context(current, fresh) is fresh
