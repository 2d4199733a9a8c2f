"""A row of the table of differences, and reasons that many rows share."""

from __future__ import annotations

import re
import tomllib
from typing import Any, NamedTuple

from ..conditions import EVERY, NEVER, Condition

SECURITY = "not available: it would weaken security"
BUG = "not available: bug in oauth2-proxy"
ADDITION = "not needed: what works with oauth2-proxy works unchanged"

SETTING = re.compile(r"`([a-z0-9_]+ = [^`]+)`")


class Difference(NamedTuple):
    """An intended difference from oauth2-proxy.

    ``what`` differs, ``why``, and ``instead``: the options for oauth2-proxy's behavior,
    or why there are none. It touches a configuration if ``when`` holds. If ``look`` holds
    as well, something that works with oauth2-proxy may change, so an operator should
    look at it.
    """

    id: str
    what: str
    why: str
    instead: str
    when: Condition = EVERY
    look: Condition = NEVER

    @property
    def settings(self) -> dict[str, Any]:
        """The values in ``instead``, by option."""
        return tomllib.loads("\n".join(SETTING.findall(self.instead)))
