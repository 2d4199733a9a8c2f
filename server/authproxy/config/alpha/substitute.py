"""Substitute environment variables in the text of an alpha configuration.

References have the forms of a shell: ``$NAME``, ``${NAME}``, ``${NAME:-text}``,
``${NAME-text}``, ``${NAME:=text}``, ``${NAME=text}``, ``${NAME+text}`` and
``${NAME:+text}``, where the text may be another ``$NAME``; ``$$`` is a dollar sign.
``$1`` and ``${1}`` are not references, because they are groups of a rewrite pattern.
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


def substitute_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace the references in *text*; an unset variable is empty.

    Raises ValueError with the line of a malformed reference.
    """

    def replace(match: re.Match[str]) -> str:
        if match["bad"]:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(
                f"line {line}: malformed reference ${{…}}; $$ is a dollar sign"
            )
        if match["dollar"]:
            return "$"
        return _value(match, environ)

    return REFERENCE.sub(replace, text)


def unset_references(
    text: str, environ: Mapping[str, str]
) -> Iterator[tuple[str, int]]:
    """Yield references to unset variables without a default, with their lines.

    References in comment lines are skipped.
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
    """Return the text after an operator, which may be a reference without braces."""
    if re.fullmatch(r"\$(?!\d)\w+", text):
        return environ.get(text[1:], "")
    return text
