"""Servers of an alpha configuration, through the flat options about listeners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..server_settings import Listener
from . import listening
from .alpha_providers import flat_view
from .alpha_read import Problems
from .collected import Collected, Given
from .option import Value
from .options import BY_KEY
from .sources import judge

TLS_KEYS = {"minVersion": "tls_min_version", "cipherSuites": "tls_cipher_suites"}


def listeners(
    server: Mapping[str, Any], collected: Collected, problems: Problems
) -> tuple[Listener, ...]:
    """Plain and TLS listeners; here both may be there at once."""
    plain, secure = (
        _address(server, "bindAddress"),
        _address(server, "secureBindAddress"),
    )
    if not plain and not secure:
        problems.wrong(
            "server", "neither bindAddress nor secureBindAddress: nothing would listen"
        )
    found: tuple[Listener, ...] = ()
    if plain:
        found += listening.listeners(
            _view({"http_address": (plain, "bindAddress")}, collected, problems)
        )
    if secure:
        found += _secure(server, secure, collected, problems)
    return found


def _address(server: Mapping[str, Any], name: str) -> str:
    address: str = server.get(name, "")
    return "" if address in listening.OFF else address


def _secure(
    server: Mapping[str, Any], address: str, collected: Collected, problems: Problems
) -> tuple[Listener, ...]:
    tls = server.get("tls", {})
    cert = _file(tls, "cert", "server.tls", problems)
    key = _file(tls, "key", "server.tls", problems)
    values: dict[str, tuple[Value, str]] = {
        "https_address": (address, "secureBindAddress"),
        "tls_cert_file": (cert, "tls.cert"),
        "tls_key_file": (key, "tls.key"),
    }
    for name, option in TLS_KEYS.items():
        if name in tls:
            values[option] = (tls[name], f"tls.{name}")
    if not cert or not key:
        return ()
    return listening.listeners(_view(values, collected, problems))


def _file(tls: Mapping[str, Any], name: str, path: str, problems: Problems) -> str:
    """The file of a certificate or key; "" when that can't be had, which is noted."""
    source = tls.get(name, {})
    if len(source) != 1:
        problems.wrong(f"{path}.{name}", "expected one of value, fromEnv and fromFile")
        return ""
    if "fromFile" not in source:
        problems.wrong(
            f"{path}.{name}", "not supported yet by this version; use fromFile"
        )
        return ""
    file: str = source["fromFile"]
    return file


def _view(
    values: Mapping[str, tuple[Value, str]], collected: Collected, problems: Problems
) -> Collected:
    view = flat_view(collected)
    for key, (value, name) in values.items():
        view.given[key] = Given(value, problems.file)
        view.names[key] = f"server.{name}"
        judge(view, BY_KEY[key])
    return view


def take_metrics(
    server: Mapping[str, Any], collected: Collected, problems: Problems
) -> None:
    """Give *collected* the flat options that the metrics server stands for."""
    values: dict[str, tuple[Value, str]] = {
        "metrics_address": (_address(server, "bindAddress"), "bindAddress"),
        "metrics_secure_address": (
            _address(server, "secureBindAddress"),
            "secureBindAddress",
        ),
    }
    if "tls" in server:
        path = "metricsServer.tls"
        for name, key in (("cert", "cert_file"), ("key", "key_file")):
            file = _file(server["tls"], name, path, problems)
            values[f"metrics_tls_{key}"] = (file, f"tls.{name}")
        for name in TLS_KEYS:
            if name in server["tls"]:
                problems.warn(f"{path}.{name}", "has no effect")
    for key, (value, name) in values.items():
        if value:
            collected.given[key] = Given(value, problems.file)
            collected.names[key] = f"metricsServer.{name}"
            judge(collected, BY_KEY[key])
