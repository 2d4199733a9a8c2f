"""The option table as text: ``--help`` and OPTIONS.md."""

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

Every option has a TOML key, a flag and an environment variable. A flag beats the
variable, the variable beats the file. This page is made from the option table:
`python -m authproxy.config.reference > server/OPTIONS.md`.

An option marked *own* is not in oauth2-proxy. One marked *flat* can't be used with
`--alpha-config FILE`, a YAML file that says the same in the form of oauth2-proxy's alpha
configuration.
"""

INDENT = " " * 8


def usage() -> str:
    """What ``--help`` prints."""
    lines = [
        "usage: authproxy [--config FILE] [flags]",
        "       authproxy demo",
        "       authproxy explain --config FILE [flags] METHOD URL [--user USER] …",
        "       authproxy sessions list|show|revoke --config FILE [flags] …",
        "",
        "Each flag is also a key of the TOML file and an environment variable; see",
        "OPTIONS.md. Flags beat variables, and those beat the file.",
    ]
    for group, options in _groups(CONTROL_OPTIONS + OPTIONS):
        lines += ["", f"{group}:"]
        for option in options:
            lines += _paragraph(option)
    return "\n".join(lines)


def _paragraph(option: Option) -> list[str]:
    kind = "" if option.kind == "bool" else f" {option.kind}"
    default = f" (default {_default(option)})" if option.default else ""
    text = f"{option.help}{default}{_mark(option)}"
    return [
        f"  --{option.flag}{kind}",
        *textwrap.wrap(text, 78, initial_indent=INDENT, subsequent_indent=INDENT),
    ]


def markdown() -> str:
    """The text of OPTIONS.md."""
    parts = [INTRODUCTION]
    for group, options in _groups(OPTIONS):
        parts.append(f"\n## {group}\n\n")
        parts.append("| TOML key, flag, variable | kind | default | meaning |\n")
        parts.append("| --- | --- | --- | --- |\n")
        parts += [_row(option) for option in options]
    return "".join(parts)


def _groups(options: tuple[Option, ...]) -> Iterator[tuple[str, list[Option]]]:
    for group, members in groupby(options, key=lambda option: option.group):
        yield group, list(members)


def _row(option: Option) -> str:
    names = f"`{option.key}`<br>`--{option.flag}`<br>`{option.environment}`"
    text = option.help + _mark(option)
    if option.choices:
        known = ", ".join(f"`{choice}`" for choice in option.choices if choice)
        text += f"; one of {known}"
    if option.note:
        text += f"; {option.note}"
    text = text.replace("|", "\\|")
    return f"| {names} | {option.kind} | {_default(option)} | {text} |\n"


def _mark(option: Option) -> str:
    marks = ["own"] if option.is_extension else []
    marks += [] if option.support == "full" else [option.support]
    marks += ["flat"] if option.key in FLAT_ONLY else []
    return f" [{', '.join(marks)}]" if marks else ""


def _default(option: Option) -> str:
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
