"""Providers of an alpha configuration, through the flat options that they stand for.

Each provider's keys become values of flat options of its own, so that their defaults,
bounds and meaning are the same in both forms. Options of ours that the original does
not have are flat only, and hold for all providers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from authproxy_core.settings.providers import AllowRule, LoginParameter
from authproxy_core.settings.root import ProviderSettings

from ..build.provider import provider
from ..build.sections import option_fields
from ..config_warnings import INSECURE
from ..options.option import Value
from ..options.table import BY_KEY, FLAT_ONLY, OPTIONS
from ..read.resolved import OptionValue, ResolvedOptions
from ..read.sources import check_value
from .read import Problems
from .schema import PROVIDER_KEYS

# Settings of the one client for all providers.
SHARED = ("provider_ca_files", "use_system_trust_store")


def providers(
    entries: Sequence[Mapping[str, Any]] | None,
    collected: ResolvedOptions,
    problems: Problems,
) -> tuple[ProviderSettings, ...]:
    """The settings of each; what concerns the client goes to *collected*."""
    if not entries:
        problems.wrong("providers", "missing; at least one provider is needed")
        collected.failed.add("provider")
        return ()
    views = [
        _view(entry, number, collected, problems)
        for number, entry in enumerate(entries)
    ]
    for key in SHARED:
        _share(key, views, collected)
    found = tuple(
        _provider(view, entry, f"providers[{number}]", problems)
        for number, (view, entry) in enumerate(zip(views, entries, strict=True))
    )
    for view in views:
        collected.failed |= view.failed
    _advise(views, collected)
    collected.names |= {
        key: f"providers[].{path}" for key, path in _paths() if key in FLAT_ONLY
    }
    return found


def _paths() -> Iterator[tuple[str, str]]:
    """Flat option and path of each key of a provider."""
    for block, keys in PROVIDER_KEYS.items():
        for name, (key, _) in keys.items():
            yield key, f"{block}.{name}" if block else name


def _view(
    entry: Mapping[str, Any],
    number: int,
    collected: ResolvedOptions,
    problems: Problems,
) -> ResolvedOptions:
    """The entry as flat options."""
    view = flat_view(collected)
    view.names = {key: f"providers[{number}].{path}" for key, path in _paths()}
    for block, keys in PROVIDER_KEYS.items():
        values = entry.get(block, {}) if block else entry
        for name, (key, _) in keys.items():
            if name in values:
                _give(view, key, values[name], problems.file)
    if number and not entry.get("provider"):
        view.add_problem("provider", "missing; expected the type of the provider")
    return view


def flat_view(collected: ResolvedOptions) -> ResolvedOptions:
    """The options that hold beside an alpha file, to be filled with what it says.

    Problems and warnings go to *collected*'s lists.
    """
    view = ResolvedOptions()
    view.environ, view.files = collected.environ, collected.files
    view.problems, view.warnings = collected.problems, collected.warnings
    view.given = {
        option.key: collected.given[option.key]
        for option in OPTIONS
        if option.key not in FLAT_ONLY and option.key in collected.given
    }
    return view


def _give(view: ResolvedOptions, key: str, value: Value, origin: str) -> None:
    view.given[key] = OptionValue(value, origin)
    check_value(view, BY_KEY[key])


def _share(
    key: str, views: Sequence[ResolvedOptions], collected: ResolvedOptions
) -> None:
    """Take a setting of the client, which has to be the same in all providers."""
    if len({view.value(key) for view in views}) > 1:
        views[0].add_problem(key, "expected the same in all providers")
    if key in views[0].given:
        collected.given[key] = views[0].given[key]


def _advise(views: Sequence[ResolvedOptions], collected: ResolvedOptions) -> None:
    """Give *collected* what is judged once the configuration is known to be good."""
    for key in (*INSECURE, "code_challenge_method"):
        for view in views:
            if key in FLAT_ONLY and not view.is_default(key):
                collected.given.setdefault(key, view.given[key])


def _provider(
    view: ResolvedOptions, entry: Mapping[str, Any], path: str, problems: Problems
) -> ProviderSettings:
    if not entry.get("id"):
        problems.wrong(f"{path}.id", "missing; expected a name for the provider")
    if not view.string("client_id"):
        view.add_problem("client_id", "missing; expected the id of this client")
    skip_scope = entry.get("ADFSConfig", {}).get("skipScope", False)
    if skip_scope and entry.get("provider") != "adfs":
        problems.warn(
            f"{path}.ADFSConfig.skipScope",
            "has no effect: only the provider adfs reads it",
        )
    flat = provider(view, option_fields(view, ProviderSettings))
    return msgspec.structs.replace(
        flat,
        id=entry.get("id", flat.id),
        login_parameters=_login_parameters(
            entry.get("loginURLParameters", ()), f"{path}.loginURLParameters", problems
        ),
        additional_claims=entry.get("additionalClaims", ()),
        hosts=entry.get("hosts", ()),
        skip_scope=skip_scope,
    )


def _login_parameters(
    entries: Sequence[Mapping[str, Any]], path: str, problems: Problems
) -> tuple[LoginParameter, ...]:
    return tuple(
        LoginParameter(
            entry.get("name", ""),
            entry.get("default", ()),
            tuple(
                _rule(rule, f"{path}[{number}].allow[{position}]", problems)
                for position, rule in enumerate(entry.get("allow", ()))
            ),
        )
        for number, entry in enumerate(entries)
    )


def _rule(rule: Mapping[str, str], path: str, problems: Problems) -> AllowRule:
    if len(rule) != 1:
        problems.wrong(path, "expected one of value and pattern")
    if "pattern" in rule:
        return AllowRule(rule["pattern"], is_pattern=True)
    return AllowRule(rule.get("value", ""))
