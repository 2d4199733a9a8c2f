"""Find the differences from oauth2-proxy that touch a configuration, and report them."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

from ..config.options.table import BY_KEY, FLAT_ONLY
from ..config.reference import format_default
from .configuration import Configuration, Sources
from .differences.row import Difference
from .differences.table import DIFFERENCES

Level = Literal["look", "note"]
WIDTH = 88  # columns of the report
ALPHA_KEYS = {  # group of flat options to the key of an alpha file
    "Provider": "providers",
    "Headers": "injectRequestHeaders, injectResponseHeaders",
    "Upstreams": "upstreamConfig",
    "Listeners": "server",
}


class Finding(NamedTuple):
    """A difference that touches the configuration.

    ``options`` decide that, each with its origin. ``look``: an operator should look at
    it, unless it is ``accepted``.
    """

    difference: Difference
    level: Level
    options: tuple[str, ...]
    accepted: bool = False


class Report(NamedTuple):
    """The result of a check."""

    files: tuple[str, ...]
    sources: Sources
    configuration: Configuration
    findings: tuple[Finding, ...]

    @property
    def open_findings(self) -> tuple[Finding, ...]:
        """The differences that need a look and are not accepted."""
        return tuple(
            one for one in self.findings if one.level == "look" and not one.accepted
        )

    @property
    def exit_code(self) -> int:
        return 1 if self.open_findings or self.configuration.problems else 0


def find_differences(
    configuration: Configuration, accepted: Collection[str] = ()
) -> tuple[Finding, ...]:
    """Return the differences that touch the configuration, in the table's order."""
    return tuple(
        finding
        for row in DIFFERENCES
        if (finding := _touch(row, configuration, row.id in accepted)) is not None
    )


def _touch(
    row: Difference, configuration: Configuration, accepted: bool
) -> Finding | None:
    causes = row.when.causes(configuration)
    if causes is None or _is_restored(row, configuration):
        return None
    more = row.look.causes(configuration)
    keys = dict.fromkeys(causes + (more or ()))
    options = dict.fromkeys(_label(key, configuration) for key in keys)
    return Finding(row, "note" if more is None else "look", tuple(options), accepted)


def _is_restored(row: Difference, configuration: Configuration) -> bool:
    """Return whether the configuration has the settings for the old behavior."""
    settings = row.settings
    return bool(settings) and all(
        configuration.is_explicit(key)
        and all(one == _comparable(value) for one in configuration.values(key))
        for key, value in settings.items()
    )


def _comparable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return 0.0 if value == "0s" else value


def _label(key: str, configuration: Configuration) -> str:
    """Return the option with the origin of its value, or with its default."""
    for view in (*configuration.options.provider_options, configuration.options):
        if key in view.explicit:
            return view.label(key)
    option = BY_KEY[key]
    if configuration.alpha_text and key in FLAT_ONLY:
        return configuration.options.names.get(key) or ALPHA_KEYS[option.group]
    return f"{key} (default: {format_default(option)})"


def roll_back(configuration: Configuration) -> tuple[str, ...]:
    """Return the steps back to oauth2-proxy."""
    steps = [
        "start oauth2-proxy again with the same options and the same cookie_secret"
    ]
    unknown = list(configuration.extensions)
    if "oauth2-proxy" in configuration.values("cookie_format"):
        steps.append("users stay signed in, because oauth2-proxy reads their cookies")
    else:
        steps.append(
            "users sign in once more; to avoid that, set cookie_format = "
            '"oauth2-proxy" before the switch, and remove it when you do not go back'
        )
    if "sqlite" in configuration.values("session_store_type"):
        steps.append("sessions in SQLite end, because oauth2-proxy has no such store")
        unknown.append("session_store_type")
    if unknown:
        names = ", ".join(sorted(unknown))
        steps.append(f"remove the options that oauth2-proxy does not know: {names}")
    return tuple(steps)


def format_json(report: Report) -> dict[str, Any]:
    """Return the report for scripts; it contains no values of options."""
    configuration = report.configuration
    return {
        "files": list(report.files),
        "exit_code": report.exit_code,
        "problems": list(configuration.problems),
        "missing": list(configuration.missing),
        "unchecked": list(configuration.unchecked) + list(report.sources.notes),
        "warnings": list(configuration.warnings),
        "differences": [
            {
                "id": one.difference.id,
                "level": one.level,
                "accepted": one.accepted,
                "options": list(one.options),
                "what": one.difference.what,
                "why": one.difference.why,
                "old_behavior": one.difference.instead,
            }
            for one in report.findings
        ],
        "roll_back": list(roll_back(configuration)),
    }


def format_text(report: Report, show_all: bool) -> Iterator[str]:
    """Yield the lines of the report for people."""
    configuration = report.configuration
    sections = (
        ("authproxy would not start:", configuration.problems),
        ("required, and not in these sources:", configuration.missing),
        ("not checked:", (*configuration.unchecked, *report.sources.notes)),
        ("warnings:", configuration.warnings),
    )
    for title, lines in sections:
        if lines:
            yield title
            yield from (f"  {line}" for line in lines)
            yield ""
    yield from _format_findings(report, show_all)
    yield "roll back:"
    yield from (f"  {step}" for step in roll_back(configuration))


def _format_findings(report: Report, show_all: bool) -> Iterator[str]:
    needed = report.open_findings
    others = [one for one in report.findings if one not in needed]
    if needed:
        yield f"differences that need a look: {len(needed)}"
        for finding in needed:
            yield from _format_finding(finding)
    else:
        yield "differences that need a look: none"
    yield ""
    if show_all:
        yield f"other differences: {len(others)}"
        for finding in others:
            yield from _format_finding(finding)
    else:
        yield f"other differences: {len(others)} (--all lists them)"
    yield ""


def _format_finding(finding: Finding) -> Iterator[str]:
    row = finding.difference
    options = f" ({', '.join(finding.options)})" if finding.options else ""
    accepted = ", accepted" if finding.accepted else ""
    yield f"  {row.id}{accepted}{options}"
    for name, text in (
        ("what", row.what),
        ("why", row.why),
        ("old behavior", row.instead),
    ):
        head = f"    {name}: "
        yield from textwrap.wrap(
            text,
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
