"""Servers of an alpha configuration, through the flat options about listeners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from authproxy_core.settings.root import Secret

from ...server_settings import Listener
from ..build import listeners
from ..options.option import Value
from ..options.table import BY_KEY
from ..read.resolved import OptionValue, ResolvedOptions
from ..read.sources import check_value
from .headers import SOURCES, read_source
from .providers import flat_view
from .read import Problems

TLS_KEYS = {"minVersion": "tls_min_version", "cipherSuites": "tls_cipher_suites"}
INLINE = "(not a file)"  # stands for the name of a file where the PEM text is given


class Servers:
    """Makes the listeners of `server` and `metricsServer`; problems are noted."""

    def __init__(
        self, collected: ResolvedOptions, environ: Mapping[str, str], problems: Problems
    ) -> None:
        self._collected = collected
        self._environ = environ
        self._problems = problems

    def application(self, server: Mapping[str, Any]) -> tuple[Listener, ...]:
        """Plain and TLS listeners; here both may be there at once."""
        found = self._listeners(server, "server")
        if not _address(server, "bindAddress") and not _address(
            server, "secureBindAddress"
        ):
            self._problems.wrong(
                "server",
                "neither bindAddress nor secureBindAddress: nothing would listen",
            )
        return found

    def metrics(self, server: Mapping[str, Any]) -> tuple[Listener, ...]:
        """The listeners that answer with metrics; often there are none."""
        found = self._listeners(server, "metricsServer")
        return tuple(replace(listener, metrics=True) for listener in found)

    def _listeners(self, server: Mapping[str, Any], block: str) -> tuple[Listener, ...]:
        plain = _address(server, "bindAddress")
        secure = _address(server, "secureBindAddress")
        found: tuple[Listener, ...] = ()
        if plain:
            values: dict[str, tuple[Value, str]] = {
                "http_address": (plain, "bindAddress")
            }
            found += listeners.listeners(self._view(values, block))
        if secure:
            found += self._secure(server.get("tls", {}), secure, block)
        return found

    def _secure(
        self, tls: Mapping[str, Any], address: str, block: str
    ) -> tuple[Listener, ...]:
        sources = {name: tls.get(name, {}) for name in ("cert", "key")}
        bad = [name for name, source in sources.items() if len(source) != 1]
        for name in bad:
            self._problems.wrong(f"{block}.tls.{name}", f"expected {SOURCES}")
        if bad:
            return ()
        pem = self._pem(sources, block)
        if pem is None:
            return ()
        values: dict[str, tuple[Value, str]] = {
            "https_address": (address, "secureBindAddress")
        }
        for name, source in sources.items():
            file = INLINE if pem else source["fromFile"]
            values[f"tls_{name}_file"] = (file, f"tls.{name}")
        for name, option in TLS_KEYS.items():
            if name in tls:
                values[option] = (tls[name], f"tls.{name}")
        made = listeners.listeners(self._view(values, block))
        return tuple(
            replace(one, tls=replace(one.tls, pem=pem)) if pem and one.tls else one
            for one in made
        )

    def _pem(
        self, sources: Mapping[str, Mapping[str, Any]], block: str
    ) -> Secret | None:
        """Chain and key as text when one of them is no file, else an empty secret.

        None when one can't be had.
        """
        if all("fromFile" in source for source in sources.values()):
            return Secret(b"")
        texts = [
            read_source(source, f"{block}.tls.{name}", self._environ, self._problems)
            for name, source in sources.items()
        ]
        if None in texts:
            return None
        return Secret(b"\n".join(text for text in texts if text is not None))

    def _view(
        self, values: Mapping[str, tuple[Value, str]], block: str
    ) -> ResolvedOptions:
        view = flat_view(self._collected)
        for key, (value, name) in values.items():
            view.given[key] = OptionValue(value, self._problems.file)
            view.names[key] = f"{block}.{name}"
            check_value(view, BY_KEY[key])
        return view


def _address(server: Mapping[str, Any], name: str) -> str:
    address: str = server.get(name, "")
    return "" if address in listeners.OFF else address
