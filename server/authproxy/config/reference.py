"""Render the option table as docs/options.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from .options.option import Option
from .options.table import FLAT_ONLY, OPTIONS
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


def markdown() -> str:
    """Return the text of docs/options.md."""
    parts = [INTRODUCTION]
    for group, options in groups_of(OPTIONS):
        parts.append(f"\n## {group}\n\n")
        parts.append("| TOML key, flag, variable | kind | default | meaning |\n")
        parts.append("| --- | --- | --- | --- |\n")
        parts += [_table_row(option) for option in options]
    return "".join(parts)


def groups_of(options: tuple[Option, ...]) -> Iterator[tuple[str, list[Option]]]:
    """Yield each group and its options, in the order of the table."""
    for group, members in groupby(options, key=lambda option: option.group):
        yield group, list(members)


def _table_row(option: Option) -> str:
    names = f"`{option.key}`<br>`--{option.flag}`<br>`{option.environment}`"
    text = option.help + marks(option)
    if option.choices:
        choices = ", ".join(f"`{choice}`" for choice in option.choices if choice)
        text += f"; one of {choices}"
    if option.note:
        text += f"; {option.note}"
    text = text.replace("|", "\\|")
    return f"| {names} | {option.kind} | {format_default(option)} | {text} |\n"


def marks(option: Option) -> str:
    """Return the marks of *option* in brackets, or ""."""
    found = ["extension"] if option.is_extension else []
    found += ["flat"] if option.key in FLAT_ONLY else []
    return f" [{', '.join(found)}]" if found else ""


def format_default(option: Option) -> str:
    """Return the default of *option* as text."""
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
