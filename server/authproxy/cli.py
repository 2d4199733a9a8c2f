"""The command line: ``--config FILE``, ``--config-test``, ``--version``, ``demo``.

Imports are inside the functions, so that ``--version`` and ``--help`` are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        print(f"authproxy {__version__}")
        return 0
    if given[:1] == ["demo"]:
        from .demo import main as demo

        return demo(given[1:])
    from .config.collected import ConfigError

    try:
        return _run(given)
    except ConfigError as error:
        print("invalid configuration:", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        if error.exit_code == 2:
            print("authproxy --help lists all flags", file=sys.stderr)
        return error.exit_code


def _run(arguments: list[str]) -> int:
    from .config.sources import read_flags

    flags = read_flags(arguments)
    if flags.help:
        from .config.reference import usage

        print(usage())
        return 0
    from .config.load import build

    settings = build(flags, os.environ)
    if flags.control.get("config-test"):
        for warning in settings.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print("configuration is valid")
        return 0
    from .workers import run

    return run(settings)
