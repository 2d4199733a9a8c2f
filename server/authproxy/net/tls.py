"""TLS of the listeners."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from authproxy_core.settings.root import Secret

from ..server_settings import TlsSettings

VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """A context for a listener.

    Raises OSError (unreadable files), ssl.SSLError (bad certificate or key), KeyError
    (unknown version).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[settings.min_version or "TLS1.2"]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    if settings.cipher_suites:  # of TLS 1.2; those of 1.3 are always on
        context.set_ciphers(":".join(settings.cipher_suites))
    # An encrypted key fails instead of asking on the terminal.
    if settings.pem:
        with _private_file(settings.pem) as path:
            context.load_cert_chain(path, password="")
    else:
        context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    return context


@contextmanager
def _private_file(content: Secret) -> Iterator[str]:
    """A file of nobody else with *content*: OpenSSL reads nothing but files here."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content.value)
        file.flush()
        yield file.name
