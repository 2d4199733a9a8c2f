"""Read matchers of Traefik, such as ``Host(`a`) && PathPrefix(`/b`)``."""

from __future__ import annotations

import re

MATCHER = re.compile(r"\s*(\w+)\(((?:`[^`]*`|\"[^\"]*\"|[^()`\"])*)\)\s*")
ARGUMENT = re.compile(r"`([^`]*)`|\"([^\"]*)\"|([^,\s`\"]+)")


def parse_matcher(text: str) -> dict[str, list[str]]:
    """Return the keys of an access rule for the same requests.

    Raises ValueError with the part that access rules cannot express.
    """
    keys: dict[str, list[str]] = {}
    at = 0
    while True:
        match = MATCHER.match(text, at)
        if match is None:
            raise ValueError("only matchers that are joined by && can be converted")
        values = ["".join(groups) for groups in ARGUMENT.findall(match[2])]
        for key, converted in _convert(match[1], values).items():
            if key in keys:
                raise ValueError(f"{match[1]} twice")
            keys[key] = converted
        at = match.end()
        if at == len(text):
            return keys
        if text[at : at + 2] != "&&":
            raise ValueError("only matchers that are joined by && can be converted")
        at += 2


def _convert(name: str, values: list[str]) -> dict[str, list[str]]:
    if not values:
        raise ValueError(f"{name} without values")
    match name:
        case "Host":
            return {"hosts": values}
        case "Method" | "Methods":
            return {"methods": [value.upper() for value in values]}
        case "Path" | "PathPrefix":
            if any("{" in value or not value.startswith("/") for value in values):
                raise ValueError(f"{name} with a pattern")
            return {"patterns": [_pattern(name, value) for value in values]}
    raise ValueError(f"access rules have no {name}")


def _pattern(name: str, path: str) -> str:
    """Return an expression that is anchored at the start, as those of access rules."""
    return re.escape(path) + ("$" if name == "Path" else "")
