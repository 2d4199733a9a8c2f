"""The core of authproxy: decides about requests and does no I/O.

A server embeds it with a driver that performs effects: it builds an `AuthProxy`, passes
each `Request` to `AuthProxy.handle`, and runs the outcome with `decide` (async) or
`decide_sync`.

The public interface consists of the names in ``__all__`` and their public attributes,
and of the settings in ``authproxy_core.settings``. It follows Semantic Versioning:
incompatible changes come with a new major version, or a new minor version before 1.0.
Everything else may change in any release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .drive import decide, decide_sync, drive, drive_sync
from .effects import (
    Add,
    Delete,
    Effect,
    Fetch,
    Flow,
    Load,
    LoadAll,
    Lock,
    Members,
    Offload,
    Outcome,
    ReadBody,
    Remove,
    Save,
    Sleep,
    Unlock,
)
from .errors import (
    AuthProxyError,
    BodyTooLarge,
    BusyError,
    ClientGone,
    EffectError,
    FetchError,
    SettingsError,
    StoreError,
)
from .messages import (
    Decision,
    Event,
    Forward,
    Request,
    Respond,
    Response,
    ServeFile,
    Upstream,
)
from .session import Session
from .settings.root import (
    ClaimSource,
    CookieSettings,
    HeaderRule,
    PageSettings,
    ProviderSettings,
    Secret,
    SessionSettings,
    Settings,
    UpstreamSettings,
)

if TYPE_CHECKING:
    from .proxy import AuthProxy
else:

    def __getattr__(name: str) -> object:
        """Import `AuthProxy` when it is used: commands that decide nothing are faster."""
        if name != "AuthProxy":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .proxy import AuthProxy

        globals()[name] = AuthProxy
        return AuthProxy


__version__ = "0.1.0"  # also in pyproject.toml and authproxy/__init__.py

__all__ = [
    # the proxy
    "AuthProxy",
    "Session",
    # settings
    "ClaimSource",
    "CookieSettings",
    "HeaderRule",
    "PageSettings",
    "ProviderSettings",
    "Secret",
    "SessionSettings",
    "Settings",
    "UpstreamSettings",
    # messages
    "Decision",
    "Event",
    "Forward",
    "Request",
    "Respond",
    "Response",
    "ServeFile",
    "Upstream",
    # effects
    "Add",
    "Delete",
    "Effect",
    "Fetch",
    "Flow",
    "Load",
    "LoadAll",
    "Lock",
    "Members",
    "Offload",
    "Outcome",
    "ReadBody",
    "Remove",
    "Save",
    "Sleep",
    "Unlock",
    # drivers
    "decide",
    "decide_sync",
    "drive",
    "drive_sync",
    # errors
    "AuthProxyError",
    "BodyTooLarge",
    "BusyError",
    "ClientGone",
    "EffectError",
    "FetchError",
    "SettingsError",
    "StoreError",
]
