"""All options, in the order of docs/options.md, and lookup tables."""

from __future__ import annotations

from .core import COOKIE_OPTIONS, CORE_OPTIONS
from .option import Option, in_group
from .provider import PROVIDER_OPTIONS
from .server import (
    HEADER_OPTIONS,
    LIMIT_OPTIONS,
    LISTENER_OPTIONS,
    LOGGING_OPTIONS,
    PAGE_OPTIONS,
)
from .sessions import SESSION_OPTIONS
from .stores import STORE_OPTIONS
from .tracing import TRACING_OPTIONS
from .upstream import UPSTREAM_OPTIONS

# Flags without a TOML key and environment variable.
CONTROL_OPTIONS = in_group(
    "Control",
    Option("", "string", "", "TOML configuration file", flag="config"),
    Option(
        "",
        "string",
        "",
        "YAML file with providers, headers, upstreams, servers and access rules",
        flag="alpha-config",
    ),
    Option("", "bool", False, "check the configuration and exit", flag="config-test"),
    Option(
        "",
        "bool",
        False,
        "print the alpha configuration of the flat options as YAML, without secrets, "
        "and exit",
        flag="convert-config-to-alpha",
    ),
    Option("", "bool", False, "print the version and exit", flag="version"),
    Option(
        "",
        "bool",
        False,
        "print all flags and exit",
        flag="help-all",
        is_extension=True,
    ),
)

OPTIONS: tuple[Option, ...] = (
    *CORE_OPTIONS,
    *PROVIDER_OPTIONS,
    *COOKIE_OPTIONS,
    *SESSION_OPTIONS,
    *STORE_OPTIONS,
    *HEADER_OPTIONS,
    *UPSTREAM_OPTIONS,
    *LISTENER_OPTIONS,
    *LIMIT_OPTIONS,
    *PAGE_OPTIONS,
    *LOGGING_OPTIONS,
    *TRACING_OPTIONS,
)

# Groups that an alpha configuration replaces; rejected together with it.
ALPHA_GROUPS = frozenset({"Provider", "Headers", "Upstreams", "Listeners"})
FLAT_ONLY: frozenset[str] = frozenset(
    option.key
    for option in OPTIONS
    if option.group in ALPHA_GROUPS
    and not option.is_extension
    and option.key != "ssl_insecure_skip_verify"
)

BY_KEY: dict[str, Option] = {option.key: option for option in OPTIONS}
CONTROL_BY_FLAG: dict[str, Option] = {option.flag: option for option in CONTROL_OPTIONS}


def _by_flag() -> dict[str, tuple[Option, ...]]:
    """Map flags to options: one flag (google-group) sets two options."""
    index: dict[str, tuple[Option, ...]] = {}
    for option in OPTIONS:
        index[option.flag] = (*index.get(option.flag, ()), option)
    return index


BY_FLAG = _by_flag()
