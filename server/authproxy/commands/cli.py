"""The command line: run the server, or one of its commands.

Modules are imported in the functions that use them, so ``--version`` is fast.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence

from .. import __version__

SWITCHES = ("--config-test", "--convert-config-to-alpha")
TRUE_VALUES = ("1", "t", "T", "TRUE", "true", "True")
EXIT_BROKEN_PIPE = 141  # as of a program that SIGPIPE has ended (128 + 13)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in *arguments* and return the exit code."""
    if arguments is None:
        gc.disable()  # until the server has started: nearly all objects are kept
        arguments = sys.argv[1:]
    arguments = list(arguments)
    try:
        code = _main(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output needs no more of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def _main(arguments: list[str]) -> int:
    if _requests_version(iter(arguments)):
        print(f"authproxy {__version__}")
        return 0
    if arguments[:1] == ["demo"]:
        from authproxy_demo import main as demo

        gc.enable()
        return demo(arguments[1:])
    from ..config.read.resolved import ConfigError, UsageError

    try:
        return _run_command(arguments)
    except UsageError as error:
        _print_problems("invalid command line:", error.problems)
        print("authproxy --help lists flags and commands", file=sys.stderr)
        return error.exit_code
    except ConfigError as error:
        _print_warnings(error.warnings)
        _print_problems("invalid configuration:", error.problems)
        return error.exit_code


def _requests_version(arguments: Iterator[str]) -> bool:
    """Return whether the command line requests the version.

    As in oauth2-proxy, ``--version`` takes precedence over all flags, known or not,
    unless ``--help``, ``--`` or an invalid switch comes first.
    """
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument in ("--", "--help", "--help-all") or argument.startswith("-h"):
            return False
        if name == "--version":
            return not equals or value in TRUE_VALUES
        if name in SWITCHES:
            if equals and value not in TRUE_VALUES:
                return False
        elif name in ("--config", "--alpha-config") and not equals:
            next(arguments, None)
    return False


def _run_command(arguments: list[str]) -> int:
    command, *rest = arguments or [""]
    match command:
        case "explain":
            from .explain import main as explain

            return explain(rest)
        case "sessions":
            from .sessions_cli import main as sessions

            return sessions(rest)
        case "keycloak-realm":
            from .keycloak_realm import main as keycloak_realm

            return keycloak_realm(rest)
        case "init":
            from .init import main as init

            return init(rest)
        case "migrate":
            from .migrate import main as migrate

            return migrate(rest)
        case "completion":
            from .completion import main as completion

            return completion(rest)
        case "schema":
            from .schema import main as schema

            return schema(rest)
        case "help" if rest[:1] == ["--man"]:
            from .man import main as man

            return man()
        case "help":
            return _main([*rest[:1], "--help"])
    if command and not command.startswith("-"):
        _reject_command(command)
    return _run(arguments)


def _reject_command(command: str) -> None:
    """Raise `UsageError`; the text is shown only if it resembles a command."""
    from ..config.help import COMMANDS
    from ..config.read.resolved import UsageError
    from ..config.read.sources import closest_name

    near = closest_name(command, COMMANDS)
    hint = f": got {command!r}; did you mean {near}?" if near else ""
    raise UsageError((f"the first argument is neither a flag nor a command{hint}",))


def _run(arguments: list[str]) -> int:
    from ..config.read.sources import parse_flags

    flags = parse_flags(arguments)
    if flags.help:
        from ..config.help import common_help, full_help

        print(full_help() if flags.help == "all" else common_help())
        return 0
    if flags.control.get("convert-config-to-alpha"):
        from ..config.alpha.convert import convert_to_alpha

        text, warnings = convert_to_alpha(flags, os.environ)
        _print_warnings(warnings)
        print(text, end="")
        return 0
    from ..config.load import build_settings

    settings = build_settings(flags, os.environ)
    if flags.control.get("config-test"):
        _print_warnings(settings.warnings)
        print("configuration is valid")
        return 0
    from ..process.launcher import run

    return run(settings, lambda: build_settings(flags, os.environ))


def _print_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _print_problems(header: str, problems: Sequence[str]) -> None:
    print(header, file=sys.stderr)
    for problem in problems:
        print(f"  {problem}", file=sys.stderr)
