"""``authproxy schema``: print the JSON schema of a configuration file."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ..config.read.resolved import UsageError
from ..config.read.sources import requests_help

USAGE = "usage: authproxy schema toml|alpha"
HELP = (
    "Prints the JSON schema of the TOML file or of the alpha file (YAML), with which",
    "editors complete and check the options.",
)


def main(arguments: Sequence[str]) -> int:
    """Print the schema; raises `UsageError`."""
    if requests_help(arguments):
        sys.stdout.write("\n".join((USAGE, "", *HELP, "")))
        return 0
    from ..config.json_schema import json_schema

    match list(arguments):
        case ["toml"]:
            schema = json_schema("toml")
        case ["alpha"]:
            schema = json_schema("alpha")
        case _:
            raise UsageError((USAGE,))
    sys.stdout.write(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0
