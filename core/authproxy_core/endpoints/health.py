"""Public endpoints: health checks, robots.txt, stylesheets.

A misconfigured gateway may send auth requests to them and takes any 2xx for "allowed".
They therefore respond only to requests for themselves, not for another original URI.
"""

from __future__ import annotations

from collections.abc import Callable

from ..effects import Outcome
from ..messages import Request, Respond
from ..pages.challenge import plain_response
from ..pages.stylesheet import static_handlers
from ..request.original import TrustedProxies
from ..settings.root import Settings
from .middleware import Handler

OK = Respond(200, ((b"content-type", b"text/plain; charset=utf-8"),), b"OK")
NOT_READY = plain_response(
    503, b"identity provider not ready\n", ((b"retry-after", b"5"),)
)
STORE_UNAVAILABLE = plain_response(
    503, b"session store unavailable\n", ((b"retry-after", b"1"),)
)
OTHER_WORKER_NOT_READY = plain_response(
    503, b"another worker is not ready\n", ((b"retry-after", b"2"),)
)
ROBOTS = b"/robots.txt"
# Paths and User-Agent of the health checks of Google's load balancers.
GOOGLE_PATHS = (b"/liveness_check", b"/readiness_check")
GOOGLE_AGENT = b"GoogleHC/1.0"


def ping_paths(settings: Settings) -> tuple[bytes, ...]:
    """Return the paths of the liveness checks."""
    google = GOOGLE_PATHS if settings.gcp_healthchecks else ()
    return (settings.ping_path.encode(), *google)


def health_routes(
    settings: Settings,
    trust: TrustedProxies,
    *,
    ready: Callable[[], Respond],
    robots: Respond,
    elsewhere: Handler,
) -> dict[bytes, Handler]:
    """Return the handlers by path; *elsewhere* handles requests that are not for them."""
    agents = {settings.ping_user_agent.encode()} - {b""}
    if settings.gcp_healthchecks:
        agents.add(GOOGLE_AGENT)

    def ping(request: Request) -> Outcome:
        if not agents or any(
            name == b"user-agent" and value in agents for name, value in request.headers
        ):
            return OK
        return elsewhere(request)

    handlers: dict[bytes, Handler] = {
        ROBOTS: lambda request: robots,
        settings.ready_path.encode(): lambda request: ready(),
        **dict.fromkeys(ping_paths(settings), ping),
        **static_handlers(settings.proxy_prefix.encode()),
    }
    return {
        path: _only_own_uri(handler, trust, elsewhere)
        for path, handler in handlers.items()
        if path
    }


def _only_own_uri(
    handler: Handler, trust: TrustedProxies, elsewhere: Handler
) -> Handler:
    def handle(request: Request) -> Outcome:
        if trust.overrides_uri(request):
            return elsewhere(request)
        return handler(request)

    return handle
