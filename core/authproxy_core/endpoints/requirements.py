"""Requirements besides an authorized session: access rules and query constraints."""

from __future__ import annotations

from msgspec.structs import replace

from ..access.membership import ConstraintCache
from ..access.rules import AccessRules
from ..login.flow import raw_query
from ..messages import Event, Request, Respond
from ..pages import challenge
from ..session import Session


class Requirements:
    """Checks the access rules, if there are any, and the constraints in the query."""

    def __init__(self, rules: AccessRules | None) -> None:
        self.has_rules = rules is not None
        self._rules = rules
        self._constraints = ConstraintCache()
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
        constraints = self._constraints.get(raw_query(request))
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
    event = Event("denied", user, "rule", f"denied by {rules}")
    return replace(
        challenge.forbidden_response(),
        events=(event,),
        user=user,
        verdict="denied",
        reason="rule",
    )
