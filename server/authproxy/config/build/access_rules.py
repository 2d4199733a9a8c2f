"""Build access rules from ``[[access_rules]]`` tables or an alpha file.

An alpha file has the same keys in camel case, as ``accessRules``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings

from ..read.resolved import ResolvedOptions
from ..read.sources import closest_name

KEY = "access_rules"
POLICIES = ("login", "public", "deny")
USER_KEYS = ("groups", "roles", "emails", "email_domains", "claims")
LIST_KEYS = ("paths", "patterns", "hosts", "methods", *USER_KEYS[:-1])
KEYS = ("name", "policy", *LIST_KEYS, "claims", "any_of")
ALPHA_NAMES = {"emailDomains": "email_domains", "anyOf": "any_of"}  # camel to snake

AddProblem = Callable[[str], None]


def build_rule_settings(
    options: ResolvedOptions, alpha_rules: Sequence[AccessRule]
) -> RuleSettings:
    """Build the rules of the TOML file, or take the *alpha_rules*."""
    table = options.tables.get(KEY)
    default = options.string("access_rules_default")
    settings = RuleSettings(
        rules=tuple(alpha_rules), default="deny" if default == "deny" else "login"
    )
    if table is None:
        return settings
    entries, origin = table
    if alpha_rules:
        options.problems.append(
            f"{KEY} ({origin}): can't be used with accessRules of the alpha "
            "configuration, because their order is undefined"
        )
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        options.problems.append(f"{KEY} ({origin}): expected [[{KEY}]] tables")
        return settings
    rules = []
    for number, entry in enumerate(entries, 1):
        add_problem = partial(_add_problem, options, f"{KEY} ({origin}): rule {number}")
        rules.append(build_access_rule(_parse_entry(entry, add_problem), add_problem))
    return RuleSettings(rules=tuple(rules), default=settings.default)


def _add_problem(options: ResolvedOptions, rule: str, text: str) -> None:
    options.problems.append(f"{rule}: {text}")


def build_access_rule(values: Mapping[str, Any], add_problem: AddProblem) -> AccessRule:
    """Build the rule with *values*, keyed as in TOML."""
    restricts_users = any(name in values for name in USER_KEYS)
    policy = values.get("policy", "login" if restricts_users else "")
    if policy not in POLICIES:
        expected = "'login', 'public', 'deny', or users"
        add_problem(
            f"got the policy {policy!r}, expected {expected}"
            if policy
            else f"no policy; expected {expected}"
        )
        policy = "login"
    return AccessRule(
        name=values.get("name", ""),
        paths=values.get("paths", ()),
        patterns=values.get("patterns", ()),
        when=build_condition(values, add_problem),
        policy=policy,
    )


def build_condition(values: Mapping[str, Any], add_problem: AddProblem) -> Condition:
    """Build the condition in *values*, keyed as in TOML.

    An empty list is a problem: it would match no request or no user.
    """
    for name in (*LIST_KEYS, "claims"):
        if name in values and not values[name]:
            add_problem(f"{name} is empty; omit it, or list values")
    claims: Mapping[str, tuple[str, ...]] = values.get("claims", {})
    for name, accepted in claims.items():
        if not accepted:
            add_problem(f"claims.{name} is empty; expected values")
    names = ("hosts", "methods", *USER_KEYS[:-1])
    return Condition(
        **{name: values[name] for name in names if name in values},
        claims=tuple(claims.items()),
        any_of=values.get("any_of", False),
    )


def _parse_entry(entry: Mapping[str, Any], add_problem: AddProblem) -> dict[str, Any]:
    """Return the valid values of a TOML table; a string is a list of one."""
    values: dict[str, Any] = {}
    for name, value in entry.items():
        try:
            if name in ("name", "policy"):
                values[name] = _parse_string(value)
            elif name in LIST_KEYS:
                values[name] = _parse_strings(value)
            elif name == "claims":
                values[name] = parse_claims(value)
            elif name == "any_of":
                values[name] = _parse_bool(value)
            else:
                near = closest_name(name, KEYS)
                add_problem(
                    f"unknown key {name!r}"
                    + (f"; did you mean {near}?" if near else "")
                )
        except ValueError as error:
            add_problem(f"{name}: expected {error}")
    return values


def _parse_string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _parse_bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _parse_strings(value: Any) -> tuple[str, ...]:
    items = _as_list(value)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("a list of strings")
    return tuple(items)


def parse_claims(value: Any) -> dict[str, tuple[str, ...]]:
    """Return claim names with their values as strings.

    Raises ValueError with the expected type.
    """
    if not isinstance(value, dict):
        raise ValueError("claim names with values")
    return {
        str(name): tuple(map(_claim_text, _as_list(item)))
        for name, item in value.items()
    }


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _claim_text(value: Any) -> str:
    """Return a claim value as it is in a session, where booleans are as in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int)):
        raise ValueError("strings, numbers or booleans")
    return str(value)


def to_toml_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the *values* of an alpha file under their names in TOML."""
    return {ALPHA_NAMES.get(name, name): value for name, value in values.items()}
