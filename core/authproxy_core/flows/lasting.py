"""Whether a session that opened something lasting, a WebSocket, still holds.

Nothing is refreshed and nothing is noted: the client is not there to take a new cookie,
and who only listens does not use anything.
"""

from __future__ import annotations

from ..effects import Flow
from ..errors import StoreError
from ..messages import Forward, Request
from .context import Context
from .credentials import BASIC, BEARER

NO_SESSION = (BEARER, BASIC, "skipped")


def lasts(context: Context, request: Request, forward: Forward) -> Flow[bool]:
    """Whether the session of *request* has neither ended nor been revoked.

    A request that something else let in, as *forward* says, was judged once, whatever
    cookies came with it. A store that is away ends nothing.
    """
    if forward.reason in NO_SESSION:
        return True
    entry = context.sessions.recall(request.headers)
    if entry is None:
        return False
    if entry.cold:
        try:
            entry = yield from context.sessions.load(entry)
        except StoreError:
            return True
    if entry is None or context.clock() >= entry.ends_at:
        return False
    return not context.refusal(entry.session)
