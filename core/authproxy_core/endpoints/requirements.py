"""What a request demands of a session, besides what every session has to be."""

from __future__ import annotations

from msgspec.structs import replace

from ..access.membership import ConstraintCache
from ..access.rules import AccessRules
from ..login.flow import raw_query
from ..messages import Event, Request, Respond
from ..pages import challenge
from ..session import Session


class Requirements:
    """The query of a request, and the access rules where there are some."""

    def __init__(self, rules: AccessRules | None) -> None:
        self._rules = rules
        self._constraints = ConstraintCache()
        self._forbidden = replace(challenge.forbidden_response(), reusable=True)

    def check(self, request: Request, session: Session) -> Respond | None:
        """403 if *session* does not do for *request*; raises `RequestError`."""
        if self._rules is not None:
            ruling = self._rules.evaluate(request)
            if not ruling.permits(session):
                return _refused(session.name, ruling.reason(session))
        if b"?" not in request.target:
            return None
        meets = self._constraints.get(raw_query(request)).permits(session)
        return None if meets else self._forbidden

    def requires_session(self, request: Request) -> bool:
        """Whether a rule says that there is no way around one."""
        if self._rules is None:
            return False
        ruling = self._rules.evaluate(request)
        return ruling.matched and ruling.policy == "login"

    def check_deny_all(self, request: Request) -> Respond | None:
        """403 if *request* is for nobody, so that no login would help."""
        if self._rules is None:
            return None
        ruling = self._rules.evaluate(request)
        return _refused("", ruling.reason()) if ruling.policy == "deny" else None


def _refused(user: str, rules: str) -> Respond:
    event = Event("denied", user, "rule", f"denied by {rules}")
    return replace(
        challenge.forbidden_response(),
        events=(event,),
        user=user,
        verdict="denied",
        reason="rule",
    )
