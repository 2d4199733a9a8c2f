"""Access rules, as tables of the TOML file and as ``accessRules`` of an alpha file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings

from ..read.resolved import ResolvedOptions
from ..read.sources import closest_name

KEY = "access_rules"
POLICIES = ("login", "public", "deny")
PEOPLE = ("groups", "roles", "emails", "email_domains", "claims")
LISTS = ("paths", "patterns", "hosts", "methods", *PEOPLE[:-1])
KEYS = ("name", "policy", *LISTS, "claims", "any_of")
# How the keys are called in an alpha file, where that is another name.
ALPHA_NAMES = {"emailDomains": "email_domains", "anyOf": "any_of"}

Wrong = Callable[[str], None]


def toml_rules(
    collected: ResolvedOptions, listed: Sequence[AccessRule]
) -> RuleSettings:
    """The rules of the TOML file, or those *listed* in an alpha file."""
    given = collected.tables.get(KEY)
    default = collected.string("access_rules_default")
    settings = RuleSettings(
        rules=tuple(listed), default="deny" if default == "deny" else "login"
    )
    if given is None:
        return settings
    entries, origin = given
    if listed:
        collected.problems.append(
            f"{KEY} ({origin}): there are accessRules in the alpha configuration too; "
            "which are first?"
        )
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        collected.problems.append(f"{KEY} ({origin}): expected [[{KEY}]] tables")
        return settings
    rules = []
    for number, entry in enumerate(entries, 1):

        def wrong(text: str, number: int = number) -> None:
            collected.problems.append(f"{KEY} ({origin}): rule {number}: {text}")

        rules.append(access_rule(_read(entry, wrong), wrong))
    return RuleSettings(rules=tuple(rules), default=settings.default)


def access_rule(values: Mapping[str, Any], wrong: Wrong) -> AccessRule:
    """The rule that *values* describe; what is wrong with them is told."""
    people = [name for name in PEOPLE if name in values]
    policy = values.get("policy", "login" if people else "")
    if policy not in POLICIES:
        text = (
            f"got the policy {policy!r}, expected"
            if policy
            else "it says nothing; give"
        )
        wrong(f"{text} 'login', 'public', 'deny', or whom it is for")
        policy = "login"
    return AccessRule(
        name=values.get("name", ""),
        paths=values.get("paths", ()),
        patterns=values.get("patterns", ()),
        when=condition(values, wrong),
        policy=policy,
    )


def condition(values: Mapping[str, Any], wrong: Wrong) -> Condition:
    """The condition in *values*; an empty list is told, for it would mean nobody."""
    for name in (*LISTS, "claims"):
        if name in values and not values[name]:
            wrong(f"{name} is empty; leave it out, or say whom or what it is for")
    claims: Mapping[str, tuple[str, ...]] = values.get("claims", {})
    for name, wanted in claims.items():
        if not wanted:
            wrong(f"claims.{name} is empty; expected values")
    names = ("hosts", "methods", *PEOPLE[:-1])
    return Condition(
        **{name: values[name] for name in names if name in values},
        claims=tuple(claims.items()),
        any_of=values.get("any_of", False),
    )


def _read(entry: Mapping[str, Any], wrong: Wrong) -> dict[str, Any]:
    """The values of a TOML table, of the right types; a single text is a list of one."""
    found: dict[str, Any] = {}
    for name, value in entry.items():
        try:
            if name in ("name", "policy"):
                found[name] = _text(value)
            elif name in LISTS:
                found[name] = texts(value)
            elif name == "claims":
                found[name] = claim_values(value)
            elif name == "any_of":
                found[name] = _bool(value)
            else:
                near = closest_name(name, KEYS)
                wrong(
                    f"unknown key {name!r}"
                    + (f"; did you mean {near}?" if near else "")
                )
        except ValueError as error:
            wrong(f"{name}: expected {error}")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """A list of texts, or one of them; raises ValueError."""
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise ValueError("a list of texts")
    return tuple(items)


def claim_values(value: Any) -> dict[str, tuple[str, ...]]:
    """Names of claims with their values as texts; raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("names of claims with values")
    return {str(name): tuple(map(_claim_text, _listed(v))) for name, v in value.items()}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _claim_text(value: Any) -> str:
    """A claim's value as a session has it: JSON's words for truth values."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int)):
        raise ValueError("texts, numbers or truth values")
    return str(value)


def snake_case(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an alpha file's mapping, under the names that TOML has for them."""
    return {ALPHA_NAMES.get(name, name): value for name, value in values.items()}
