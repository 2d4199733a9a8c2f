"""``authproxy migrate``: what a switch from another program changes.

``--check`` reports the differences from oauth2-proxy that touch a configuration, without
contact to a provider, store or upstream. ``--from`` prints the configuration of another
program as one of authproxy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..config.read.resolved import ConfigError, UsageError
from ..config.read.sources import closest_name, requests_help

USAGE = (
    "usage: authproxy migrate --check [--json] [--all] [--accept ID]... FILE... "
    "[-- FLAGS]",
    "       authproxy migrate --from vouch|tfa FILE... [-- FLAGS]",
)
PROGRAMS = ("vouch", "tfa")
HELP = (
    "Reports which differences from oauth2-proxy touch a configuration, what to set for",
    "the old behavior, and how to go back. FILE is oauth2-proxy's TOML file, a file with",
    "variables, an alpha file, or the values.yaml of the official or Bitnami chart; - is",
    "standard input. Several files are one configuration. The variables of this process",
    "are ignored.",
    "",
    "  --json        JSON for scripts",
    "  --all         also the differences that need no attention",
    "  --accept ID   this difference was looked at, may be repeated",
    "  -- FLAGS      flags of oauth2-proxy, or of traefik-forward-auth",
    "",
    "--from prints a configuration made from that of vouch-proxy (config.yml or variables)",
    "or of traefik-forward-auth (INI file, variables or flags), without secrets, and with",
    "the options that have no counterpart.",
    "",
    "Exit codes: 0 nothing to do, 1 differences or errors that need a look, 2 a file or",
    "the command line is invalid.",
)
SWITCHES = ("--check", "--json", "--all")
EXIT_UNREADABLE = 2


class MigrateCommand(NamedTuple):
    """The program to convert from or "", the switches, and the arguments."""

    program: str
    switches: frozenset[str]
    accepted: tuple[str, ...]
    files: tuple[str, ...]
    flags: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code. Raises `UsageError`."""
    own, flags = _split(arguments)
    if requests_help(own):
        sys.stdout.write("\n".join((*USAGE, "", *HELP, "")))
        return 0
    command = _parse(own, flags)
    try:
        return _convert(command) if command.program else _check(command)
    except UsageError:
        raise
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"authproxy migrate: {problem}\n")
        return EXIT_UNREADABLE


def _split(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the arguments of the command, and those after ``--``."""
    words = list(arguments)
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def _parse(arguments: Sequence[str], flags: tuple[str, ...]) -> MigrateCommand:
    switches: set[str] = set()
    accepted: list[str] = []
    files: list[str] = []
    program = ""
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if argument in SWITCHES:
            switches.add(argument)
        elif name == "--accept":
            accepted.append(value if equals else next(rest, ""))
        elif name == "--from":
            program = value if equals else next(rest, "")
            if program not in PROGRAMS:
                raise UsageError((f"--from {program}: expected vouch or tfa", *USAGE))
        elif argument.startswith("-") and argument != "-":
            raise UsageError((f"{name}: unknown flag", *USAGE))
        else:
            files.append(argument)
    is_valid = not (switches or accepted) if program else "--check" in switches
    if not is_valid or not (files or flags):
        raise UsageError(USAGE)
    _validate_ids(accepted)
    return MigrateCommand(
        program, frozenset(switches), tuple(accepted), tuple(files), flags
    )


def _validate_ids(accepted: Sequence[str]) -> None:
    """Raise `UsageError` for an unknown ID, because it would accept nothing."""
    from ..migration.differences.table import DIFFERENCES

    known = [row.id for row in DIFFERENCES]
    for name in accepted:
        if name not in known:
            near = closest_name(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError((f"--accept {name}: unknown difference{hint}",))


def _check(command: MigrateCommand) -> int:
    from ..migration.check import Report, find_differences, format_json, format_text
    from ..migration.configuration import load_configuration
    from ..migration.files import read_sources

    sources = read_sources(command.files, command.flags)
    configuration = load_configuration(sources)
    findings = find_differences(configuration, command.accepted)
    report = Report(command.files, sources, configuration, findings)
    if "--json" in command.switches:
        sys.stdout.write(json.dumps(format_json(report), indent=2) + "\n")
    else:
        for line in format_text(report, "--all" in command.switches):
            sys.stdout.write(line + "\n")
    return report.exit_code


def _convert(command: MigrateCommand) -> int:
    """Print the converted configuration; its problems go to standard error."""
    from ..migration.files import read_file
    from ..migration.forward_auth import convert_forward_auth
    from ..migration.vouch import convert_vouch

    files = [read_file(path) for path in command.files]
    if command.program == "tfa":
        converted = convert_forward_auth(files, command.flags)
    elif len(files) != 1 or command.flags:
        raise UsageError(("--from vouch: expected one file", *USAGE))
    else:
        converted = convert_vouch(files[0])
    sys.stdout.write(converted.format())
    problems = (*converted.access_notes, *converted.problems())
    for problem in problems:
        sys.stderr.write(f"to complete: {problem}\n")
    return 1 if problems else 0
