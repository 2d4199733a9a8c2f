"""The texts of ``--help`` and ``--help-all``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .options.option import Option
from .options.table import BY_KEY, CONTROL_OPTIONS, OPTIONS
from .reference import format_default, groups_of, marks

COMMANDS = {  # name → arguments and purpose
    "demo": ("[--port PORT]", "run a demonstration"),
    "init": ("[FILE] [FLAGS]", "write a first configuration"),
    "explain": ("FLAGS METHOD URL …", "explain a decision"),
    "sessions": ("list|show|revoke FLAGS …", "list, show or end sessions"),
    "keycloak-realm": ("URL … [FLAGS]", "print a realm to import"),
    "migrate": ("--check|--from … FILE …", "help with a switch"),
    "completion": ("bash|zsh|fish", "print a completion script"),
    "schema": ("toml|alpha", "print a JSON schema"),
    "help": ("[COMMAND|--man]", "usage, or the manual page"),
}
# Keys of the options that most deployments set, in the order of ``--help``.
COMMON = (
    "provider", "oidc_issuer_url", "client_id", "client_secret_file", "redirect_url",
    "scope", "email_domains", "allowed_groups", "cookie_secret_file", "cookie_domains",
    "cookie_secure", "cookie_expire", "cookie_refresh", "session_store_type",
    "redis_connection_url", "reverse_proxy", "trusted_proxy_ips", "upstreams",
    "skip_auth_routes", "skip_provider_button", "skip_jwt_bearer_tokens",
    "htpasswd_file", "set_xauthrequest", "whitelist_domains", "http_address",
    "https_address", "tls_cert_file", "tls_key_file", "metrics_address", "workers",
    "logging_format",
)  # fmt: skip
WIDTH = 80  # columns of ``--help``
COLUMN = 30  # of the texts in ``--help``
INDENT = " " * 8
SOURCES = (
    "Each flag is also a key of the TOML file and an environment variable, such as",
    "--cookie-expire, cookie_expire and OAUTH2_PROXY_COOKIE_EXPIRE. Flags take",
    "precedence over variables, variables over the file.",
)
LEGEND = (
    "string, int   --name=VALUE or --name VALUE",
    "bool          --name or --name=true; --name=false",
    "list          values separated by commas, or the flag several times",
    "duration      numbers with units, such as 90s or 1h30m",
    "[extension]   not in oauth2-proxy",
    "[flat]        set in the file instead if --alpha-config is used",
)


def common_help() -> str:
    """Return the text of ``--help``, at most 60 lines."""
    lines = [*_usage_lines(), "", *SOURCES, "", "Common flags (all: --help-all):"]
    options = [*CONTROL_OPTIONS, *(BY_KEY[key] for key in COMMON)]
    lines += [_common_line(option) for option in options]
    return "\n".join(lines)


def full_help() -> str:
    """Return the text of ``--help-all``."""
    lines = [*_usage_lines(), "", *SOURCES, "", *(f"  {line}" for line in LEGEND)]
    for group, options in groups_of(CONTROL_OPTIONS + OPTIONS):
        lines += ["", f"{group}:"]
        for option in options:
            lines += _flag_lines(option)
    return "\n".join(lines)


def _usage_lines() -> Iterator[str]:
    yield "usage: authproxy [--config FILE] [flags]"
    for name, (arguments, purpose) in COMMANDS.items():
        yield f"       authproxy {f'{name} {arguments}'.ljust(COLUMN + 4)} {purpose}"


def _common_line(option: Option) -> str:
    text = option.help.partition("; ")[0]
    short = textwrap.shorten(text, WIDTH - COLUMN, placeholder=" …")
    return f"  --{option.flag}".ljust(COLUMN) + short


def _flag_lines(option: Option) -> list[str]:
    kind = "" if option.kind == "bool" else f" {option.kind}"
    default = f" (default {format_default(option)})" if option.default else ""
    text = f"{option.help}{default}{marks(option)}"
    return [
        f"  --{option.flag}{kind}",
        *textwrap.wrap(text, 78, initial_indent=INDENT, subsequent_indent=INDENT),
    ]
