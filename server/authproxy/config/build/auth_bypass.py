"""Build the settings of requests that bypass authentication, and of HTTPS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from authproxy_core.settings import Settings
from authproxy_core.settings.auth_bypass import AuthBypassSettings, auth_bypass_warnings
from authproxy_core.settings.rules import rule_warnings

from ...server_settings import Listener
from ..read.resolved import ResolvedOptions

HTTPS_PORT = 443


def build_auth_bypass(
    options: ResolvedOptions, fields: Mapping[str, Any], listeners: Sequence[Listener]
) -> AuthBypassSettings:
    """Build the settings; *fields* are the values of the options set unchanged."""
    if not options.boolean("force_https"):
        return AuthBypassSettings(**fields)
    tls_listeners = [listener for listener in listeners if listener.tls is not None]
    if not tls_listeners and not options.boolean("reverse_proxy"):
        options.add_problem(
            "force_https",
            "no request can arrive over HTTPS; set tls_cert_file, or reverse_proxy with "
            "a gateway that sends X-Forwarded-Proto",
        )
    port = (
        tls_listeners[0].port
        if tls_listeners
        else _parse_port(options.string("https_address"))
    )
    return AuthBypassSettings(**{**fields, "https_port": port or HTTPS_PORT})


def build_hsts(options: ResolvedOptions) -> str:
    """Build the value of Strict-Transport-Security; "" if HSTS is off."""
    seconds = options.seconds("hsts_max_age")
    subdomains = options.boolean("hsts_include_subdomains")
    if not seconds:
        if subdomains:
            options.add_warning(
                "hsts_include_subdomains", "has no effect without hsts_max_age"
            )
        return ""
    return f"max-age={int(seconds)}" + ("; includeSubDomains" if subdomains else "")


def _parse_port(address: str) -> int:
    """Return the port of *address*; 0 if it has no valid port."""
    port = address.rpartition(":")[2]
    return int(port) if port.isascii() and port.isdigit() and int(port) < 65536 else 0


def add_bypass_warnings(options: ResolvedOptions, settings: Settings) -> None:
    """Add warnings about valid but risky bypass and access rules."""
    for key, text in auth_bypass_warnings(settings.auth_bypass):
        options.add_warning(key, text)
    for text in rule_warnings(settings.access):
        options.add_warning("access_rules_default", text)
    if not options.boolean("reverse_proxy"):
        return
    if settings.auth_bypass.is_active:
        options.add_warning(
            "reverse_proxy",
            "with skip_auth_* or trusted_ips, the gateway must overwrite "
            "X-Forwarded-Uri, X-Forwarded-Method and real_client_ip_header; otherwise "
            "clients can forge them",
        )
    elif settings.access.is_active:
        options.add_warning(
            "reverse_proxy",
            "with access rules, a gateway that uses auth checks must overwrite "
            "X-Forwarded-Host, X-Forwarded-Uri and X-Forwarded-Method; otherwise "
            "clients can forge them",
        )
