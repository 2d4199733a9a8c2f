"""authproxy's core: decides about requests, does no I/O.

Embed it with a driver of your own: build an `AuthProxy`, hand every `Request` to its
`handle`, and run the outcome with `decide` (async) or `decide_sync`.
"""

from __future__ import annotations

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
from .proxy import AuthProxy
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
    "ClientGone",
    "EffectError",
    "FetchError",
    "SettingsError",
    "StoreError",
]
