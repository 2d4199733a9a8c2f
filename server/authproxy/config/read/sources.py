"""Resolve options from flags, environment variables and a TOML file.

Precedence for each key: flag, non-empty environment variable, file, default. A list
replaces the list of a lower precedence. As in oauth2-proxy, only the effective value is
parsed, except that every repetition of a flag must be valid.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..options.option import ENVIRONMENT_PREFIX, Option, Value
from ..options.table import BY_FLAG, BY_KEY, CONTROL_BY_FLAG, FLAT_ONLY, OPTIONS
from .resolved import (
    ConfigError,
    OptionValue,
    ResolvedOptions,
    UsageError,
    display_value,
)
from .values import EXPECTED, format_duration, parse_flag, parse_toml

TABLES = ("access_rules",)  # tables of the TOML file that are not options
MIN_SIMILARITY = 0.6  # of a misspelled name to its suggestion (difflib ratio)
# Kubernetes and Docker set these for services such as "oauth2-proxy" and
# "oauth2-proxy-redis"; NAME_PORT has a URL as its value.
SERVICE_VARIABLE = re.compile(
    r"(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
SERVICE_URL = re.compile(r"(?:tcp|udp|sctp)://")
ENVIRONMENT_NAMES = frozenset(option.environment for option in OPTIONS)
NOT_WITH_ALPHA = "can't be used with --alpha-config; set it in that file"


class Flags(NamedTuple):
    """The parsed command line: option values by key, control flags by flag name.

    ``help`` is the help that was requested, "" for none.
    """

    values: dict[str, Value]
    control: dict[str, Value]
    help: Literal["", "common", "all"]


def parse_flags(arguments: Sequence[str]) -> Flags:
    """Parse the command line; raises `UsageError` with all its problems.

    Flags are ``--name=value`` or ``--name value``; a boolean flag never consumes the
    next argument, so a ``true`` after it is redundant. A help flag ends the parsing.
    Positional arguments are problems: oauth2-proxy ignores them, so a misspelled
    command or a flag without its dashes would start a server.
    """
    values: dict[str, Value] = {}
    control: dict[str, Value] = {}
    problems: list[str] = []
    requested: Literal["", "common", "all"] = ""
    previous = ""  # the last flag, if it was a switch without "=value"
    rest = iter(arguments)
    for argument in rest:
        if argument == "--help-all":
            requested = "all"
            break
        if argument == "--help" or argument.startswith("-h"):
            requested = "common"
            break
        if argument == "--":
            problems += [_unexpected("--") for following in rest if following]
        elif argument.startswith("-") and argument != "-":
            _parse_flag(argument, rest, values, control, problems)
            previous = argument if _is_switch(argument) else ""
        elif argument and not (previous and argument == "true"):
            problems.append(_unexpected(previous, argument))
    if problems:
        raise UsageError(tuple(problems))
    if control.get("help-all"):
        requested = "all"
    return Flags(values, control, requested)


def requests_help(arguments: Sequence[str]) -> bool:
    """Return whether the *arguments* of a command request its help."""
    return any(argument in ("-h", "--help") for argument in arguments)


def _is_switch(argument: str) -> bool:
    name = argument.removeprefix("--")
    option = next(iter(BY_FLAG.get(name, ())), None) or CONTROL_BY_FLAG.get(name)
    return option is not None and option.kind == "bool"


def _unexpected(previous: str, argument: str = "") -> str:
    """Return the problem of a positional argument, which may be a secret."""
    if argument == "false":
        return f"{previous} false: write {previous}=false"
    where = f" after {previous}" if previous else ""
    return f"got an argument that is neither a flag nor a command{where}"


def _parse_flag(
    argument: str,
    rest: Iterator[str],
    values: dict[str, Value],
    control: dict[str, Value],
    problems: list[str],
) -> None:
    name, equals, text = argument[2:].partition("=")
    matches = BY_FLAG.get(name) or tuple(filter(None, [CONTROL_BY_FLAG.get(name)]))
    if not argument.startswith("--") or not matches:
        problems.append(_unknown_flag(argument, name))
        return
    if not equals:
        if matches[0].kind == "bool":
            text = "true"
        else:
            following = next(rest, None)
            if following is None:
                problems.append(f"--{name}: missing value")
                return
            text = following
    for option in matches:
        try:
            value = parse_flag(option, text)
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
        return 'comma-separated strings; "…" quotes a comma'
    return EXPECTED[option.kind]


def _unknown_flag(argument: str, name: str) -> str:
    flag = argument.partition("=")[0]
    if not argument.startswith("--"):
        return f"{flag}: flags start with two dashes"
    near = closest_name(name, [*BY_FLAG, *CONTROL_BY_FLAG])
    return f"{flag}: unknown flag" + (f"; did you mean --{near}?" if near else "")


def closest_name(
    name: str, known: Iterable[str], cutoff: float = MIN_SIMILARITY
) -> str:
    """Return the name in *known* that is most similar to *name*, or ""."""
    import difflib  # only for errors

    return next(iter(difflib.get_close_matches(name, list(known), 1, cutoff)), "")


def resolve_options(flags: Flags, environ: Mapping[str, str]) -> ResolvedOptions:
    """Resolve each option; the result holds the problems and warnings.

    With an alpha configuration, flags that it replaces are a `UsageError`, such keys of
    the TOML file are problems, and such variables are ignored with a warning. Raises
    `ConfigError` for an unreadable TOML file.
    """
    alpha = bool(flags.control.get("alpha-config"))
    if alpha:
        _reject_flat_flags(flags)
    options = ResolvedOptions()
    options.environ = environ
    path = flags.control.get("config")
    file = _read_toml(options, str(path)) if path else {}
    for option in OPTIONS:
        text = environ.get(option.environment, "")
        if alpha and option.key in FLAT_ONLY:
            _report_flat_option(options, option, text, file)
            continue
        if option.key in flags.values:
            _set_from_flag(options, option, flags.values[option.key])
        elif text:
            _set_from_source(options, option, text, option.environment)
        elif option.key in file:
            raw, origin = file[option.key]
            _set_from_source(options, option, raw, origin)
        check_value(options, option)
    _reject_unknown_variables(
        options, environ, str(flags.control.get("alpha-config", ""))
    )
    return options


def _reject_flat_flags(flags: Flags) -> None:
    rejected = sorted({BY_KEY[key].flag for key in flags.values if key in FLAT_ONLY})
    if rejected:
        raise UsageError(tuple(f"--{flag}: {NOT_WITH_ALPHA}" for flag in rejected))


def _report_flat_option(
    options: ResolvedOptions,
    option: Option,
    text: str,
    file: Mapping[str, tuple[Any, str]],
) -> None:
    """Report a variable or key that the alpha configuration replaces.

    A variable is only a warning, because the alpha file may refer to it.
    """
    if text:
        options.warnings.append(
            f"{option.environment}: ignored as an option; {NOT_WITH_ALPHA}",
        )
    if option.key in file:
        _, origin = file[option.key]
        options.problems.append(f"{option.key} ({origin}): {NOT_WITH_ALPHA}")


def _set_from_flag(options: ResolvedOptions, option: Option, value: Value) -> None:
    """Set the value of a parsed flag; a string-bool is still text."""
    origin = f"--{option.flag}"
    if option.kind == "string-bool":
        _set_from_source(options, option, value, origin)
    else:
        options.explicit[option.key] = OptionValue(value, origin)


def _set_from_source(
    options: ResolvedOptions, option: Option, raw: Any, origin: str
) -> None:
    """Parse and set *raw*: text from any source, or another TOML value."""
    options.explicit[option.key] = OptionValue(option.default, origin)
    try:
        value = parse_toml(option, raw)
    except (ValueError, OverflowError):
        options.add_mismatch(option.key, raw, EXPECTED[option.kind])
        return
    options.explicit[option.key] = OptionValue(value, origin)
    if option.kind == "duration" and not isinstance(raw, str) and raw:
        options.add_warning(
            option.key,
            f"the number {raw} means nanoseconds "
            f"({format_duration(float(str(value)))}), as in oauth2-proxy; write it "
            'with a unit, such as "1h"',
        )


def check_value(options: ResolvedOptions, option: Option) -> None:
    """Check the value of *option* against its choices and bounds.

    An invalid value is replaced by the default, as for every failed option.
    """
    key = option.key
    if options.is_default(key) or key in options.failed:
        return
    value, origin = options.explicit[key]
    if option.choices and str(value) not in option.choices:
        options.add_mismatch(key, value, _format_choices(option.choices))
    elif isinstance(value, (int, float)) and not _is_within_bounds(option, value):
        text = format_duration(value) if option.kind == "duration" else value
        options.add_mismatch(key, text, _format_bounds(option))
    else:
        return
    options.explicit[key] = OptionValue(option.default, origin)


def _is_within_bounds(option: Option, value: float) -> bool:
    return (option.minimum is None or value >= option.minimum) and (
        option.maximum is None or value <= option.maximum
    )


def _format_bounds(option: Option) -> str:
    def text(bound: float) -> str:
        return format_duration(bound) if option.kind == "duration" else f"{bound:g}"

    bounds = []
    if option.minimum is not None:
        bounds.append(f"at least {text(option.minimum)}")
    if option.maximum is not None:
        bounds.append(f"at most {text(option.maximum)}")
    return " and ".join(bounds)


def _format_choices(choices: Sequence[str]) -> str:
    texts = [repr(choice) for choice in choices if choice]
    if "" in choices:
        texts.append("nothing")
    *most, last = texts
    return f"{', '.join(most)} or {last}" if most else last


def _read_toml(options: ResolvedOptions, path: str) -> dict[str, tuple[Any, str]]:
    """Return the known keys of the file, each with its value and origin.

    Raises `ConfigError` for an unreadable file: problems about the missing keys would
    only hide the cause.
    """
    import tomllib  # needed only with a file

    try:
        with open(path, "rb") as stream:
            text = stream.read().decode("utf-8-sig")
        table = tomllib.loads(text)
    except OSError as error:
        problem = f"can't read {path}: {error.strerror}"
    except UnicodeDecodeError:
        problem = f"{path} is not UTF-8 text"
    except tomllib.TOMLDecodeError as error:
        problem = f"{path} is not TOML: {error}"
    else:
        return _known_keys(options, path, text, table)
    raise ConfigError((f"--config: {problem}",), files=(path,))


def _known_keys(
    options: ResolvedOptions, path: str, text: str, table: dict[str, Any]
) -> dict[str, tuple[Any, str]]:
    known: dict[str, tuple[Any, str]] = {}
    for name, value in table.items():
        key = name.lower()
        origin = f"{path}{_line_of(text, name)}"
        if key in TABLES and key not in options.tables:
            options.tables[key] = (value, origin)
        elif key not in BY_KEY:
            kind = "table" if isinstance(value, dict) else "key"
            options.problems.append(
                f"{name} ({origin}): unknown {kind}{_suggestion(key)}"
            )
        elif key in known:
            options.problems.append(
                f"{name} ({origin}): duplicate key; keys are case-insensitive"
            )
        else:
            known[key] = (value, origin)
    return known


def _suggestion(key: str) -> str:
    near = closest_name(key.replace("-", "_"), [*BY_KEY, *TABLES])
    return f"; did you mean {near}?" if near else ""


def _line_of(text: str, name: str) -> str:
    """Return ``:LINE`` of a top-level key or table, or "" if a regex can't find it."""
    pattern = re.compile(rf"^\s*\[*\s*[\"']?{re.escape(name)}[\"']?\s*[=.\]]", re.M)
    match = pattern.search(text)
    if match is None:
        return ""
    return f":{text.count(chr(10), 0, match.end()) + 1}"


