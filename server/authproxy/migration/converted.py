"""A configuration of authproxy that is made from the options of another program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ..config.options.table import BY_KEY
from ..config.read.sources import closest_name
from .configuration import NamedText, Sources, load_configuration

PLACEHOLDERS = {  # of the secrets, which are not printed
    "OAUTH2_PROXY_CLIENT_SECRET": "placeholder",
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
}
NO_PROVIDER = "CHOOSE-ONE"  # no type, so authproxy does not start with it
Setting = str | bool | int | list[str]


class Line(NamedTuple):
    """An option of authproxy and the option that it is made from."""

    key: str
    value: Setting
    origin: str


class Converted:
    """The options, rules and notes so far.

    ``unmapped`` are options without a counterpart, with the reason; ``access_notes`` are
    those that decide about access. ``variables`` are to be set instead of secrets, which
    are not printed.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.lines: dict[str, Line] = {}
        self.rules: list[dict[str, Any]] = []
        self.unmapped: dict[str, str] = {}
        self.access_notes: list[str] = []
        self.variables: dict[str, str] = {
            "OAUTH2_PROXY_COOKIE_SECRET": "a new random secret of 32 bytes"
        }

    def set(self, key: str, value: Setting, origin: str) -> None:
        self.lines[key] = Line(key, value, origin)

    def extend(self, key: str, values: Iterable[str], origin: str) -> None:
        """Add *values* to the list *key*, each once."""
        line = self.lines.get(key)
        old = line.value if line is not None and isinstance(line.value, list) else []
        origins = [line.origin, origin] if line is not None else [origin]
        self.set(
            key,
            list(dict.fromkeys([*old, *values])),
            ", ".join(dict.fromkeys(origins)),
        )

    def set_secret(self, key: str, origin: str) -> None:
        self.variables[BY_KEY[key].environment] = f"the value of {origin}"

    def set_no_provider(self, kind: str, name: str, why: str) -> None:
        """Set an invalid provider type, because the default would allow other users."""
        self.set("provider", NO_PROVIDER, f"{name}: no counterpart of {kind!r}")
        self.skip(name, why, access=True)

    def skip(self, name: str, why: str, *, access: bool = False) -> None:
        """Note that an option has no counterpart; *access*: it decides about access."""
        self.unmapped[printable(name)] = why
        if access:
            self.access_notes.append(f"{printable(name)}: {why}")

    def skip_unknown(self, name: str, known: Iterable[str]) -> None:
        near = closest_name(name, known)
        hint = f"; did you mean {near}?" if near else ""
        self.skip(name, f"unknown option of {self.program}{hint}")

    def format(self) -> str:
        """Return the TOML file."""
        return "\n".join(self._format_lines()) + "\n"

    def _format_lines(self) -> Iterator[str]:
        yield f"# Converted from {self.program} by authproxy migrate."
        yield "# Check the file: authproxy --config FILE --config-test"
        yield "#"
        yield "# Secrets are not printed. Set these variables:"
        for name, text in self.variables.items():
            yield f"#   {name}: {text}"
        if self.unmapped:
            yield "#"
            yield "# Without a counterpart:"
            for name, why in self.unmapped.items():
                yield f"#   {name}: {why}"
        yield ""
        for line in self.lines.values():
            yield f"{line.key} = {_toml(line.value)}  # {line.origin}"
        for rule in self.rules:
            yield ""
            yield "[[access_rules]]"
            for key, value in rule.items():
                yield f"{key} = {_toml(value)}"

    def problems(self) -> tuple[str, ...]:
        """Return what prevents a start with the file, and options without effect."""
        sources = Sources(
            environ=PLACEHOLDERS,
            toml=NamedText("the new configuration", self.format()),
        )
        loaded = load_configuration(sources)
        unused = [text for text in loaded.warnings if "has no effect" in text]
        return (*loaded.problems, *loaded.missing, *unused)


def _toml(value: Setting) -> str:
    # JSON is TOML for these types, as strings have no control characters.
    return json.dumps(value, ensure_ascii=False)


def entries(value: object) -> list[str]:
    """Return the entries of a list, or of a comma-separated string."""
    items = value if isinstance(value, list) else str(value).split(",")
    return [text for item in items if (text := printable(item).strip())]


def printable(value: object) -> str:
    """Return a scalar as text without control characters."""
    return "".join(char for char in str(value) if char.isprintable())


def is_true(value: object) -> bool:
    return str(value).lower() in ("1", "t", "true", "yes", "")


def duration(value: object, unit: str) -> str:
    """Return a whole number with its unit; raises ValueError for another value."""
    return f"{whole_number(value)}{unit}"


def whole_number(value: object) -> int:
    """Return a number that is not negative; raises ValueError for another value."""
    number = int(str(value))
    if number < 0:
        raise ValueError("negative")
    return number


def normalized(name: str) -> str:
    """Return *name* as variables and files share it: letters and digits, lower case."""
    return "".join(char for char in name.lower() if char.isalnum())


def by_normalized_name(names: Iterable[str]) -> Mapping[str, str]:
    """Map normalized names to the names."""
    return {normalized(name): name for name in names}
