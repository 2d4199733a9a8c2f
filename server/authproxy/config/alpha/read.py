"""Read an alpha configuration: parse YAML and check it against the schema.

Only names and types are checked here, strictly: an unknown key, a number instead of a
string, or a single value instead of a list is a problem of its path, such as
``providers[0].clientID``. Names are case-insensitive, and null is the same as an absent
key. Messages contain no values, because many of them are secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..build.access_rules import parse_claims
from ..read.sources import closest_name
from ..read.values import INT_LIMIT, parse_duration
from ..read.yaml_text import read_yaml
from .schema import ROOT, Field, ListOf, Schema
from .substitute import substitute_variables, unset_references

EXPECTED = {
    "string": "a string",
    "bool": "true or false",
    "int": "an integer",
    "duration": "a duration such as 1h30m or 90s",
    "strings": "a list of strings",
    "bytes": "a string, or a list of byte values",
    "claims": "a mapping of claims to values",
}
TYPE_NAMES = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a mapping",
}


class Problems:
    """The problems and warnings of one alpha file.

    ``files`` are the names of the files that it refers to, readable or not.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.files: set[str] = set()
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def add_problem(self, path: str, text: str) -> None:
        """Add a problem with the value at *path*."""
        self.problems.append(f"{path} ({self.file}): {text}")

    def add_warning(self, path: str, text: str) -> None:
        """Add a warning about the value at *path*."""
        self.warnings.append(f"{path} ({self.file}): {text}")


def read_alpha_file(
    path: str, environ: Mapping[str, str]
) -> tuple[dict[str, Any], Problems]:
    """Return the valid part of the file at *path* as a tree, and its problems.

    Durations are float seconds, lists of strings are tuples, "bytes" are bytes.
    """
    problems = Problems(path)
    document = _read_document(path, environ, problems)
    if document is None:
        return {}, problems
    if not isinstance(document, dict):
        problems.problems.append(f"--alpha-config: {path} is not a mapping")
        return {}, problems
    return _read_mapping(document, ROOT, "", problems), problems


def _read_document(path: str, environ: Mapping[str, str], problems: Problems) -> Any:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        problems.warnings += [
            f"--alpha-config: {path}, line {line}: {reference} is not set, so it is "
            "replaced by nothing; $$ is a dollar sign"
            for reference, line in unset_references(text, environ)
        ]
        return read_yaml(substitute_variables(text, environ))
    except OSError as error:
        problem = f"can't read {path}: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"{path} is not UTF-8 text"
    except ValueError as error:  # from the substitution or the YAML parser
        problem = f"{path} is invalid: {error}"
    problems.problems.append(f"--alpha-config: {problem}")
    return None


def _read_mapping(
    value: dict[Any, Any], keys: Schema, path: str, problems: Problems
) -> dict[str, Any]:
    known = {name.lower(): name for name in keys}
    tree: dict[str, Any] = {}
    for key, item in value.items():
        name = known.get(str(key).lower())
        if name is None:
            near = closest_name(str(key), keys)
            hint = f"; did you mean {near}?" if near else ""
            problems.add_problem(_join(path, str(key)), f"unknown key{hint}")
        elif name in tree:
            problems.add_problem(
                _join(path, str(key)), "duplicate key; keys are case-insensitive"
            )
        elif item is not None:
            field = _read_field(item, keys[name], _join(path, name), problems)
            if field is not None:
                tree[name] = field
    return tree


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read_field(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if isinstance(field, str):
        try:
            return READERS[field](value)
        except (ValueError, OverflowError):
            problems.add_problem(
                path, f"got {_type_name(value)}, expected {EXPECTED[field]}"
            )
            return None
    if isinstance(field, ListOf):
        return _read_list(value, field.keys, path, problems)
    if not isinstance(value, dict):
        problems.add_problem(path, f"got {_type_name(value)}, expected a mapping")
        return None
    return _read_mapping(value, field, path, problems)


def _read_list(
    value: Any, keys: Schema, path: str, problems: Problems
) -> list[dict[str, Any]] | None:
    if not isinstance(value, list):
        problems.add_problem(path, f"got {_type_name(value)}, expected a list")
        return None
    items = []
    for number, item in enumerate(value):
        item_path = f"{path}[{number}]"
        if isinstance(item, dict):
            items.append(_read_mapping(item, keys, item_path, problems))
        else:
            problems.add_problem(
                item_path, f"got {_type_name(item)}, expected a mapping"
            )
            items.append({})  # so the following items keep their numbers
    return items


def _type_name(value: Any) -> str:
    return TYPE_NAMES.get(type(value), "another type")


def _read_string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a string")
    return value


def _read_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not a boolean")
    return value


def _read_int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("not an integer")
    return value


def _read_duration(value: Any) -> float:
    """Return seconds: strings have units, floats are seconds, ints are nanoseconds."""
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, float) and abs(value) < INT_LIMIT / 1e9:  # not a NaN
        return value
    return _read_int(value) / 1e9


def _read_strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return tuple(map(_read_string, value))


def _read_bytes(value: Any) -> bytes:
    """Return a string or list of byte values as bytes; base64 is not decoded."""
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, list):
        raise ValueError("not a list")
    return bytes(map(_read_int, value))


READERS: dict[str, Callable[[Any], Any]] = {
    "string": _read_string,
    "bool": _read_bool,
    "int": _read_int,
    "duration": _read_duration,
    "strings": _read_strings,
    "bytes": _read_bytes,
    "claims": parse_claims,
}