def _reject_unknown_variables(
    options: ResolvedOptions, environ: Mapping[str, str], alpha_path: str
) -> None:
    """Report variables of no option; oauth2-proxy ignores them silently.

    Empty ones set nothing. Variables of services, and those that the alpha file contains,
    are left out.
    """
    alpha_text = _read_alpha(alpha_path)
    for name, value in sorted(environ.items()):
        if not value or not name.startswith(ENVIRONMENT_PREFIX):
            continue
        suffix = name.removeprefix(ENVIRONMENT_PREFIX)
        key = suffix.lower()
        is_service = SERVICE_VARIABLE.fullmatch(suffix) or (
            suffix.endswith("PORT") and SERVICE_URL.match(value)
        )
        if name in ENVIRONMENT_NAMES or is_service or name in alpha_text:
            continue
        near = key if key in BY_KEY else closest_name(key, BY_KEY)
        hint = f"; did you mean {BY_KEY[near].environment}?" if near else ""
        if CONTROL_BY_FLAG.get(key.replace("_", "-")):
            hint = f"; use the flag --{key.replace('_', '-')}"
        options.problems.append(f"{name}: unknown environment variable{hint}")


def _read_alpha(path: str) -> str:
    """Return the text of the alpha file; "" if it can't be read, reported elsewhere."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
