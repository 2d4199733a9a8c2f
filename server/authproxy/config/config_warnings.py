"""What an operator should know about settings that are allowed."""

from __future__ import annotations

import re

from .read.resolved import ResolvedOptions

LISTED_HOST = re.compile(
    r"(?:\*?\.)?(?:[\w-]+(?:\.[\w-]+)*|\[[0-9a-fA-F:.]+\])(?::(?:\d+|\*))?"
)

# Options that make the login weaker when they are on.
INSECURE = {
    "ssl_insecure_skip_verify": "the provider's certificate is not verified, so whoever "
    "is between may read and forge its answers",
    "insecure_oidc_skip_nonce": "the nonce is not checked, so a stolen ID token can be "
    "replayed",
    "insecure_oidc_skip_issuer_verification": "the issuer is not compared",
    "ssl_upstream_insecure_skip_verify": "the certificates of upstreams are not verified",
}


def add_warnings(collected: ResolvedOptions) -> None:
    """Add what is worth a line in the log at start."""
    for key, text in INSECURE.items():
        if collected.boolean(key):
            collected.add_warning(key, text)
    _pkce(collected)
    _proxies(collected)
    _callback(collected)
    _lists(collected)
    _logs(collected)
    _listeners(collected)


def _pkce(collected: ResolvedOptions) -> None:
    key = "code_challenge_method"
    if not collected.string(key):
        key = "force_code_challenge_method"
    match collected.string(key):
        case "none":
            collected.add_warning(key, "PKCE is off")
        case "plain":
            collected.add_warning(
                key, "plain shows the verifier to the browser; use S256"
            )


def _proxies(collected: ResolvedOptions) -> None:
    if collected.boolean("reverse_proxy") and not collected.strings(
        "trusted_proxy_ips"
    ):
        collected.add_warning(
            "reverse_proxy",
            "X-Forwarded-* headers are believed from loopback and private addresses, "
            "for no trusted_proxy_ips are given; name your gateways there",
        )


def _callback(collected: ResolvedOptions) -> None:
    if not (
        collected.string("redirect_url")
        or collected.boolean("cookie_secure")
        or collected.boolean("reverse_proxy")
    ):
        collected.add_warning(
            "redirect_url",
            "not given, and cookie_secure is off: the callback address will be http://",
        )


def _lists(collected: ResolvedOptions) -> None:
    for entry in collected.strings("whitelist_domains"):
        if not LISTED_HOST.fullmatch(entry):
            collected.add_warning(
                "whitelist_domains",
                f"{entry!r} matches nothing; expected HOST, .HOST, HOST:PORT or HOST:*",
            )
    for entry in collected.strings("email_domains"):
        if not entry or set(entry) & set("@ /"):
            collected.add_warning(
                "email_domains", f"{entry!r} matches nothing; expected a domain or '*'"
            )


def _logs(collected: ResolvedOptions) -> None:
    if collected.string("logging_format") == "json":
        for name in ("standard", "auth", "request"):
            key = f"{name}_logging_format"
            if not collected.is_default(key):
                collected.add_warning(key, "has no effect with logging_format json")
    names = ("standard_logging", "auth_logging", "request_logging")
    if not any(collected.boolean(name) for name in names):
        collected.warnings.append(f"{', '.join(names)}: all of them are off")


def _listeners(collected: ResolvedOptions) -> None:
    key = "https_address"
    if not collected.is_default(key) and not collected.string("tls_cert_file"):
        collected.add_warning(
            key, "nothing listens there, for no tls_cert_file is given"
        )
