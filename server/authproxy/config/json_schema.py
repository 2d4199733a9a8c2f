"""JSON schemas of the TOML file and of the alpha file, for completion in editors.

``authproxy schema`` prints them, and docs/schemas/ contains them. They are made from the
option table and the alpha schema (draft 7, which most editors
know). Values have the forms that authproxy reads: a boolean or a number may be a string,
as in configurations of oauth2-proxy, and a list may be one string.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from authproxy_core.settings.provider_types import PROVIDER_TYPES

from .alpha.schema import (
    ACCESS_RULE,
    PROVIDER_KEYS,
    ROOT,
    Field,
    ListOf,
    Schema,
)
from .build.access_rules import ALPHA_NAMES, POLICIES
from .options.option import Kind, Option
from .options.table import BY_KEY, OPTIONS
from .read.values import FALSE_VALUES, TRUE_VALUES, format_duration
from .reference import format_default, marks

Json = dict[str, Any]
FileKind = Literal["toml", "alpha"]

DRAFT = "http://json-schema.org/draft-07/schema#"
BOOLEANS = sorted(TRUE_VALUES | FALSE_VALUES)
DURATION = r"^[+-]?(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$"
STRINGS: Json = {"type": "array", "items": {"type": "string"}}
KINDS: Mapping[Kind, Json] = {
    "string": {"type": "string"},
    "bool": {"anyOf": [{"type": "boolean"}, {"enum": BOOLEANS}]},
    "string-bool": {"anyOf": [{"type": "boolean"}, {"enum": BOOLEANS}]},
    "int": {
        "anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[+-]?[0-9]+$"}]
    },
    "duration": {"type": "string", "pattern": DURATION},
    "list": {"anyOf": [STRINGS, {"type": "string"}]},
}
SCALARS: Mapping[str, Json] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int": {"type": "integer"},
    "duration": {"type": ["string", "number"]},
    "strings": STRINGS,
    "bytes": {"type": ["string", "array"]},
    "claims": {
        "type": "object",
        "additionalProperties": {"type": ["string", "number", "boolean", "array"]},
    },
}


def json_schema(kind: FileKind) -> Json:
    """Return the schema of the TOML file or of the alpha file."""
    if kind == "alpha":
        return {
            "$schema": DRAFT,
            "title": "Alpha configuration of authproxy and oauth2-proxy",
            **_mapping(ROOT, ""),
        }
    properties = {option.key: _option(option) for option in OPTIONS}
    properties["access_rules"] = {
        "description": "access rules by host, path and method; the first match decides "
        "[extension]",
        "type": "array",
        "items": _access_rule(),
    }
    return {
        "$schema": DRAFT,
        "title": "Configuration of authproxy",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _option(option: Option) -> Json:
    schema = dict(KINDS[option.kind])
    choices = _choices(option)
    if choices:
        schema = {"enum": list(choices)}
        if option.kind == "int":
            schema = {"enum": [*map(int, choices), *choices]}
    return {
        "description": _description(option),
        **schema,
        **({} if option.secret else {"default": _default(option)}),
    }


def _choices(option: Option) -> tuple[str, ...]:
    if option.key == "provider":
        return tuple(sorted(PROVIDER_TYPES))
    return option.choices


def _description(option: Option) -> str:
    note = f"; {option.note}" if option.note else ""
    return f"{option.help}{marks(option)}{note}"


def _default(option: Option) -> Any:
    if option.kind == "duration":
        return format_duration(float(str(option.default)))
    if option.kind == "list":
        return list(option.default) if isinstance(option.default, tuple) else []
    if option.kind == "string-bool":
        return format_default(option) == "true"
    return option.default


def _access_rule() -> Json:
    """Return the schema of a rule in TOML, whose lists may be one string."""
    properties = {}
    for name, field in ACCESS_RULE.items():
        schema = _field(field, name)
        if field == "strings":
            schema = dict(KINDS["list"])
        if name == "policy":
            schema = {"enum": list(POLICIES)}
        properties[ALPHA_NAMES.get(name, name)] = schema
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _mapping(keys: Schema, path: str) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: _field(field, f"{path}.{name}" if path else name)
            for name, field in keys.items()
        },
    }


def _field(field: Field, path: str) -> Json:
    if isinstance(field, ListOf):
        return {"type": "array", "items": _mapping(field.keys, path)}
    if not isinstance(field, str):
        return _mapping(field, path)
    option = _provider_options().get(path)
    if option is None:
        return dict(SCALARS[field])
    schema: Json = {"description": option.help, **SCALARS[field]}
    if choices := _choices(option):
        schema["enum"] = list(choices)
    return schema


def _provider_options() -> dict[str, Option]:
    """Return the flat option of each provider key, by path."""
    return {
        ".".join(filter(None, ("providers", block, name))): BY_KEY[key]
        for block, keys in PROVIDER_KEYS.items()
        for name, (key, _) in keys.items()
    }
