"""The options about listeners."""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from ...net.proxy_protocol import UNIX
from ...server_settings import Listener, TlsSettings
from ..read.resolved import ResolvedOptions
from .ciphers import OPENSSL_NAMES

OFF = ("", "-")
MAX_PORT = 65535
MAX_DESCRIPTOR = 1 << 20


def listeners(collected: ResolvedOptions) -> tuple[Listener, ...]:
    """Plain text, or TLS alone as soon as a certificate or a key is given."""
    cert, key = collected.string("tls_cert_file"), collected.string("tls_key_file")
    if not cert and not key:
        return _plain(collected)
    if not cert or not key:
        missing = "tls_key_file" if cert else "tls_cert_file"
        collected.add_problem(missing, "missing; a certificate and its key go together")
        return ()
    return _secure(collected, cert, key)


def _plain(collected: ResolvedOptions) -> tuple[Listener, ...]:
    key = "http_address"
    address = collected.string(key)
    if address in OFF:
        collected.add_problem(
            key, "off, and no tls_cert_file is given: nothing would listen"
        )
    elif address.startswith("unix://"):
        path, mode = unix_socket(collected, key, address.removeprefix("unix://"))
        return (Listener(path=path, mode=mode),)
    elif address.lower().startswith("fd:"):
        if descriptor := _descriptor(collected, key, address):
            return (Listener(descriptor=descriptor),)
    elif found := host_port(address.removeprefix("http://")):
        return (Listener(host=found[0], port=found[1]),)
    else:
        expected = "HOST:PORT, fd:N, unix://PATH[,mode=0660] or '-'"
        collected.add_mismatch(key, address, expected)
    return ()


def _descriptor(collected: ResolvedOptions, key: str, address: str) -> int | None:
    """N of ``fd:N``: a socket that systemd has opened; the first one is 3."""
    text = address[len("fd:") :]
    if text.isascii() and text.isdigit() and 3 <= int(text) <= MAX_DESCRIPTOR:
        return int(text)
    collected.add_mismatch(
        key, address, "fd:N with a number from 3, for systemd's first socket"
    )
    return None


def proxy_protocol_sources(collected: ResolvedOptions) -> tuple[str, ...]:
    """Who has to announce clients by the PROXY protocol."""
    key = "proxy_protocol_from"
    entries = collected.strings(key)
    for entry in entries:
        try:
            if entry != UNIX:
                ipaddress.ip_network(entry)
        except ValueError:
            collected.add_mismatch(
                key, entry, "an address, a network such as 10.0.0.0/8, or unix"
            )
    return () if key in collected.failed else entries


def unix_socket(
    collected: ResolvedOptions, key: str, text: str
) -> tuple[str, int | None]:
    """Path and mode of a socket; of the options behind the path only mode counts."""
    path, *options = text.split(",")
    mode = None
    if not path:
        collected.add_mismatch(key, "unix://", "a path behind unix://")
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            collected.add_mismatch(key, option, "an option such as mode=0660")
        elif name == "mode":
            mode = _octal(value)
            if mode is None:
                collected.add_mismatch(key, value, "an octal mode such as 0660")
    return path, mode


def _octal(text: str) -> int | None:
    if not text or len(text) > 5 or set(text) - set("01234567") or int(text, 8) > 0o777:
        return None
    return int(text, 8)


def _secure(collected: ResolvedOptions, cert: str, key: str) -> tuple[Listener, ...]:
    address = collected.string("https_address")
    if address in OFF:
        collected.add_problem("https_address", "off, although tls_cert_file is given")
        return ()
    place = _secure_place(collected, address)
    if place is None:
        return ()
    tls = TlsSettings(
        cert_file=cert,
        key_file=key,
        min_version=collected.string("tls_min_version") or "TLS1.2",
        cipher_suites=_cipher_suites(collected),
        http2=collected.boolean("http2"),
    )
    return (replace(place, tls=tls),)


def _secure_place(collected: ResolvedOptions, address: str) -> Listener | None:
    """Where TLS is spoken: TCP, or a socket of systemd."""
    key = "https_address"
    if address.lower().startswith("fd:"):
        descriptor = _descriptor(collected, key, address)
        return None if descriptor is None else Listener(descriptor=descriptor)
    found = host_port(address.removeprefix("https://"))
    if found is None:
        collected.add_mismatch(key, address, "HOST:PORT or fd:N")
        return None
    return Listener(host=found[0], port=found[1])


def _cipher_suites(collected: ResolvedOptions) -> tuple[str, ...]:
    """The suites in OpenSSL's names; empty means OpenSSL's choice."""
    names = collected.strings("tls_cipher_suites")
    for name in names:
        if name not in OPENSSL_NAMES:
            collected.add_mismatch(
                "tls_cipher_suites",
                name,
                "a name such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            )
    suites = tuple(filter(None, (OPENSSL_NAMES.get(name, "") for name in names)))
    if names and not suites and "tls_cipher_suites" not in collected.failed:
        collected.add_problem(
            "tls_cipher_suites",
            "none of them can be chosen for TLS 1.2; set tls_min_version to TLS1.3 "
            "instead",
        )
    return suites


def host_port(address: str) -> tuple[str, int] | None:
    """Host (empty: all addresses) and port of ``host:port`` or ``[v6]:port``."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if set(name) & set("[]/@ \t,") or (":" in name) != bracketed:
        return None
    return name, int(port)
