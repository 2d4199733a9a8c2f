"""TLS contexts: listeners, identity provider, upstreams."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from authproxy_core.errors import SettingsError
from authproxy_core.messages import Upstream
from authproxy_core.settings.root import Secret

from ..server_settings import ClientSettings, TlsSettings

OPEN_FILES = "/proc/self/fd"
VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}


class ListenerContext(ssl.SSLContext):
    """The context of a listener, its settings, and its chain and key as PEM.

    OpenSSL seals session tickets with keys that it creates with a context, so workers
    resume each other's sessions if the context is older than their fork. `renew` keeps
    it, and with it the tickets of all clients, over a reload.
    """

    settings: TlsSettings
    chain: Secret
    key: Secret

    def load(self, chain: Secret, key: Secret) -> None:
        """Use *chain* and *key* from the next handshake on; raises ssl.SSLError."""
        with _private_file(chain) as chain_file, _private_file(key) as key_file:
            # The empty password lets an encrypted key fail instead of prompting.
            self.load_cert_chain(chain_file, key_file, password="")
        self.chain, self.key = chain, key

    def renew(self, fresh: ListenerContext) -> ListenerContext:
        """Return `self` with the certificate of *fresh*, or *fresh* if more differs."""
        same = replace(
            fresh.settings,
            cert_file=self.settings.cert_file,
            key_file=self.settings.key_file,
            pem=self.settings.pem,
        )
        if same != self.settings:
            return fresh
        if (self.chain, self.key) != (fresh.chain, fresh.key):
            try:
                # A context has one certificate for each type of key.
                if _key_type(self.chain) != _key_type(fresh.chain):
                    return fresh
                self.load(fresh.chain, fresh.key)
            except (OSError, ValueError):
                return fresh
        self.settings = fresh.settings
        return self


def _key_type(chain: Secret) -> str:
    """Return the type of the certificate's key, as a dotted object identifier."""
    from cryptography import x509

    certificate = x509.load_pem_x509_certificate(chain.value)
    return certificate.public_key_algorithm_oid.dotted_string


def server_context(settings: TlsSettings) -> ListenerContext:
    """Return the context of a listener.

    Raises OSError (unreadable file) and ssl.SSLError (invalid certificate or key).
    """
    context = ListenerContext(ssl.PROTOCOL_TLS_SERVER)
    context.settings = settings
    context.minimum_version = VERSIONS[settings.min_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["h2", "http/1.1"] if settings.http2 else ["http/1.1"])
    if settings.cipher_suites:  # for TLS 1.2; those of TLS 1.3 are always enabled
        context.set_ciphers(":".join(settings.cipher_suites))
    if settings.pem:
        context.load(settings.pem, settings.pem)
    else:
        files = Path(settings.cert_file), Path(settings.key_file)
        context.load(*(Secret(file.read_bytes()) for file in files))
    return context


def renew_context(
    current: ListenerContext | None, fresh: ListenerContext | None
) -> ListenerContext | None:
    """Return the context for a listener that has *current* and reloads *fresh*."""
    return current.renew(fresh) if current and fresh else fresh


def client_context(settings: ClientSettings, *, verify: bool = True) -> ssl.SSLContext:
    """Return the context for the identity provider: TLS 1.2 or later, HTTP/1.1.

    With ``ca_files`` only these CAs are trusted, and the system trust store only if
    ``use_system_trust_store`` is set. Raises `SettingsError`, which names an unreadable
    file.
    """
    first, *others = settings.ca_files or ("",)
    path = first
    try:
        context = ssl.create_default_context(cafile=first or None)
        for path in others:
            context.load_verify_locations(cafile=path)
    except OSError as error:
        problem = f"provider_ca_files: can't read certificates from {path!r}: "
        raise SettingsError((problem + (error.strerror or "not PEM"),)) from None
    if settings.use_system_trust_store and first:
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if settings.insecure_skip_verify or not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def upstream_context(upstream: Upstream) -> ssl.SSLContext:
    """Return the context for *upstream*, with its HTTP version and CA certificates.

    Raises `SettingsError` for malformed CA certificates.
    """
    try:
        context = ssl.create_default_context(cadata=upstream.ca_pem or None)
    except (ssl.SSLError, ValueError):
        problem = f"upstreams: {upstream.id!r}: its CA certificates are not PEM"
        raise SettingsError((problem,)) from None
    if upstream.ca_pem and upstream.trust_system:
        context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2" if upstream.http2 else "http/1.1"])
    if not upstream.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@contextmanager
def _private_file(content: Secret) -> Iterator[str]:
    """Yield the path of a private file with *content*: OpenSSL reads keys from files.

    It is in memory if the system supports that, because no directory may be writable.
    """
    with _anonymous_file() as file:
        file.write(content.value)
        file.flush()
        yield file.name if isinstance(file.name, str) else f"{OPEN_FILES}/{file.name}"


def _anonymous_file() -> IO[bytes]:
    """Return a new file; the name of one in memory is its descriptor."""
    if hasattr(os, "memfd_create") and os.path.isdir(OPEN_FILES):
        return open(os.memfd_create("certificate"), "wb")
    import tempfile  # slow, and not needed on Linux

    return tempfile.NamedTemporaryFile()
