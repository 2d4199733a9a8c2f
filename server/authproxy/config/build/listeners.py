"""Build the listeners of the application and of the metrics endpoint."""

from __future__ import annotations

import ipaddress
import re

from msgspec.structs import replace

from ...net.proxy_protocol import UNIX
from ...server_settings import Listener, TlsSettings
from ..read.resolved import ResolvedOptions
from .cipher_suites import OPENSSL_NAMES

OFF_VALUES = ("", "-")
TCP_SCHEME = re.compile(r"^(?:http|tcp[46]?)://")  # of an address without TLS
MAX_PORT = 65535
MIN_DESCRIPTOR = 3  # the first socket passed by systemd (sd_listen_fds)
MAX_DESCRIPTOR = 1 << 20


def build_listeners(options: ResolvedOptions) -> tuple[Listener, ...]:
    """Build the application's listener: TLS if a certificate or key is set."""
    cert, key = options.string("tls_cert_file"), options.string("tls_key_file")
    if not cert and not key:
        return _plain_listener(options)
    if not cert or not key:
        missing = "tls_key_file" if cert else "tls_cert_file"
        options.add_problem(missing, "missing; TLS requires a certificate and its key")
        return ()
    return _tls_listener(options, cert, key)


def _plain_listener(options: ResolvedOptions) -> tuple[Listener, ...]:
    key = "http_address"
    address = options.string(key)
    if address in OFF_VALUES:
        options.add_problem(
            key, "no listener: set http_address, or tls_cert_file and tls_key_file"
        )
    elif address.startswith("unix://"):
        return (_unix_listener(options, key, address),)
    elif address.lower().startswith("fd:"):
        if descriptor := _parse_descriptor(options, key, address):
            return (Listener(descriptor=descriptor),)
    elif host_port := parse_host_port(TCP_SCHEME.sub("", address)):
        return (Listener(host=host_port[0], port=host_port[1]),)
    else:
        expected = "HOST:PORT, fd:N, unix://PATH[,mode=0660] or '-'"
        options.add_mismatch(key, address, expected)
    return ()


def _tls_listener(
    options: ResolvedOptions, cert: str, key: str
) -> tuple[Listener, ...]:
    address = options.string("https_address")
    if address in OFF_VALUES:
        options.add_problem("https_address", "off, although tls_cert_file is set")
        return ()
    listener = _parse_tls_address(options, address)
    if listener is None:
        return ()
    version = options.string("tls_min_version")
    tls = TlsSettings(
        cert_file=cert,
        key_file=key,
        min_version="TLS1.3" if version == "TLS1.3" else "TLS1.2",
        cipher_suites=_cipher_suites(options),
        http2=options.boolean("http2"),
    )
    return (replace(listener, tls=tls),)


def _parse_tls_address(options: ResolvedOptions, address: str) -> Listener | None:
    """Return the listener, still without TLS settings: TCP, or a systemd socket."""
    key = "https_address"
    if address.lower().startswith("fd:"):
        descriptor = _parse_descriptor(options, key, address)
        return None if descriptor is None else Listener(descriptor=descriptor)
    host_port = parse_host_port(address.removeprefix("https://"))
    if host_port is None:
        options.add_mismatch(key, address, "HOST:PORT or fd:N")
        return None
    return Listener(host=host_port[0], port=host_port[1])


