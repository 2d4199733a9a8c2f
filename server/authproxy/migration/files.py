"""Read the files of a configuration and recognize their formats."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config.alpha.schema import ROOT
from ..config.options.option import ENVIRONMENT_PREFIX
from ..config.read.resolved import ConfigError
from ..config.read.yaml_text import read_yaml
from .configuration import NamedText, Sources
from .helm import is_values_file, read_values

MAX_FILE_BYTES = 4 << 20  # of a configuration
ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
NO_OPTION = "contains no option of oauth2-proxy"
EXPECTED = (
    "expected the TOML file of oauth2-proxy, variables (NAME=VALUE), an alpha "
    "configuration, or the values.yaml of the official or Bitnami chart"
)


def read_sources(paths: Sequence[str], flags: Sequence[str] = ()) -> Sources:
    """Read the files of one configuration, and add *flags*.

    Raises `ConfigError` if a file is unreadable, has none of the formats, or if there are
    two of a format that exists once.
    """
    combined = Sources()
    for path in paths:
        source = parse_source(read_file(path))
        for part in ("toml", "alpha"):
            if getattr(source, part) and getattr(combined, part):
                raise ConfigError((f"{path}: a second {part} file; expected one",))
        combined = Sources(
            (*combined.flags, *source.flags),
            {**combined.environ, **source.environ},
            combined.toml or source.toml,
            combined.alpha or source.alpha,
            (*combined.notes, *source.notes),
        )
    return combined._replace(flags=(*combined.flags, *flags))


def read_file(path: str) -> NamedText:
    """Return the text of a file, of standard input for ``-``. Raises `ConfigError`."""
    try:
        if path == "-":
            content = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
        else:
            with open(path, "rb") as stream:
                content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            problem = f"{path}: more than {MAX_FILE_BYTES} bytes"
        else:
            name = "standard input" if path == "-" else path
            return NamedText(name, content.decode("utf-8-sig"))
    except OSError as error:
        problem = f"{path}: can't read it: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"{path}: not UTF-8 text"
    except ValueError:  # a NUL in the name
        problem = f"{path!r}: expected a file name"
    raise ConfigError((problem,))


def parse_source(file: NamedText) -> Sources:
    """Return what the text of *file* configures; raises `ConfigError`."""
    suffix = Path(file.name).suffix.lower()
    if suffix in (".yaml", ".yml", ".json"):
        return _parse_yaml(file)
    if suffix == ".env" or _is_environment(file.text):
        variables = parse_environment(file.text)
        if not variables:
            raise ConfigError((f"{file.name}: {NO_OPTION}",))
        return Sources(environ=variables)
    try:
        document = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        if suffix != ".toml" and _looks_like_yaml(file.text):
            return _parse_yaml(file)
        raise ConfigError((f"{file.name}: not TOML: {error}; {EXPECTED}",)) from None
    if not document:
        raise ConfigError((f"{file.name}: {NO_OPTION}",))
    return Sources(toml=file)


def parse_environment(text: str) -> dict[str, str]:
    """Return the variables of an environment file that configure oauth2-proxy.

    A line is ``NAME=VALUE``, with an optional ``export`` and quotes around the value.
    """
    variables = {}
    for line in text.splitlines():
        match = ASSIGNMENT.fullmatch(line)
        if match and match[1].startswith(ENVIRONMENT_PREFIX):
            variables[match[1]] = unquote(match[2].strip())
    return variables


def unquote(value: str) -> str:
    """Remove a pair of quotes around *value*."""
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _is_environment(text: str) -> bool:
    """Return whether all lines are assignments to names in capitals, or comments."""
    lines = [
        line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"
    ]
    names = [match[1] if (match := ASSIGNMENT.match(line)) else "" for line in lines]
    return bool(names) and all(map(VARIABLE.fullmatch, names))


def _looks_like_yaml(text: str) -> bool:
    return re.search(r"^[A-Za-z][\w-]*:(\s|$)", text, re.M) is not None


def _parse_yaml(file: NamedText) -> Sources:
    try:
        document = read_yaml(file.text)
    except ValueError as error:
        raise ConfigError((f"{file.name}: not YAML: {error}",)) from None
    if is_values_file(document):
        return read_values(document, file.name)
    if _is_alpha(document):
        return Sources(alpha=file)
    raise ConfigError((f"{file.name}: {EXPECTED}",))


def _is_alpha(document: Any) -> bool:
    names = {name.lower() for name in ROOT}
    return isinstance(document, dict) and any(
        str(key).lower() in names for key in document
    )
