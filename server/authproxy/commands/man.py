"""``authproxy help --man``: the manual page, made from the option table."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

from .. import __version__
from ..config.help import COMMANDS, LEGEND, SOURCES
from ..config.options.option import Option
from ..config.options.table import CONTROL_OPTIONS, OPTIONS
from ..config.reference import format_default, groups_of, marks

DESCRIPTION = (
    "authproxy adds login and access rules to web applications. It signs users in at an "
    "OpenID Connect provider, responds to the auth checks of gateways, or forwards the "
    "requests itself. It reads the configuration of oauth2-proxy."
)
LINE_LENGTH = 64  # characters of a line before escapes, which mandoc limits to 80
EXIT_CODES = (
    ("0", "success"),
    ("1", "invalid configuration, or the command failed"),
    ("2", "invalid command line"),
)
EXAMPLES = (
    ("authproxy init authproxy.cfg", "write a first configuration"),
    ("authproxy --config authproxy.cfg --config-test", "check it"),
    ("authproxy --config authproxy.cfg", "run the server"),
)


def main() -> int:
    """Print the page."""
    sys.stdout.write(manual_page())
    return 0


def manual_page() -> str:
    """Return the page as roff with the macros of man(7)."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH AUTHPROXY 1 "" "authproxy {__version__}"'
    yield ".SH NAME"
    yield "authproxy \\- login and access rules for web applications"
    yield ".SH SYNOPSIS"
    yield "\\fBauthproxy\\fR [\\fB\\-\\-config\\fR \\fIFILE\\fR] [\\fIFLAGS\\fR]"
    for name, (arguments, _) in COMMANDS.items():
        yield ".br"
        yield f"\\fBauthproxy {_escape(name)}\\fR {_escape(arguments)}"
    yield ".SH DESCRIPTION"
    yield from _text(DESCRIPTION)
    yield ".PP"
    yield from _text(" ".join(SOURCES))
    yield ".SH COMMANDS"
    for name, (_, purpose) in COMMANDS.items():
        yield from _item(name, purpose)
    yield ".SH OPTIONS"
    for line in LEGEND:
        kind, _, text = line.partition("  ")
        yield from _item(kind, text.strip())
    for group, options in groups_of(CONTROL_OPTIONS + OPTIONS):
        yield f".SS {_escape(group)}"
        for option in options:
            yield from _option(option)
    yield ".SH EXIT STATUS"
    for code, text in EXIT_CODES:
        yield from _item(code, text)
    yield ".SH EXAMPLES"
    for command, text in EXAMPLES:
        yield from _item(command, text)


def _option(option: Option) -> Iterator[str]:
    kind = "" if option.kind == "bool" else f" \\fI{option.kind}\\fR"
    default = f" (default {format_default(option)})" if option.default else ""
    text = f"{option.help}{default}{marks(option)}"
    yield ".TP"
    yield f"\\fB{_escape('--' + option.flag)}\\fR{kind}"
    yield from _text(text)


def _item(head: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield f"\\fB{_escape(head)}\\fR"
    yield from _text(text)


def _text(text: str) -> Iterator[str]:
    """Yield *text* as lines of roff, which fills them again."""
    lines = textwrap.wrap(
        text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False
    )
    yield from map(_escape, lines)


def _escape(text: str) -> str:
    """Escape *text* for roff: backslashes, dashes of flags, and leading dots."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
