"""Requirements besides an authorized session: access rules and query constraints."""

from __future__ import annotations

from msgspec.structs import replace

from ..access.auth_bypass import auth_endpoints
from ..access.membership import (
    CONSTRAINTS,
    ConstraintCache,
    parse_auth_constraints,
    parse_constraints,
)
from ..access.rules import AccessRules
from ..login.flow import raw_query
from ..messages import Event, Request, Respond
from ..pages import challenge
from ..request.forms import constraints
from ..session import Session

MAX_NAME_LENGTH = 100  # characters of a parameter name in the log
MAX_VALUES_LENGTH = 200  # characters of a constraint's values in the log


class Requirements:
    """Checks the access rules, if there are any, and the constraints in the query.

    At the auth endpoints below *prefix* the query is the operator's, so a misspelled
    constraint denies access.
    """

    def __init__(self, rules: AccessRules | None, prefix: str) -> None:
        self.has_rules = rules is not None
        self._rules = rules
        self._constraints = ConstraintCache(parse_constraints)
        self._auth_constraints = ConstraintCache(parse_auth_constraints)
        self._auth_queries = tuple(
            f"{path}?".encode() for path in auth_endpoints(prefix)
        )

    def check(self, request: Request, session: Session) -> Respond | None:
        """Return 403 if *session* does not meet the requirements, else None.

        Raises `RequestError` for an ambiguous original request or a malformed query.
        """
        if self._rules is not None:
            result = self._rules.evaluate(request)
            if not result.permits(session):
                return self._denied(request, session.name, result.reason(session))
        if b"?" not in request.target:
            return None
        # Forwarded requests have too many queries to search all of them.
        is_auth = request.target.startswith(self._auth_queries)
        cache = self._auth_constraints if is_auth else self._constraints
        parsed = cache.get(raw_query(request))
        if parsed.misspelled:
            return _misspelled(session.name, parsed.misspelled[0])
        unmet = parsed.unmet(session)
        return _unmet(session.name, unmet, request) if unmet else None

    def requires_session(self, request: Request) -> bool:
        """Return whether a rule requires a login, so that no bypass option applies."""
        if self._rules is None:
            return False
        result = self._rules.evaluate(request)
        return result.matched and result.policy == "login"

    def check_deny_all(self, request: Request) -> Respond | None:
        """Return 403 if the rules deny *request* to every user, else None."""
        if self._rules is None:
            return None
        result = self._rules.evaluate(request)
        if result.policy != "deny":
            return None
        return self._denied(request, "", result.reason())

    def _denied(self, request: Request, user: str, rules: str) -> Respond:
        assert self._rules is not None  # noqa: S101
        named = f"user {user}, " if user else ""
        detail = f"denied by {rules}; {named}request {self._rules.describe(request)}"
        return _forbidden(Event("denied", user, "rule", detail))


def _unmet(user: str, name: str, request: Request) -> Respond:
    values = ",".join(constraints(raw_query(request), (name,))[name])
    detail = (
        f"the query requires {name}={values[:MAX_VALUES_LENGTH]!r}, which the user {user} "
        "does not satisfy"
    )
    return _forbidden(Event("denied", user, "query", detail))


def _misspelled(user: str, name: str) -> Respond:
    detail = (
        f"unknown constraint {name[:MAX_NAME_LENGTH]!r} in the query of the auth check; "
        f"expected {', '.join(CONSTRAINTS)}"
    )
    return _forbidden(Event("denied", user, "query", detail))


def _forbidden(event: Event) -> Respond:
    return replace(
        challenge.forbidden_response(),
        events=(event,),
        user=event.user,
        verdict="denied",
        reason=event.reason,
    )
