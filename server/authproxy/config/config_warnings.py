"""Warnings about settings that are valid but insecure or without effect."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from authproxy_core.settings.root import UNIX_PEERS

from .read.resolved import ResolvedOptions

LISTED_HOST = re.compile(
    r"(?:\*?\.)?(?:[\w-]+(?:\.[\w-]+)*|\[[0-9a-fA-F:.]+\])(?::(?:\d+|\*))?"
)

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")  # Secure cookies work there

INSECURE = {  # option to its risk when enabled
    "ssl_insecure_skip_verify": "the provider's certificate is not verified: responses "
    "can be read and forged in transit",
    "insecure_oidc_skip_nonce": "the nonce is not checked: a stolen ID token can be "
    "replayed",
    "insecure_oidc_skip_issuer_verification": "the issuer of ID tokens is not checked",
    "ssl_upstream_insecure_skip_verify": "upstream certificates are not verified: "
    "requests can be read and responses forged in transit",
}


def add_warnings(options: ResolvedOptions) -> None:
    """Add the warnings to log at startup."""
    for key, text in INSECURE.items():
        if options.boolean(key):
            options.add_warning(key, text)
    _warn_pkce(options)
    _warn_trusted_proxies(options)
    _warn_redirect_url(options)
    _warn_secure_cookie(options)
    _warn_form_post(options)
    _warn_unmatchable_entries(options)
    _warn_emails_file(options)
    _warn_logging(options)
    _warn_https_address(options)


def _warn_pkce(options: ResolvedOptions) -> None:
    key = "code_challenge_method"
    if not options.string(key):
        key = "force_code_challenge_method"
    match options.string(key):
        case "none":
            options.add_warning(key, "PKCE is off")
        case "plain":
            options.add_warning(
                key, "plain exposes the verifier to the browser; use S256"
            )


def _warn_trusted_proxies(options: ResolvedOptions) -> None:
    proxies = options.strings("trusted_proxy_ips")
    if (
        options.boolean("reverse_proxy")
        and options.string("http_address").startswith("unix:")
        and proxies
        and UNIX_PEERS not in proxies
    ):
        options.add_warning(
            "trusted_proxy_ips",
            "does not contain 'unix', so X-Forwarded-* headers of gateways that connect "
            "to the unix socket are ignored",
        )
    if options.boolean("reverse_proxy") and not proxies:
        options.add_warning(
            "reverse_proxy",
            "X-Forwarded-* headers are trusted from all loopback and private addresses; "
            "set trusted_proxy_ips to the addresses of your gateways",
        )


def _warn_redirect_url(options: ResolvedOptions) -> None:
    if not (
        options.string("redirect_url")
        or options.boolean("cookie_secure")
        or options.boolean("reverse_proxy")
    ):
        options.add_warning(
            "redirect_url",
            "not set, and cookie_secure is off: the callback URL uses http://",
        )


def _warn_secure_cookie(options: ResolvedOptions) -> None:
    url = options.string("redirect_url").lower()
    if (
        options.boolean("cookie_secure")
        and url.startswith("http://")
        and urlsplit(url).hostname not in LOCAL_HOSTS
    ):
        options.add_warning(
            "cookie_secure",
            "browsers drop Secure cookies over http, the scheme of redirect_url; every "
            "login fails",
        )


def _warn_form_post(options: ResolvedOptions) -> None:
    if options.string("auth_request_response_mode") != "form_post":
        return
    samesite = options.string("cookie_csrf_samesite").lower()
    if samesite not in ("", "none"):
        options.add_warning(
            "cookie_csrf_samesite",
            f"browsers do not send a login cookie with SameSite={samesite} with the form "
            "that the provider posts; every login fails",
        )
    elif not options.boolean("cookie_secure"):
        options.add_warning(
            "auth_request_response_mode",
            "form_post requires a Secure login cookie, which browsers drop over http; "
            "every login over http fails",
        )


def _warn_unmatchable_entries(options: ResolvedOptions) -> None:
    for entry in options.strings("whitelist_domains"):
        if not LISTED_HOST.fullmatch(entry):
            options.add_warning(
                "whitelist_domains",
                f"{entry!r} matches no host; expected HOST, .HOST, HOST:PORT or HOST:*",
            )
    for entry in options.strings("email_domains"):
        if not entry or set(entry) & set("@ /"):
            options.add_warning(
                "email_domains", f"{entry!r} matches no email; expected a domain or '*'"
            )


def _warn_emails_file(options: ResolvedOptions) -> None:
    key = "authenticated_emails_file"
    if options.string(key) and "*" in options.strings("email_domains"):
        options.add_warning(
            key, "has no effect with '*' in email_domains, which allows any email"
        )


def _warn_logging(options: ResolvedOptions) -> None:
    if options.string("logging_format") == "json":
        for name in ("standard", "auth", "request"):
            key = f"{name}_logging_format"
            if not options.is_default(key):
                options.add_warning(key, "has no effect with logging_format json")
    names = ("standard_logging", "auth_logging", "request_logging")
    if not any(options.boolean(name) for name in names):
        options.warnings.append(f"{', '.join(names)}: all logs are off")


def _warn_https_address(options: ResolvedOptions) -> None:
    key = "https_address"
    if not options.is_default(key) and not options.string("tls_cert_file"):
        options.add_warning(key, "has no effect without tls_cert_file")
