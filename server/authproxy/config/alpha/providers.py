"""Build the providers of an alpha configuration from equivalent flat options.

The keys of each provider become values of flat options, so defaults, bounds and meaning
are the same in both formats. Extensions of authproxy are flat options only, and apply to
all providers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from authproxy_core.settings import ProviderSettings
from authproxy_core.settings.providers import AllowRule, LoginParameter

from ..build.provider import build_provider
from ..build.sections import option_fields
from ..config_warnings import INSECURE
from ..options.option import Value
from ..options.table import BY_KEY, FLAT_ONLY, OPTIONS
from ..read.resolved import OptionValue, ResolvedOptions
from ..read.sources import check_value
from .read import Problems
from .schema import PROVIDER_KEYS

# Options of the HTTP client, which all providers share.
SHARED = ("provider_ca_files", "use_system_trust_store")


def build_providers(
    entries: Sequence[Mapping[str, Any]] | None,
    options: ResolvedOptions,
    problems: Problems,
) -> tuple[ProviderSettings, ...]:
    """Build each provider, and set the options of their HTTP client in *options*."""
    if not entries:
        problems.add_problem("providers", "missing; at least one provider is needed")
        options.failed.add("provider")
        return ()
    views = [
        _provider_options(entry, number, options, problems)
        for number, entry in enumerate(entries)
    ]
    options.provider_options = tuple(views)
    for key in SHARED:
        _set_shared_option(key, views, options)
    providers = tuple(
        _build_provider(view, entry, f"providers[{number}]", problems)
        for number, (view, entry) in enumerate(zip(views, entries, strict=True))
    )
    for view in views:
        options.failed |= view.failed
    _copy_options_with_warnings(views, options)
    options.names |= {
        key: f"providers[].{path}" for key, path in _option_paths() if key in FLAT_ONLY
    }
    return providers


def _option_paths() -> Iterator[tuple[str, str]]:
    """Yield the flat option and the path of each provider key."""
    for block, keys in PROVIDER_KEYS.items():
        for name, (key, _) in keys.items():
            yield key, f"{block}.{name}" if block else name


def _provider_options(
    entry: Mapping[str, Any],
    number: int,
    options: ResolvedOptions,
    problems: Problems,
) -> ResolvedOptions:
    """Return *options* with the keys of the provider *entry* as flat options."""
    view = copy_flat_options(options)
    view.names = {key: f"providers[{number}].{path}" for key, path in _option_paths()}
    for block, keys in PROVIDER_KEYS.items():
        values = entry.get(block, {}) if block else entry
        for name, (key, _) in keys.items():
            if name in values:
                _set_value(view, key, values[name], problems.file)
    if number and not entry.get("provider"):
        view.add_problem("provider", "missing; expected the type of the provider")
    return view


def copy_flat_options(options: ResolvedOptions) -> ResolvedOptions:
    """Copy the options that an alpha file does not replace.

    The copy shares the problems and warnings of *options*.
    """
    view = ResolvedOptions()
    view.environ, view.files = options.environ, options.files
    view.problems, view.warnings = options.problems, options.warnings
    view.explicit = {
        option.key: options.explicit[option.key]
        for option in OPTIONS
        if option.key not in FLAT_ONLY and option.key in options.explicit
    }
    return view


def _set_value(view: ResolvedOptions, key: str, value: Value, origin: str) -> None:
    view.explicit[key] = OptionValue(value, origin)
    check_value(view, BY_KEY[key])


def _set_shared_option(
    key: str, views: Sequence[ResolvedOptions], options: ResolvedOptions
) -> None:
    if len({view.value(key) for view in views}) > 1:
        views[0].add_problem(key, "expected the same value for all providers")
    if key in views[0].explicit:
        options.explicit[key] = views[0].explicit[key]


def _copy_options_with_warnings(
    views: Sequence[ResolvedOptions], options: ResolvedOptions
) -> None:
    """Copy the options about which `add_warnings` warns to *options*."""
    for key in (*INSECURE, "code_challenge_method"):
        for view in views:
            if key in FLAT_ONLY and not view.is_default(key):
                options.explicit.setdefault(key, view.explicit[key])


def _build_provider(
    view: ResolvedOptions, entry: Mapping[str, Any], path: str, problems: Problems
) -> ProviderSettings:
    if not entry.get("id"):
        problems.add_problem(f"{path}.id", "missing; expected an ID for the provider")
    if not view.string("client_id"):
        view.add_problem("client_id", "missing; expected the client ID")
    skip_scope = entry.get("ADFSConfig", {}).get("skipScope", False)
    if skip_scope and entry.get("provider") != "adfs":
        problems.add_warning(
            f"{path}.ADFSConfig.skipScope",
            "has no effect: only the provider adfs reads it",
        )
    settings = build_provider(view, option_fields(view, ProviderSettings))
    return msgspec.structs.replace(
        settings,
        id=entry.get("id", settings.id),
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
                _allow_rule(rule, f"{path}[{number}].allow[{position}]", problems)
                for position, rule in enumerate(entry.get("allow", ()))
            ),
        )
        for number, entry in enumerate(entries)
    )


def _allow_rule(rule: Mapping[str, str], path: str, problems: Problems) -> AllowRule:
    if len(rule) != 1:
        problems.add_problem(path, "expected exactly one of value and pattern")
    if "pattern" in rule:
        return AllowRule(rule["pattern"], is_pattern=True)
    return AllowRule(rule.get("value", ""))
