"""Re-check the session of an open WebSocket.

The session is neither refreshed nor touched: the client cannot receive a cookie, and an
open connection alone is not a use of the session.
"""

from __future__ import annotations

from ..access.credentials import BASIC, BEARER
from ..effects import Flow
from ..errors import StoreError
from ..login.context import Context
from ..messages import Forward, Request
from ..sessions.session_resolver import load_any

WITHOUT_SESSION = (BEARER, BASIC, "skipped")  # reason codes


def is_session_valid(
    context: Context, request: Request, forward: Forward
) -> Flow[bool]:
    """Return whether the session of *request* has neither expired nor been revoked.

    True if *forward* was allowed without a session, whatever cookies *request* carries,
    and if the store is unavailable.
    """
    if forward.reason in WITHOUT_SESSION:
        return True
    entry = context.sessions.lookup(request.headers)
    if entry is None:
        return False
    if entry.needs_load:
        try:
            entry = yield from load_any(context, request, entry)
        except StoreError:
            return True
    if entry is None or context.clock() >= entry.ends_at:
        return False
    return not context.denial_reason(entry.session)
