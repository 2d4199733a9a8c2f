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
from ..session import Session

MAX_NAME_LENGTH = 100  # characters of a parameter name in the log


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
        self._forbidden = replace(challenge.forbidden_response(), reusable=True)

    def check(self, request: Request, session: Session) -> Respond | None:
        """Return 403 if *session* does not meet the requirements, else None.

        Raises `RequestError` for an ambiguous original request or a malformed query.
        """
        if self._rules is not None:
            result = self._rules.evaluate(request)
            if not result.permits(session):
                return _denied(session.name, result.reason(session))
        if b"?" not in request.target:
            return None
        # Forwarded requests have too many queries to search all of them.
        is_auth = request.target.startswith(self._auth_queries)
        cache = self._auth_constraints if is_auth else self._constraints
        constraints = cache.get(raw_query(request))
        if constraints.misspelled:
            return _misspelled(session.name, constraints.misspelled[0])
        return None if constraints.permits(session) else self._forbidden

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
        return _denied("", result.reason()) if result.policy == "deny" else None


def _denied(user: str, rules: str) -> Respond:
    return _forbidden(Event("denied", user, "rule", f"denied by {rules}"))


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
