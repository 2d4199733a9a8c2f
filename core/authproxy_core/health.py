"""Which requests are health checks: a path, and at times who asks.

Google's load balancers ask under paths of their own and name themselves; whoever names
user agents answers nobody else, not even under the usual path.
"""

from __future__ import annotations

from .messages import Request, first_header
from .settings import Settings

GOOGLE_PATHS = (b"/liveness_check", b"/readiness_check")
GOOGLE_AGENT = b"GoogleHC/1.0"


class HealthChecks:
    """The paths that say whether the process lives, and who may ask."""

    def __init__(self, settings: Settings) -> None:
        paths = [settings.ping_path.encode()]
        agents = [settings.ping_user_agent.encode()]
        if settings.gcp_healthchecks:
            paths += GOOGLE_PATHS
            agents.append(GOOGLE_AGENT)
        self.paths = tuple(path for path in paths if path)
        self._agents = frozenset(agent for agent in agents if agent)

    def asks(self, request: Request) -> bool:
        """Whether a request for one of the paths comes from one that is answered."""
        if not self._agents:
            return True
        return first_header(request.headers, b"user-agent") in self._agents
