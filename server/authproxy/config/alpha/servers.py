"""Build the listeners of an alpha configuration from equivalent flat options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from authproxy_core.settings import Secret

from ...server_settings import Listener
from ..build.listeners import OFF_VALUES, build_listeners
from ..options.option import Value
from ..options.table import BY_KEY
from ..read.resolved import OptionValue, ResolvedOptions
from ..read.sources import check_value
from .headers import EXPECTED_SOURCE, read_secret_source
from .providers import copy_flat_options
from .read import Problems

TLS_KEYS = {"minVersion": "tls_min_version", "cipherSuites": "tls_cipher_suites"}
INLINE_NAME = "(not a file)"  # file name of inline PEM text, for messages


class ListenerBuilder:
    """Build the listeners of ``server`` and ``metricsServer``."""

    def __init__(
        self, options: ResolvedOptions, environ: Mapping[str, str], problems: Problems
    ) -> None:
        self._options = options
        self._environ = environ
        self._problems = problems

    def build_application(self, server: Mapping[str, Any]) -> tuple[Listener, ...]:
        """Build the plain and the TLS listener; an alpha file may have both."""
        listeners = self._build(server, "server")
        if not _address(server, "bindAddress") and not _address(
            server, "secureBindAddress"
        ):
            self._problems.add_problem(
                "server", "no listener: set bindAddress or secureBindAddress"
            )
        return listeners

    def build_metrics(self, server: Mapping[str, Any]) -> tuple[Listener, ...]:
        """Build the listeners of the metrics endpoint, if there are any."""
        listeners = self._build(server, "metricsServer")
        return tuple(replace(listener, metrics=True) for listener in listeners)

    def _build(self, server: Mapping[str, Any], block: str) -> tuple[Listener, ...]:
        plain = _address(server, "bindAddress")
        secure = _address(server, "secureBindAddress")
        listeners: tuple[Listener, ...] = ()
        if plain:
            values: dict[str, tuple[Value, str]] = {
                "http_address": (plain, "bindAddress")
            }
            listeners += build_listeners(self._flat_options(values, block))
        if secure:
            listeners += self._build_tls(server.get("tls", {}), secure, block)
        return listeners

    def _build_tls(
        self, tls: Mapping[str, Any], address: str, block: str
    ) -> tuple[Listener, ...]:
        sources = {name: tls.get(name, {}) for name in ("cert", "key")}
        invalid = [name for name, source in sources.items() if len(source) != 1]
        for name in invalid:
            self._problems.add_problem(
                f"{block}.tls.{name}", f"expected {EXPECTED_SOURCE}"
            )
        if invalid:
            return ()
        pem = self._read_pem(sources, block)
        if pem is None:
            return ()
        values: dict[str, tuple[Value, str]] = {
            "https_address": (address, "secureBindAddress")
        }
        for name, source in sources.items():
            file = INLINE_NAME if pem else source["fromFile"]
            values[f"tls_{name}_file"] = (file, f"tls.{name}")
        for name, key in TLS_KEYS.items():
            if name in tls:
                values[key] = (tls[name], f"tls.{name}")
        return tuple(
            replace(listener, tls=replace(listener.tls, pem=pem))
            if pem and listener.tls
            else listener
            for listener in build_listeners(self._flat_options(values, block))
        )

    def _read_pem(
        self, sources: Mapping[str, Mapping[str, Any]], block: str
    ) -> Secret | None:
        """Return chain and key as PEM text; empty if both are files.

        Return None after adding a problem.
        """
        if all("fromFile" in source for source in sources.values()):
            return Secret(b"")
        texts = [
            read_secret_source(
                source, f"{block}.tls.{name}", self._environ, self._problems
            )
            for name, source in sources.items()
        ]
        if None in texts:
            return None
        return Secret(b"\n".join(text for text in texts if text is not None))

    def _flat_options(
        self, values: Mapping[str, tuple[Value, str]], block: str
    ) -> ResolvedOptions:
        """Return the options with *values*: key to value and name in the block."""
        view = copy_flat_options(self._options)
        for key, (value, name) in values.items():
            view.explicit[key] = OptionValue(value, self._problems.file)
            view.names[key] = f"{block}.{name}"
            check_value(view, BY_KEY[key])
        return view


def _address(server: Mapping[str, Any], name: str) -> str:
    address: str = server.get(name, "")
    return "" if address in OFF_VALUES else address
