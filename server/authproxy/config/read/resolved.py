"""The chosen value of each option, and what is wrong with them.

Everything that reads options adds its findings here instead of raising, so that all
problems of a configuration are told at once.
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
    """The configuration can't be used; ``problems`` lists everything, no secrets.

    ``warnings`` are what was found beside; they may explain a problem. ``files`` are
    those that the configuration names; a change of one may solve it.
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
    """The command line can't be read."""

    exit_code = 2


class OptionValue(NamedTuple):
    """A value that somebody gave; ``origin`` says where, for messages."""

    value: Value
    origin: str


def display_value(option: Option, value: object) -> str:
    """*value* for a message: secrets are hidden, long texts are cut."""
    if option.secret:
        return "a secret (not shown)"
    text = USERINFO.sub("//***@", repr(value))
    return text if len(text) <= MAX_DISPLAY_LENGTH else text[:MAX_DISPLAY_LENGTH] + "…"


class ResolvedOptions:
    """Typed access to the values, and the list of problems and warnings so far.

    ``failed`` holds the keys that have a problem: their values are the defaults.
    ``names`` says how a key is called where it was given, when that is another name.
    ``tables`` are those of the TOML file that are no options, with their origin.
    ``files`` holds the names of files and folders that were read, or looked for,
    ``environ`` the environment's variables.
    """

    def __init__(self) -> None:
        self.given: dict[str, OptionValue] = {}
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.failed: set[str] = set()
        self.tables: dict[str, tuple[Any, str]] = {}
        self.names: dict[str, str] = {}
        self.files: set[str] = set()
        self.environ: Mapping[str, str] = {}

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
        """The value of *key*, of the type that its kind says."""
        given = self.given.get(key)
        return BY_KEY[key].default if given is None else given.value

    def _typed(self, key: str, kind: type[T]) -> T:
        value = self.value(key)
        if not isinstance(value, kind):
            raise TypeError(f"{key} is no {kind.__name__}")
        return value

    def is_default(self, key: str) -> bool:
        """Whether *key* has its default value, given or not."""
        given = self.given.get(key)
        return given is None or given.value == BY_KEY[key].default

    def label(self, key: str) -> str:
        """*key*, with the place it came from when it was given."""
        given = self.given.get(key)
        name = self.names.get(key, key)
        return f"{name} ({given.origin})" if given is not None else name

    def add_problem(self, key: str, text: str) -> None:
        """Note a problem with the value of *key*."""
        self.failed.add(key)
        self.problems.append(f"{self.label(key)}: {text}")

    def add_warning(self, key: str, text: str) -> None:
        """Note something about *key* that the operator should know."""
        self.warnings.append(f"{self.label(key)}: {text}")

    def add_mismatch(self, key: str, value: object, expected: str) -> None:
        """Note that *value* came where something else was expected."""
        self.add_problem(
            key, f"got {display_value(BY_KEY[key], value)}, expected {expected}"
        )
