"""``authproxy completion``: print a completion script for a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..config.read.resolved import UsageError
from ..config.read.sources import requests_help

USAGE = "usage: authproxy completion bash|zsh|fish"
HELP = (
    "Prints a script that completes commands, flags and values:",
    "",
    '  bash   eval "$(authproxy completion bash)" in ~/.bashrc',
    '  zsh    authproxy completion zsh > "${fpath[1]}/_authproxy"',
    "  fish   authproxy completion fish > ~/.config/fish/completions/authproxy.fish",
)


def main(arguments: Sequence[str]) -> int:
    """Print the script; raises `UsageError`."""
    if requests_help(arguments):
        sys.stdout.write("\n".join((USAGE, "", *HELP, "")))
        return 0
    from .completion_scripts import SCRIPTS

    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        raise UsageError((USAGE,))
    sys.stdout.write(SCRIPTS[arguments[0]]())
    return 0
