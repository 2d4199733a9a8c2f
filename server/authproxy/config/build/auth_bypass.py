"""The options about what passes without a session: skip rules, https, addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from authproxy_core.settings.auth_bypass import AuthBypassSettings, auth_bypass_warnings
from authproxy_core.settings.root import Settings

from ...server_settings import Listener
from ..read.resolved import ResolvedOptions

HTTPS = 443


def auth_bypass(
    collected: ResolvedOptions, values: Mapping[str, Any], listeners: Sequence[Listener]
) -> AuthBypassSettings:
    """The gate's settings; *values* are those of the options that go there as they are."""
    if not collected.boolean("force_https"):
        return AuthBypassSettings(**values)
    secure = [one for one in listeners if one.tls is not None]
    if not secure and not collected.boolean("reverse_proxy"):
        collected.add_problem(
            "force_https",
            "no request could ever come over https; expected tls_cert_file, or "
            "reverse_proxy with a gateway that sends X-Forwarded-Proto",
        )
    port = secure[0].port if secure else _port(collected.string("https_address"))
    return AuthBypassSettings(**{**values, "https_port": port or HTTPS})


def hsts(collected: ResolvedOptions) -> str:
    """The value of Strict-Transport-Security, "" when it is off."""
    seconds = collected.seconds("hsts_max_age")
    subdomains = collected.boolean("hsts_include_subdomains")
    if not seconds:
        if subdomains:
            collected.add_warning(
                "hsts_include_subdomains", "has no effect without hsts_max_age"
            )
        return ""
    return f"max-age={int(seconds)}" + ("; includeSubDomains" if subdomains else "")


def _port(address: str) -> int:
    """The port of *address*, 0 if it has none."""
    port = address.rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and int(port) < 65536 else 0


def add_rule_warnings(collected: ResolvedOptions, settings: Settings) -> None:
    """Add what an operator should know about rules that are allowed."""
    for key, text in auth_bypass_warnings(settings.auth_bypass):
        collected.add_warning(key, text)
    if not collected.boolean("reverse_proxy"):
        return
    if settings.auth_bypass.skips:
        collected.add_warning(
            "reverse_proxy",
            "with rules that skip the login, the gateway must set X-Forwarded-Uri, "
            "X-Forwarded-Method and real_client_ip_header itself, or a client does",
        )
    elif settings.access.any:
        collected.add_warning(
            "reverse_proxy",
            "with access rules, a gateway that asks must set X-Forwarded-Host, "
            "X-Forwarded-Uri and X-Forwarded-Method itself, or a client does",
        )
