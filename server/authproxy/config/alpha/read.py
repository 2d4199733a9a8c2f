"""Read an alpha configuration: text to a checked tree.

Only names and types are judged here, strictly: an unknown key, a number where a text
belongs, a single value where a list belongs are problems, each told with its path, such
as ``providers[0].clientID``. Names are the same in upper and lower case, and a null is
as good as an absent key. Values are never shown, for many of them are secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..build.access_rules import claim_values
from ..read.sources import closest_name
from ..read.values import INT_LIMIT, parse_duration
from ..read.yaml_text import read_yaml
from .schema import ROOT, Field, Many, Schema
from .substitute import substitute, unset

EXPECTED = {
    "text": "a text",
    "bool": "true or false",
    "int": "a whole number",
    "duration": "a duration such as 1h30m or 90s",
    "texts": "a list of texts",
    "bytes": "a text, or a list of byte values",
    "claims": "a mapping of claims to values",
}
TYPES = {
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


class Problems:
    """The problems of one file; ``warn`` notes what is allowed but worth a line.

    ``files`` are those that it names and that were read, or looked for.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.files: set[str] = set()
        self.found: list[str] = []
        self.warnings: list[str] = []

    def label(self, path: str) -> str:
        """*path* with the file it is in."""
        return f"{path} ({self.file})"

    def wrong(self, path: str, text: str) -> None:
        """Note a problem with what is at *path*."""
        self.found.append(f"{self.label(path)}: {text}")

    def warn(self, path: str, text: str) -> None:
        """Note something about *path* that the operator should know."""
        self.warnings.append(f"{self.label(path)}: {text}")


def read_alpha(
    path: str, environ: Mapping[str, str]
) -> tuple[dict[str, Any], Problems]:
    """The tree of the file at *path*, less what is wrong, and its problems.

    Durations are float seconds, lists of texts are tuples, bytes are bytes.
    """
    problems = Problems(path)
    document = _document(path, environ, problems)
    if document is None:
        return {}, problems
    if not isinstance(document, dict):
        problems.found.append(f"--alpha-config: {path} is no mapping of keys to values")
        return {}, problems
    return _mapping(document, ROOT, "", problems), problems


def _document(path: str, environ: Mapping[str, str], problems: Problems) -> Any:
    try:
        text = Path(path).read_bytes().decode()
        problems.warnings += [
            f"--alpha-config: {path}, line {line}: {reference} is not set, so nothing "
            "stands there; $$ is a dollar sign"
            for reference, line in unset(text, environ)
        ]
        return read_yaml(substitute(text, environ))
    except OSError as error:
        problems.found.append(f"--alpha-config: can't read {path}: {error.strerror}")
    except UnicodeDecodeError:
        problems.found.append(f"--alpha-config: {path} is not UTF-8 text")
    except ValueError as error:  # of the substitution or of the YAML
        problems.found.append(f"--alpha-config: {path} can't be read: {error}")
    return None


def _mapping(
    value: dict[Any, Any], keys: Schema, path: str, problems: Problems
) -> dict[str, Any]:
    known = {name.lower(): name for name in keys}
    tree: dict[str, Any] = {}
    for given, item in value.items():
        name = known.get(str(given).lower())
        if name is None:
            near = closest_name(str(given), keys)
            hint = f"; did you mean {near}?" if near else ""
            problems.wrong(_below(path, str(given)), f"unknown key{hint}")
        elif name in tree:
            problems.wrong(
                _below(path, str(given)),
                "given twice; keys are the same in upper and lower case",
            )
        elif item is not None:
            read = _field(item, keys[name], _below(path, name), problems)
            if read is not None:
                tree[name] = read
    return tree


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if isinstance(field, str):
        try:
            return READERS[field](value)
        except (ValueError, OverflowError):
            problems.wrong(path, f"got {_kind(value)}, expected {EXPECTED[field]}")
            return None
    if isinstance(field, Many):
        return _list(value, field.keys, path, problems)
    if not isinstance(value, dict):
        problems.wrong(path, f"got {_kind(value)}, expected a mapping")
        return None
    return _mapping(value, field, path, problems)


def _list(
    value: Any, keys: Schema, path: str, problems: Problems
) -> list[dict[str, Any]] | None:
    if not isinstance(value, list):
        problems.wrong(path, f"got {_kind(value)}, expected a list")
        return None
    items = []
    for number, item in enumerate(value):
        if isinstance(item, dict):
            items.append(_mapping(item, keys, f"{path}[{number}]", problems))
        else:
            problems.wrong(
                f"{path}[{number}]", f"got {_kind(item)}, expected a mapping"
            )
            items.append({})  # so that later ones keep their numbers
    return items


def _kind(value: Any) -> str:
    return TYPES.get(type(value), "something else")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("no truth value")
    return value


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("no whole number")
    return value


def _duration(value: Any) -> float:
    """A text with units, a fraction in seconds, a whole number in nanoseconds."""
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, float) and abs(value) < INT_LIMIT / 1e9:  # not a NaN either
        return value
    return _int(value) / 1e9


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return tuple(map(_text, value))


def _bytes(value: Any) -> bytes:
    """A text is taken as it is, byte for byte; no base64."""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, list):
        raise ValueError("no list")
    return bytes(map(_int, value))


READERS: dict[str, Callable[[Any], Any]] = {
    "text": _text,
    "bool": _bool,
    "int": _int,
    "duration": _duration,
    "texts": _texts,
    "bytes": _bytes,
    "claims": claim_values,
}
