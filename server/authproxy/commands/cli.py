"""The command line: ``--config FILE``, ``--alpha-config FILE``, ``demo`` and the like.

Imports are inside the functions, so that ``--version`` and ``--help`` are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from .. import __version__

SWITCHES = ("--config-test", "--convert-config-to-alpha")
TRUE = ("1", "t", "T", "TRUE", "true", "True")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if _asks_for_version(iter(given)):
        print(f"authproxy {__version__}")
        return 0
    if given[:1] == ["demo"]:
        from authproxy_demo import main as demo

        return demo(given[1:])
    from ..config.read.resolved import ConfigError, UsageError

    try:
        if given[:1] == ["explain"]:
            from .explain import main as explain

            return explain(given[1:])
        if given[:1] == ["sessions"]:
            from .sessions_cli import main as sessions

            return sessions(given[1:])
        return _run(given)
    except UsageError as error:
        _tell("the command line can't be read:", error.problems)
        print("authproxy --help lists all flags", file=sys.stderr)
        return error.exit_code
    except ConfigError as error:
        _warn(error.warnings)
        _tell("invalid configuration:", error.problems)
        return error.exit_code


def _asks_for_version(arguments: Iterator[str]) -> bool:
    """Whether ``--version`` is there, before ``--help``, ``--`` and bad switches.

    As in oauth2-proxy it wins over all other flags, known or not.
    """
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument == "--" or argument == "--help" or argument.startswith("-h"):
            return False
        if name == "--version":
            return not equals or value in TRUE
        if name in SWITCHES:
            if equals and value not in TRUE:
                return False
        elif name in ("--config", "--alpha-config") and not equals:
            next(arguments, None)
    return False


def _run(arguments: list[str]) -> int:
    from ..config.read.sources import parse_flags

    flags = parse_flags(arguments)
    if flags.help:
        from ..config.reference import usage

        print(usage())
        return 0
    if flags.control.get("convert-config-to-alpha"):
        from ..config.alpha.convert import convert_to_alpha

        text, warnings = convert_to_alpha(flags, os.environ)
        _warn(warnings)
        print(text, end="")
        return 0
    from ..config.load import build_settings

    settings = build_settings(flags, os.environ)
    if flags.control.get("config-test"):
        _warn(settings.warnings)
        print("configuration is valid")
        return 0
    from ..process.launcher import run

    return run(settings, lambda: build_settings(flags, os.environ))


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _tell(header: str, problems: Sequence[str]) -> None:
    print(header, file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
