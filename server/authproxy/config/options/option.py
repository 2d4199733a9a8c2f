"""What the option table is made of.

An option is one setting under three names: its TOML key, its flag and its environment
variable. The table (``options.py``) is the single source of the parser, of ``--help``
and of OPTIONS.md. Nothing heavy is imported here: ``--help`` has to be quick.
"""

from __future__ import annotations

from types import MemberDescriptorType
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

Kind: TypeAlias = Literal["string", "bool", "int", "duration", "list", "string-bool"]
Value: TypeAlias = str | bool | int | float | tuple[str, ...]

# "full": does what it says. "refused": a value other than the default is an error,
# for its silent absence would weaken the protection or change what users see.
# "idle": a value other than the default is accepted with a warning.
Support: TypeAlias = Literal["full", "refused", "idle"]

ENVIRONMENT_PREFIX = "OAUTH2_PROXY_"


class Option(NamedTuple):
    """One row of the table.

    ``default`` has the type of ``kind``: str, bool, int, float seconds, or a tuple of
    str. ``setting`` is the field that the option sets, as an attribute of its settings
    class (``CookieSettings.path``): mypy checks that it exists. ``minimum`` and ``maximum`` bound numbers (seconds
    for durations). ``note`` tells what comes of an option that is not supported, or
    how ours differs from the original. ``own`` options are not in oauth2-proxy.
    """

    key: str
    kind: Kind
    default: Value
    help: str
    setting: object = None
    flag: str = ""
    group: str = ""
    support: Support = "full"
    note: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = 0
    maximum: float | None = None
    secret: bool = False
    is_extension: bool = False

    @property
    def supported(self) -> bool:
        return self.support == "full"

    def field_of(self, settings: type[Struct]) -> str:
        """Return the name of the field of *settings* that the option sets, or ""."""
        field = self.setting
        if isinstance(field, MemberDescriptorType) and field.__objclass__ is settings:
            return field.__name__
        return ""

    @property
    def environment(self) -> str:
        """The name of the environment variable, or "" (control flags have none)."""
        return ENVIRONMENT_PREFIX + self.key.upper() if self.key else ""


def in_group(group: str, *rows: Option) -> tuple[Option, ...]:
    """*rows* with their group set, and the flag derived where none is given."""
    return tuple(
        row._replace(group=group, flag=row.flag or row.key.replace("_", "-"))
        for row in rows
    )