def _cipher_suites(options: ResolvedOptions) -> tuple[str, ...]:
    """Return the suites under OpenSSL's names; empty for OpenSSL's default."""
    names = options.strings("tls_cipher_suites")
    for name in names:
        if name not in OPENSSL_NAMES:
            options.add_mismatch(
                "tls_cipher_suites",
                name,
                "a name such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            )
    suites = tuple(filter(None, (OPENSSL_NAMES.get(name, "") for name in names)))
    if names and not suites and "tls_cipher_suites" not in options.failed:
        options.add_problem(
            "tls_cipher_suites",
            "contains no configurable suite of TLS 1.2; set tls_min_version to TLS1.3 "
            "instead",
        )
    return suites


def build_metrics_listeners(options: ResolvedOptions) -> tuple[Listener, ...]:
    """Build the plain and the TLS listener for metrics; both are off by default."""
    return (*_plain_metrics_listener(options), *_tls_metrics_listener(options))


def _plain_metrics_listener(options: ResolvedOptions) -> tuple[Listener, ...]:
    key = "metrics_address"
    address = options.string(key)
    if address in OFF_VALUES:
        return ()
    if address.startswith("unix://"):
        return (replace(_unix_listener(options, key, address), metrics=True),)
    host_port = parse_host_port(TCP_SCHEME.sub("", address))
    if host_port is None:
        expected = "HOST:PORT, unix://PATH[,mode=0660] or '-'"
        options.add_mismatch(key, address, expected)
        return ()
    return (Listener(host=host_port[0], port=host_port[1], metrics=True),)


def _tls_metrics_listener(options: ResolvedOptions) -> tuple[Listener, ...]:
    key = "metrics_secure_address"
    address = options.string(key)
    names = ("metrics_tls_cert_file", "metrics_tls_key_file")
    missing = [name for name in names if not options.string(name)]
    if address in OFF_VALUES:
        for name in names:
            if name not in missing:
                options.add_warning(name, f"has no effect without {key}")
        return ()
    for name in missing:
        options.add_problem(name, f"missing; {key} requires a certificate and its key")
    host_port = parse_host_port(address.removeprefix("https://"))
    if host_port is None:
        options.add_mismatch(key, address, "HOST:PORT")
    if host_port is None or missing:
        return ()
    cert, key_file = map(options.string, names)
    tls = TlsSettings(cert_file=cert, key_file=key_file)
    return (Listener(host=host_port[0], port=host_port[1], tls=tls, metrics=True),)


def parse_proxy_protocol_sources(options: ResolvedOptions) -> tuple[str, ...]:
    """Return the peers that must send a PROXY protocol header."""
    key = "proxy_protocol_from"
    entries = options.strings(key)
    for entry in entries:
        try:
            if entry != UNIX:
                ipaddress.ip_network(entry)
        except ValueError:
            options.add_mismatch(
                key, entry, "an address, a network such as 10.0.0.0/8, or unix"
            )
    return () if key in options.failed else entries


def parse_host_port(address: str) -> tuple[str, int] | None:
    """Parse ``host:port`` or ``[v6]:port``; an empty host means all addresses."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > MAX_PORT:
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if set(name) & set("[]/@ \t,") or (":" in name) != bracketed:
        return None
    return name, int(port)


def _parse_descriptor(options: ResolvedOptions, key: str, address: str) -> int | None:
    """Return N of ``fd:N``, a listening socket passed by systemd."""
    text = address[len("fd:") :]
    if text.isascii() and text.isdigit():
        descriptor = int(text)
        if MIN_DESCRIPTOR <= descriptor <= MAX_DESCRIPTOR:
            return descriptor
    options.add_mismatch(
        key, address, f"fd:N with N from {MIN_DESCRIPTOR}, the first socket of systemd"
    )
    return None


def _unix_listener(options: ResolvedOptions, key: str, address: str) -> Listener:
    """Parse ``unix://PATH[,mode=0660]``.

    As in oauth2-proxy, other options after the path are ignored.
    """
    path, *arguments = address.removeprefix("unix://").split(",")
    mode = None
    if not path:
        options.add_mismatch(key, "unix://", "a path after unix://")
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            options.add_mismatch(key, argument, "an option such as mode=0660")
        elif name == "mode":
            mode = _parse_mode(value)
            if mode is None:
                options.add_mismatch(key, value, "an octal mode such as 0660")
    return Listener(path=path, mode=mode)


def _parse_mode(text: str) -> int | None:
    if not text or len(text) > 5 or set(text) - set("01234567") or int(text, 8) > 0o777:
        return None
    return int(text, 8)
