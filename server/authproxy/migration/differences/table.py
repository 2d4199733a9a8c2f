"""All intended differences, in the order of docs/differences.md."""

from __future__ import annotations

from .access import ACCESS
from .headers import HEADERS
from .login import LOGIN
from .operating import OPERATING
from .pages import PAGES
from .providers import PROVIDERS
from .requests import REQUESTS
from .row import Difference
from .sessions import SESSIONS
from .upstreams import UPSTREAMS

DIFFERENCES: tuple[Difference, ...] = (
    *REQUESTS,
    *LOGIN,
    *ACCESS,
    *SESSIONS,
    *HEADERS,
    *UPSTREAMS,
    *PROVIDERS,
    *PAGES,
    *OPERATING,
)
