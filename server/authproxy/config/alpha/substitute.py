"""Environment variables in the text of an alpha configuration.

The forms are those of a shell: ``$NAME``, ``${NAME}``, ``$$`` for a dollar sign, and
``${NAME:-text}``, ``${NAME-text}``, ``${NAME:=text}``, ``${NAME=text}``, ``${NAME+text}``
and ``${NAME:+text}``, where the text may be another ``$NAME``. A number is no name:
``$1`` and ``${1}`` stay as they are, for they mean a group of a rewrite's pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

REFERENCE = re.compile(
    r"\$(?:"
    r"(?P<dollar>\$)"
    r"|(?P<name>(?!\d)\w+)"
    r"|\{(?P<braced>(?!\d)\w+)(?:(?P<operator>:?[-=+])(?P<text>[^}\r\n]*))?\}"
    r"|(?P<bad>\{(?:(?!\d)\w[^}\r\n]*\}|[^}\r\n]*(?:[\r\n]|\Z)))"
    r")"
)


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """*text* with its references filled in; a variable that is not set is empty.

    Raises ValueError with the line of a reference that can't be read.
    """

    def value(match: re.Match[str]) -> str:
        if match["bad"]:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(
                f"line {line}: a reference ${{…}} that can't be read; $$ is a dollar sign"
            )
        if match["dollar"]:
            return "$"
        return _value(match, environ)

    return REFERENCE.sub(value, text)


def unset(text: str, environ: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """References to variables that are not set and have no default, with their lines.

    Those in lines that are comments do not count.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("#"):
            continue
        for match in REFERENCE.finditer(line):
            name = match["name"] or match["braced"]
            if name and not match["operator"] and name not in environ:
                yield match[0], number


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    name = match["name"] or match["braced"]
    value = environ.get(name, "")
    match match["operator"]:
        case ":-" | ":=":
            return value or _default(match["text"], environ)
        case "-" | "=":
            return value if name in environ else _default(match["text"], environ)
        case "+" | ":+":
            return _default(match["text"], environ) if name in environ else ""
        case _:
            return value


def _default(text: str, environ: Mapping[str, str]) -> str:
    """The text of a reference, which may be a reference without braces."""
    if re.fullmatch(r"\$(?!\d)\w+", text):
        return environ.get(text[1:], "")
    return text
