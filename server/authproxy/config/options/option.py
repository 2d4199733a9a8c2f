"""The rows of the option table.

An option has three names: its TOML key, its flag and its environment variable. The table
(``table.py``) is the single source of the parsers, of ``--help`` and of docs/options.md.
"""

from __future__ import annotations

from types import MemberDescriptorType
from typing import Literal, NamedTuple, TypeAlias

from msgspec import Struct

Kind: TypeAlias = Literal["string", "bool", "int", "duration", "list", "string-bool"]
Value: TypeAlias = str | bool | int | float | tuple[str, ...]

ENVIRONMENT_PREFIX = "OAUTH2_PROXY_"


class Option(NamedTuple):
    """One row of the table.

    ``default`` has the type of ``kind``: str, bool, int, float seconds, or a tuple of
    str. ``setting`` is the settings field that the option sets, as an attribute of its
    class (``CookieSettings.path``), so mypy reports a field that does not exist.
    ``minimum`` and ``maximum`` limit numbers (seconds for durations). ``note`` is
    only in docs/options.md, such as a difference from oauth2-proxy. ``is_extension`` marks
    options that are not in oauth2-proxy.
    """

    key: str
    kind: Kind
    default: Value
    help: str
    setting: object = None
    flag: str = ""
    group: str = ""
    note: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = 0
    maximum: float | None = None
    secret: bool = False
    is_extension: bool = False

    def field_of(self, settings: type[Struct]) -> str:
        """Return the name of the field of *settings* that the option sets, or ""."""
        field = self.setting
        if isinstance(field, MemberDescriptorType) and field.__objclass__ is settings:
            return field.__name__
        return ""

    @property
    def environment(self) -> str:
        """The name of the environment variable, or "" for a control flag."""
        return ENVIRONMENT_PREFIX + self.key.upper() if self.key else ""


def in_group(group: str, *rows: Option) -> tuple[Option, ...]:
    """Return *rows* with their group, and with a flag derived from the key."""
    return tuple(
        row._replace(group=group, flag=row.flag or row.key.replace("_", "-"))
        for row in rows
    )
