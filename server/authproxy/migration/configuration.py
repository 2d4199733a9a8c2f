"""Load a configuration for checks on another machine than that of the deployment.

Secrets and files of the deployment may be missing here, so nothing is opened but the
configuration, and a missing value is not an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from authproxy_core.settings.root import Settings

from ..config.config_warnings import add_warnings
from ..config.load import resolve_settings
from ..config.options.option import Value
from ..config.options.table import BY_KEY, OPTIONS
from ..config.read.resolved import ResolvedOptions, UsageError
from ..config.read.sources import Flags, parse_flags
from ..server_settings import ServerSettings

UNKNOWN_VARIABLE = "unknown environment variable"
POSITIONAL = "neither a flag nor a command"


class NamedText(NamedTuple):
    """The text of a file, or of a part of it, and its name for messages."""

    name: str
    text: str


class Sources(NamedTuple):
    """Where the options of a configuration come from.

    ``notes`` name the values that the sources refer to but do not contain.
    """

    flags: tuple[str, ...] = ()
    environ: Mapping[str, str] = {}
    toml: NamedText | None = None
    alpha: NamedText | None = None
    notes: tuple[str, ...] = ()


class Configuration(NamedTuple):
    """A loaded configuration, with the findings about its options.

    ``problems`` prevent the start of authproxy. ``missing`` are required options without
    a value, ``unchecked`` files that are not on this machine.
    """

    options: ResolvedOptions
    settings: ServerSettings
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    alpha_text: str = ""

    @property
    def core(self) -> Settings:
        return self.settings.core

    @property
    def unknown_variables(self) -> tuple[str, ...]:
        return tuple(text for text in self.problems if UNKNOWN_VARIABLE in text)

    @property
    def has_positional_arguments(self) -> bool:
        return any(POSITIONAL in text or " false: " in text for text in self.problems)

    def values(self, key: str) -> tuple[Value, ...]:
        """Return the value of option *key* for each provider."""
        views = self.options.provider_options or (self.options,)
        return tuple(view.value(key) for view in views)

    def entries(self, key: str) -> Iterator[str]:
        """Yield the entries of the list *key*."""
        for value in self.values(key):
            if isinstance(value, tuple):
                yield from value

    def is_explicit(self, key: str) -> bool:
        views = self.options.provider_options or (self.options,)
        return any(key in view.explicit for view in views)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The options in use that oauth2-proxy does not know."""
        return tuple(
            option.key
            for option in OPTIONS
            if option.is_extension and option.key in self.options.explicit
        )


def load_configuration(sources: Sources) -> Configuration:
    """Load the configuration; raises `ConfigError` if a source is not readable."""
    with TemporaryDirectory(prefix="authproxy-migrate-") as folder:
        names = {}
        arguments = list(sources.flags)
        for flag, source in (
            ("--config", sources.toml),
            ("--alpha-config", sources.alpha),
        ):
            if source is not None:
                path = Path(folder, flag.strip("-"))
                path.write_text(source.text, encoding="utf-8")
                arguments += [flag, str(path)]
                names[str(path)] = source.name
        flags, usage_problems = parse_valid_flags(arguments)
        options, settings = resolve_settings(flags, sources.environ)
        add_warnings(options)
        alpha_text = _read_text(str(flags.control.get("alpha-config", "")))
        return _classify(options, settings, usage_problems, names, alpha_text)


def _read_text(path: str) -> str:
    """Return the text of the alpha file; "" if it can't be read, which is a problem."""
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, ValueError):
        return ""


def parse_valid_flags(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """Return the valid flags, and the problems of all others."""
    try:
        return parse_flags(arguments), []
    except UsageError as error:
        problems = list(error.problems)
    valid: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        group = [argument]
        if "=" not in argument and _takes_value(argument):
            group.append(next(rest, ""))
        try:
            parse_flags(group)
        except UsageError:
            continue
        valid += group
    return parse_flags(valid), problems


def _takes_value(argument: str) -> bool:
    try:
        parse_flags([argument])
    except UsageError as error:
        return any(text.endswith(": missing value") for text in error.problems)
    return False


def _classify(
    options: ResolvedOptions,
    settings: ServerSettings,
    usage_problems: list[str],
    names: Mapping[str, str],
    alpha_text: str,
) -> Configuration:
    groups: dict[str, list[str]] = {"problems": [], "missing": [], "unchecked": []}
    for problem in (*usage_problems, *options.problems):
        groups[_kind_of(problem, options)].append(_renamed(problem, names))
    warnings = [_renamed(text, names) for text in options.warnings]
    for view in (options, *options.provider_options):
        for key, value in view.explicit.items():
            origin = _renamed(value.origin, names)
            view.explicit[key] = value._replace(origin=origin)
    return Configuration(
        options,
        settings,
        tuple(groups["problems"]),
        tuple(groups["missing"]),
        tuple(groups["unchecked"]),
        tuple(dict.fromkeys(warnings)),
        alpha_text,
    )


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for path, name in names.items():
        text = text.replace(path, name)
    return text


def _kind_of(problem: str, options: ResolvedOptions) -> str:
    label, _, text = problem.partition(": ")
    name = label.partition(" ")[0]
    if text.startswith("can't read "):
        return "unchecked"
    if text.startswith("missing") and (
        name in BY_KEY or name in options.names.values()
    ):
        return "missing"
    return "problems"
