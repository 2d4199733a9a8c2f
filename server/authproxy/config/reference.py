"""Render the option table as ``--help`` and docs/options.md."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from itertools import groupby

from .options.option import Option
from .options.table import CONTROL_OPTIONS, FLAT_ONLY, OPTIONS
from .read.values import format_duration

INTRODUCTION = """\
# Options

Each option has a TOML key, a flag and an environment variable. A flag takes precedence
over the variable, and the variable over the file. This page is generated:
`python -m authproxy.config.reference > docs/options.md`.

*extension*: the option is not in oauth2-proxy. *flat*: the option can't be used with
`--alpha-config FILE`, a YAML file in the format of oauth2-proxy's alpha configuration,
which has an equivalent key.
"""

INDENT = " " * 8


def usage() -> str:
    """Return the text of ``--help``."""
    lines = [
        "usage: authproxy [--config FILE] [flags]",
        "       authproxy demo",
        "       authproxy explain --config FILE [flags] METHOD URL [--user USER] …",
        "       authproxy sessions list|show|revoke --config FILE [flags] …",
        "",
        "Each flag is also a key of the TOML file and an environment variable; see",
        "docs/options.md. Flags take precedence over variables, variables over the file.",
    ]
    for group, options in _groups(CONTROL_OPTIONS + OPTIONS):
        lines += ["", f"{group}:"]
        for option in options:
            lines += _flag_lines(option)
    return "\n".join(lines)


def _flag_lines(option: Option) -> list[str]:
    kind = "" if option.kind == "bool" else f" {option.kind}"
    default = f" (default {_format_default(option)})" if option.default else ""
    text = f"{option.help}{default}{_marks(option)}"
    return [
        f"  --{option.flag}{kind}",
        *textwrap.wrap(text, 78, initial_indent=INDENT, subsequent_indent=INDENT),
    ]


def markdown() -> str:
    """Return the text of docs/options.md."""
    parts = [INTRODUCTION]
    for group, options in _groups(OPTIONS):
        parts.append(f"\n## {group}\n\n")
        parts.append("| TOML key, flag, variable | kind | default | meaning |\n")
        parts.append("| --- | --- | --- | --- |\n")
        parts += [_table_row(option) for option in options]
    return "".join(parts)


def _groups(options: tuple[Option, ...]) -> Iterator[tuple[str, list[Option]]]:
    for group, members in groupby(options, key=lambda option: option.group):
        yield group, list(members)


def _table_row(option: Option) -> str:
    names = f"`{option.key}`<br>`--{option.flag}`<br>`{option.environment}`"
    text = option.help + _marks(option)
    if option.choices:
        choices = ", ".join(f"`{choice}`" for choice in option.choices if choice)
        text += f"; one of {choices}"
    if option.note:
        text += f"; {option.note}"
    text = text.replace("|", "\\|")
    return f"| {names} | {option.kind} | {_format_default(option)} | {text} |\n"


def _marks(option: Option) -> str:
    marks = ["extension"] if option.is_extension else []
    marks += ["flat"] if option.key in FLAT_ONLY else []
    return f" [{', '.join(marks)}]" if marks else ""


def _format_default(option: Option) -> str:
    default = option.default
    if option.kind == "duration":
        return format_duration(float(str(default)))
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return ", ".join(default) or "empty"
    return str(default) or "empty"


if __name__ == "__main__":
    sys.stdout.write(markdown())
