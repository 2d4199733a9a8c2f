"""Where values come from: flags, environment variables, a TOML file.

Precedence for each key: flag, non-empty environment variable, file, default. Lists
replace each other, they are never merged. Only the value that wins is read, as in
oauth2-proxy, except that a flag has to be right even when repeated.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..options.option import ENVIRONMENT_PREFIX, Option, Value
from ..options.table import BY_FLAG, BY_KEY, CONTROL_BY_FLAG, FLAT_ONLY, OPTIONS
from .resolved import (
    ConfigError,
    OptionValue,
    ResolvedOptions,
    UsageError,
    display_value,
)
from .values import EXPECTED, format_duration, from_flag, from_toml

TABLES = ("access_rules",)  # of the file; no options
MIN_SIMILARITY = 0.6  # how alike a misspelt name has to be to be suggested
# Kubernetes injects OAUTH2_PROXY_PORT and the like for a service of that name.
VERY_SIMILAR = 0.85
NOT_WITH_ALPHA = "can't be used with --alpha-config, whose file says this instead"


class Flags(NamedTuple):
    """What the command line says; ``control`` is keyed by flag."""

    values: dict[str, Value]
    control: dict[str, Value]
    help: bool


def read_flags(arguments: Sequence[str]) -> Flags:
    """Parse the command line; raises `UsageError` with all its problems.

    ``--name=value`` and ``--name value``; a boolean never takes the next argument;
    ``--`` ends the flags; positional arguments are ignored. Help ends the parsing.
    """
    values: dict[str, Value] = {}
    control: dict[str, Value] = {}
    problems: list[str] = []
    wants_help = False
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            break
        if argument == "--help" or argument.startswith("-h"):
            wants_help = True
            break
        if argument.startswith("-") and argument != "-":
            _read_flag(argument, rest, values, control, problems)
    if problems:
        raise UsageError(tuple(problems))
    return Flags(values, control, wants_help)


def _read_flag(
    argument: str,
    rest: Iterator[str],
    values: dict[str, Value],
    control: dict[str, Value],
    problems: list[str],
) -> None:
    name, equals, text = argument[2:].partition("=")
    options = BY_FLAG.get(name) or tuple(filter(None, [CONTROL_BY_FLAG.get(name)]))
    if not argument.startswith("--") or not options:
        problems.append(_unknown_flag(argument, name))
        return
    if not equals:
        if options[0].kind == "bool":
            text = "true"
        else:
            following = next(rest, None)
            if following is None:
                problems.append(f"--{name}: a value is missing")
                return
            text = following
    for option in options:
        try:
            value = from_flag(option, text)
        except ValueError:
            problems.append(
                f"--{name}: got {display_value(option, text)}, expected {_expected(option)}"
            )
            return
        target = values if option.key else control
        target_name = option.key or option.flag
        earlier = target.get(target_name)
        if isinstance(value, tuple) and isinstance(earlier, tuple):
            value = earlier + value
        target[target_name] = value


def _expected(option: Option) -> str:
    if option.kind == "list":
        return 'texts with commas between them; "…" protects a comma'
    return EXPECTED[option.kind]


def _unknown_flag(argument: str, name: str) -> str:
    shown_name = argument.partition("=")[0]
    if not argument.startswith("--"):
        return f"{shown_name}: flags are written with two dashes"
    near = closest_name(name, [*BY_FLAG, *CONTROL_BY_FLAG])
    return f"{shown_name}: unknown flag" + (f"; did you mean --{near}?" if near else "")


def closest_name(
    name: str, known: Iterable[str], cutoff: float = MIN_SIMILARITY
) -> str:
    """The name in *known* that is most like *name*, or ""."""
    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), "")


def collect(flags: Flags, environ: Mapping[str, str]) -> ResolvedOptions:
    """Choose a value for each option; what is wrong is noted in the result.

    Beside an alpha configuration the flags for which it stands are a `UsageError`,
    such keys of the file are problems, and such variables are ignored.
    """
    alpha = bool(flags.control.get("alpha-config"))
    if alpha:
        _refuse_flat_flags(flags)
    collected = ResolvedOptions()
    collected.environ = environ
    path = flags.control.get("config")
    file = _read_toml(collected, str(path)) if path else {}
    for option in OPTIONS:
        text = environ.get(option.environment, "")
        if alpha and option.key in FLAT_ONLY:
            _pass_over(collected, option, text, file)
            continue
        if option.key in flags.values:
            _take_flag(collected, option, flags.values[option.key])
        elif text:
            _take(collected, option, text, option.environment)
        elif option.key in file:
            raw, origin = file[option.key]
            _take(collected, option, raw, origin)
        check_value(collected, option)
    _warn_of_misspelt_variables(collected, environ)
    return collected


def _refuse_flat_flags(flags: Flags) -> None:
    refused = sorted({BY_KEY[key].flag for key in flags.values if key in FLAT_ONLY})
    if refused:
        raise UsageError(tuple(f"--{flag}: {NOT_WITH_ALPHA}" for flag in refused))


def _pass_over(
    collected: ResolvedOptions,
    option: Option,
    text: str,
    file: Mapping[str, tuple[Any, str]],
) -> None:
    """Note what says something that the alpha configuration is for."""
    if text:
        collected.warnings.append(
            f"{option.environment}: ignored as an option; {NOT_WITH_ALPHA}",
        )
    if option.key in file:
        _, origin = file[option.key]
        collected.problems.append(f"{option.key} ({origin}): {NOT_WITH_ALPHA}")


def _take_flag(collected: ResolvedOptions, option: Option, value: Value) -> None:
    """Note the value of a flag; only string-bool is still text."""
    origin = f"--{option.flag}"
    if option.kind == "string-bool":
        _take(collected, option, value, origin)
    else:
        collected.given[option.key] = OptionValue(value, origin)


def _take(collected: ResolvedOptions, option: Option, raw: Any, origin: str) -> None:
    """Read *raw*: a text, which is the same from anywhere, or another TOML value."""
    collected.given[option.key] = OptionValue(option.default, origin)
    try:
        value = from_toml(option, raw)
    except (ValueError, OverflowError):
        collected.add_mismatch(option.key, raw, EXPECTED[option.kind])
        return
    collected.given[option.key] = OptionValue(value, origin)
    if option.kind == "duration" and not isinstance(raw, str) and raw:
        collected.add_warning(
            option.key,
            f"the number {raw} is read as nanoseconds "
            f"({format_duration(float(str(value)))}), as oauth2-proxy does; write it "
            'with a unit, such as "1h"',
        )


def check_value(collected: ResolvedOptions, option: Option) -> None:
    """Check the choices and bounds of the table, and whether the value is supported.

    A value outside of them is replaced by the default, as for every failed option.
    """
    key = option.key
    if collected.is_default(key) or key in collected.failed:
        return
    value, origin = collected.given[key]
    default = OptionValue(option.default, origin)
    if option.choices and str(value) not in option.choices:
        collected.add_mismatch(key, value, _alternatives(option.choices))
        collected.given[key] = default
    elif isinstance(value, (int, float)) and not _in_bounds(option, value):
        text = format_duration(value) if option.kind == "duration" else value
        collected.add_mismatch(key, text, _bounds(option))
        collected.given[key] = default
    elif option.support == "refused":
        note = f"; {option.note}" if option.note else ""
        collected.add_problem(key, f"not supported yet by this version{note}")
    elif option.support == "idle":
        collected.add_warning(key, f"has no effect: {option.note}")


def _in_bounds(option: Option, value: float) -> bool:
    return (option.minimum is None or value >= option.minimum) and (
        option.maximum is None or value <= option.maximum
    )


def _bounds(option: Option) -> str:
    def text(bound: float) -> str:
        return format_duration(bound) if option.kind == "duration" else f"{bound:g}"

    limits = []
    if option.minimum is not None:
        limits.append(f"at least {text(option.minimum)}")
    if option.maximum is not None:
        limits.append(f"at most {text(option.maximum)}")
    return " and ".join(limits)


def _alternatives(choices: Sequence[str]) -> str:
    words = [repr(choice) for choice in choices if choice]
    if "" in choices:
        words.append("nothing")
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _read_toml(collected: ResolvedOptions, path: str) -> dict[str, tuple[Any, str]]:
    """The known keys of the file, with their value and origin.

    Raises `ConfigError` when there are none to be had: that all of them are missing
    would only hide the reason.
    """
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode()
        table = tomllib.loads(text)
    except OSError as exc:
        why = f"can't read {path}: {exc.strerror}"
    except UnicodeDecodeError:
        why = f"{path} is not UTF-8 text"
    except tomllib.TOMLDecodeError as exc:
        why = f"{path} is not TOML: {exc}"
    else:
        return _known_keys(collected, path, text, table)
    raise ConfigError((f"--config: {why}",), files=(path,))


def _known_keys(
    collected: ResolvedOptions, path: str, text: str, table: dict[str, Any]
) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name, value in table.items():
        key = name.lower()
        origin = f"{path}{_line_of(text, name)}"
        if key in TABLES and key not in collected.tables:
            collected.tables[key] = (value, origin)
        elif key not in BY_KEY:
            kind = "table" if isinstance(value, dict) else "key"
            collected.problems.append(
                f"{name} ({origin}): unknown {kind}{_suggestion(key)}"
            )
        elif key in found:
            collected.problems.append(
                f"{name} ({origin}): given twice; keys are the same in upper and "
                "lower case"
            )
        else:
            found[key] = (value, origin)
    return found


def _suggestion(key: str) -> str:
    near = closest_name(key.replace("-", "_"), [*BY_KEY, *TABLES])
    return f"; did you mean {near}?" if near else ""


def _line_of(text: str, name: str) -> str:
    """``:LINE`` of a top-level key or table, as far as a glance at the text tells."""
    pattern = re.compile(rf"^\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*[=.\]]", re.M)
    match = pattern.search(text)
    if match is None:
        return ""
    return f":{text.count(chr(10), 0, match.end()) + 1}"


def _warn_of_misspelt_variables(
    collected: ResolvedOptions, environ: Mapping[str, str]
) -> None:
    """A variable in singular is silently ignored by oauth2-proxy; we say so."""
    for name in sorted(environ):
        key = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name == key or not name.startswith(ENVIRONMENT_PREFIX) or key in BY_KEY:
            continue
        if near := closest_name(key, BY_KEY, VERY_SIMILAR):
            collected.warnings.append(
                f"{name}: no such option, ignored; did you mean "
                f"{BY_KEY[near].environment}?"
            )
