"""Configuration, start, logs and health."""

from __future__ import annotations

from ..conditions import (
    EVERY,
    HAS_ALPHA_FILE,
    HAS_DOLLAR_DIGITS,
    HAS_POSITIONAL_ARGUMENT,
    HAS_UNKNOWN_VARIABLE,
    given,
    is_on,
)
from .row import BUG, Difference

OPERATING: tuple[Difference, ...] = (
    Difference(
        "unknown-variables",
        "an environment variable `OAUTH2_PROXY_*` of no option is an error at start",
        "a misspelled restriction would have no effect",
        "remove the variable",
        when=HAS_UNKNOWN_VARIABLE,
        look=EVERY,
    ),
    Difference(
        "positional-arguments",
        "an argument that is neither a flag nor a command is an error; `true` "
        "after a switch is redundant",
        "a misspelled command, or `--cookie-secure false`, would start a server "
        "that was not intended",
        BUG,
        when=HAS_POSITIONAL_ARGUMENT,
        look=EVERY,
    ),
    Difference(
        "ready-after-metadata",
        "`/ready` returns 503 until the provider's metadata and keys are loaded; "
        "authproxy starts without them",
        "an unreachable provider must not prevent the start",
        BUG,
        when=given("ready_path"),
    ),
    Difference(
        "dollars-in-alpha-files",
        "`$1`, `$2` … in an alpha configuration file stay unchanged",
        "oauth2-proxy replaces each by `$1`",
        BUG,
        when=HAS_DOLLAR_DIGITS,
        look=EVERY,
    ),
    Difference(
        "converted-secrets",
        "`--convert-config-to-alpha` prints references to variables instead of secrets",
        "its output ends up in tickets and repositories",
        "set the named variable",
        when=~HAS_ALPHA_FILE,
    ),
    Difference(
        "config-test",
        "`--config-test` reports all invalid options at once: "
        "`code_challenge_method`, `cookie_csrf_samesite`, provider types, log "
        "templates, TLS files, misspelled keys",
        "oauth2-proxy fails at the first request or ignores them",
        BUG,
    ),
    Difference(
        "auth-log",
        "the auth log has a line for each failed login, not for the Basic "
        "credentials of each allowed request; the request line of a callback "
        "names the user; messages have authproxy's texts",
        "alerts and fail2ban see all failures",
        'log templates, or `logging_format = "json"` with fixed reason codes',
        when=is_on("auth_logging"),
    ),
)
