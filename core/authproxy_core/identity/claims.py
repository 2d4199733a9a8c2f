"""Claims: find them by name or path, and convert them to text.

A name is first looked up literally (names may be URLs), then as a path split at dots.
Numbers keep their JSON text; lists and objects become compact JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ..errors import ProviderError

MAX_SID = 256  # characters
MAX_DEPTH = 12
MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
TRUE_VALUES = frozenset({"1", "t", "T", "true", "TRUE", "True"})


def find_claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim *name*, or the one at the path *name*; None if absent or null."""
    if claims.get(name) is not None:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(part)
    return value


def serializable_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return *claims* in values that every session format can hold.

    Integers beyond 64 bits become text. Raises `ProviderError` for claims nested deeper
    than `MAX_DEPTH`.
    """
    return {name: _serializable(value, MAX_DEPTH) for name, value in claims.items()}


def claim_sid(claims: Mapping[str, Any]) -> str:
    """Return the provider's session ID (OIDC Back-Channel Logout §2.1), or ""."""
    sid = claims.get("sid")
    return sid if isinstance(sid, str) and len(sid) <= MAX_SID else ""


def non_null_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return *claims* without null values."""
    return {name: value for name, value in claims.items() if value is not None}


def _serializable(value: Any, depth: int) -> Any:
    if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
        return str(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        raise ProviderError(
            f"the claims are nested deeper than {MAX_DEPTH} levels",
            reason="claims_too_deep",
            hint="simplify the claim at the provider",
        )
    if isinstance(value, dict):
        return {name: _serializable(item, depth - 1) for name, item in value.items()}
    return [_serializable(item, depth - 1) for item in value]


def claim_text(value: Any) -> str:
    """Return a claim as text, "" for null; raises as `serializable_claims`."""
    value = _serializable(value, MAX_DEPTH)
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def claim_list(value: Any) -> tuple[str, ...]:
    """Return a claim as strings: one per element of a list, else a single one.

    Null elements are skipped: they would become empty strings.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(claim_text(item) for item in value if item is not None)
    return (claim_text(value),)


def claim_bool(value: Any) -> bool:
    """Return a claim as a boolean: JSON true, a number other than zero, `TRUE_VALUES`."""
    if isinstance(value, str):
        return value in TRUE_VALUES
    return bool(value) if isinstance(value, bool | int | float) else False
