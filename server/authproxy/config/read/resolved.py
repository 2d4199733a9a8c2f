"""The resolved value of each option, with the problems and warnings found so far.

All readers and builders add their findings here instead of raising, so that one run
reports every problem of a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from authproxy_core.errors import SettingsError

from ..options.option import Option, Value
from ..options.table import BY_KEY

T = TypeVar("T")

MAX_DISPLAY_LENGTH = 120  # characters of a value in a message
USERINFO = re.compile(r"//[^/?#@\s]*@")


class ConfigError(SettingsError):
    """The configuration is invalid; ``problems`` lists every problem, no secrets.

    ``warnings`` may explain a problem. ``files`` are the files that the configuration
    names: a reload watches them, because a change of one may solve a problem.
    """

    code = "config_invalid"
    exit_code = 1

    def __init__(
        self,
        problems: tuple[str, ...],
        warnings: tuple[str, ...] = (),
        files: tuple[str, ...] = (),
    ) -> None:
        super().__init__(problems)
        self.warnings = warnings
        self.files = files


class UsageError(ConfigError):
    """The command line is invalid."""

    exit_code = 2


class OptionValue(NamedTuple):
    """An explicit value; ``origin`` is its flag, variable or file, for messages."""

    value: Value
    origin: str


def display_value(option: Option, value: object) -> str:
    """Format *value* for a message: secrets are hidden, long values are cut."""
    if option.secret:
        return "a secret (not shown)"
    text = USERINFO.sub("//***@", repr(value))
    return text if len(text) <= MAX_DISPLAY_LENGTH else text[:MAX_DISPLAY_LENGTH] + "…"


class ResolvedOptions:
    """Typed access to the values, and the problems and warnings so far.

    ``explicit`` holds the values set by a flag, variable or file. ``failed`` holds the
    keys with a problem; their values are the defaults. ``names`` maps a key to its name
    in an alpha file. ``tables`` are the tables of the TOML file that are not options,
    each with its origin. ``files`` are the names of all files and directories that were
    read or looked for. ``provider_options`` are those of each provider in an alpha file.
    """

    def __init__(self) -> None:
        self.explicit: dict[str, OptionValue] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.failed: set[str] = set()
        self.tables: dict[str, tuple[Any, str]] = {}
        self.names: dict[str, str] = {}
        self.files: set[str] = set()
        self.environ: Mapping[str, str] = {}
        self.provider_options: tuple[ResolvedOptions, ...] = ()

    def string(self, key: str) -> str:
        return self._typed(key, str)

    def boolean(self, key: str) -> bool:
        return self._typed(key, bool)

    def integer(self, key: str) -> int:
        return self._typed(key, int)

    def seconds(self, key: str) -> float:
        return self._typed(key, float)

    def strings(self, key: str) -> tuple[str, ...]:
        return self._typed(key, tuple)

    def value(self, key: str) -> Value:
        """Return the explicit or default value of *key*, of the type of its kind."""
        explicit = self.explicit.get(key)
        return BY_KEY[key].default if explicit is None else explicit.value

    def _typed(self, key: str, expected: type[T]) -> T:
        value = self.value(key)
        if not isinstance(value, expected):
            raise TypeError(f"{key} is not of type {expected.__name__}")
        return value

    def is_default(self, key: str) -> bool:
        """Return whether *key* has its default value, explicit or not."""
        explicit = self.explicit.get(key)
        return explicit is None or explicit.value == BY_KEY[key].default

    def label(self, key: str) -> str:
        """Return the name of *key* for messages, with the origin of its value."""
        explicit = self.explicit.get(key)
        name = self.names.get(key, key)
        return f"{name} ({explicit.origin})" if explicit is not None else name

    def add_problem(self, key: str, text: str) -> None:
        """Add a problem with the value of *key*."""
        self.failed.add(key)
        self.problems.append(f"{self.label(key)}: {text}")

    def add_warning(self, key: str, text: str) -> None:
        """Add a warning about the value of *key*."""
        self.warnings.append(f"{self.label(key)}: {text}")

    def add_mismatch(self, key: str, value: object, expected: str) -> None:
        """Add the problem that *value* is not what *expected* describes."""
        self.add_problem(
            key, f"got {display_value(BY_KEY[key], value)}, expected {expected}"
        )
