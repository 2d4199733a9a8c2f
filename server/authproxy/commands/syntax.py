"""The command line for completion: commands, their arguments, flags and values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, TypeAlias

from authproxy_core.settings.provider_types import PROVIDER_TYPES

from ..config.help import COMMANDS
from ..config.options.option import Option
from ..config.options.table import CONTROL_OPTIONS, OPTIONS
from ..migration.differences.table import DIFFERENCES
from . import explain, init, keycloak_realm, migrate, sessions_cli

CONFIGURED = ("explain", "sessions")  # commands with the flags of the server
SHELLS = ("bash", "zsh", "fish")
FILE_SUFFIXES = ("_file", "_files", "_path", "_json")
FILE_FLAGS = ("config", "alpha-config")
NO_FILES = ("ping_path", "ready_path", "cookie_path")  # paths of URLs
# Values of a flag: a list, names of files or directories, any text, or no value.
Values: TypeAlias = tuple[str, ...] | Literal["file", "directory", "text", "switch"]


class Flag(NamedTuple):
    """A flag with its dashes, its purpose, and its values."""

    name: str
    purpose: str
    values: Values


class Command(NamedTuple):
    """A command: its first arguments (or names of files), and its own flags.

    ``is_configured``: it also has the flags of the server.
    """

    name: str
    purpose: str
    words: Values
    flags: tuple[Flag, ...]
    is_configured: bool


def server_flags() -> tuple[Flag, ...]:
    """Return the flags of the server, each once."""
    flags = {
        option.flag: Flag(f"--{option.flag}", _purpose(option), _values(option))
        for option in (*CONTROL_OPTIONS, *OPTIONS)
    }
    return (*flags.values(), Flag("--help", "common flags", "switch"))


def commands() -> tuple[Command, ...]:
    """Return all commands, in the order of ``--help``."""
    differences = tuple(row.id for row in DIFFERENCES)
    syntax: Mapping[str, tuple[Values, Iterable[Flag]]] = {
        "demo": ("text", (Flag("--port", "first port", "text"),)),
        "init": ("file", _parser_flags(init.parser())),
        "explain": ("text", _texts(explain.USER_FLAGS)),
        "sessions": (
            sessions_cli.ACTIONS,
            (*_texts(("--user", "--sid")), *_switches(("--all", "--json"))),
        ),
        "keycloak-realm": ("text", _parser_flags(keycloak_realm.parser())),
        "migrate": (
            "file",
            (
                *_switches(migrate.SWITCHES),
                Flag("--from", "", migrate.PROGRAMS),
                Flag("--accept", "", differences),
            ),
        ),
        "completion": (SHELLS, ()),
        "schema": (("toml", "alpha"), ()),
        "help": (tuple(COMMANDS), _switches(("--man",))),
    }
    return tuple(
        _command(name, purpose, *syntax[name])
        for name, (_, purpose) in COMMANDS.items()
    )


def _command(name: str, purpose: str, words: Values, flags: Iterable[Flag]) -> Command:
    is_configured = name in CONFIGURED
    by_name = {flag.name: flag for flag in flags}
    if not is_configured:
        by_name["--help"] = Flag("--help", "usage", "switch")
    return Command(name, purpose, words, tuple(by_name.values()), is_configured)


def _purpose(option: Option) -> str:
    return option.help.partition("; ")[0].partition(": ")[0]


def _values(option: Option) -> Values:
    if option.kind in ("bool", "string-bool"):
        return "switch" if option.kind == "bool" else ("true", "false")
    if option.key == "provider":
        return tuple(sorted(PROVIDER_TYPES))
    if option.choices:
        return tuple(filter(None, option.choices))
    if option.key.endswith("_dir"):
        return "directory"
    is_file = option.key.endswith(FILE_SUFFIXES) and option.key not in NO_FILES
    return "file" if is_file or option.flag in FILE_FLAGS else "text"


def _texts(names: Iterable[str]) -> Iterator[Flag]:
    return (Flag(name, "", "text") for name in names)


def _switches(names: Iterable[str]) -> Iterator[Flag]:
    return (Flag(name, "", "switch") for name in names)


def _parser_flags(parser: argparse.ArgumentParser) -> Iterator[Flag]:
    """Yield the long flags of a command that uses argparse."""
    for action in parser._actions:
        for name in action.option_strings:
            if name.startswith("--"):
                purpose = (action.help or "").replace("%%", "%").partition("; ")[0]
                yield Flag(name, purpose, _action_values(name, action))


def _action_values(name: str, action: argparse.Action) -> Values:
    if action.nargs == 0:
        return "switch"
    if name.endswith("-file"):
        return "file"
    return {question.flag: question.choices for question in init.QUESTIONS}.get(
        name, ()
    ) or "text"
