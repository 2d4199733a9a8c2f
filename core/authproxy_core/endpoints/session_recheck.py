"""Whether a session that opened something lasting, a WebSocket, still holds.

Nothing is refreshed and nothing is noted: the client is not there to take a new cookie,
and who only listens does not use anything.
"""

from __future__ import annotations

from ..access.credentials import BASIC, BEARER
from ..effects import Flow
from ..errors import StoreError
from ..login.context import Context
from ..messages import Forward, Request

NO_SESSION = (BEARER, BASIC, "skipped")


def is_session_valid(
    context: Context, request: Request, forward: Forward
) -> Flow[bool]:
    """Whether the session of *request* has neither ended nor been revoked.

    A request that something else let in, as *forward* says, was judged once, whatever
    cookies came with it. A store that is away ends nothing.
    """
    if forward.reason in NO_SESSION:
        return True
    entry = context.sessions.lookup(request.headers)
    if entry is None:
        return False
    if entry.needs_load:
        try:
            entry = yield from context.sessions.load(entry)
        except StoreError:
            return True
    if entry is None or context.clock() >= entry.ends_at:
        return False
    return not context.denial_reason(entry.session)
