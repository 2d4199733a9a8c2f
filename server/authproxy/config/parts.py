"""The parts of the settings that either the flat options or an alpha file give."""

from __future__ import annotations

from typing import Any, NamedTuple

from authproxy_core.rule_settings import AccessRule
from authproxy_core.settings import HeaderRule, ProviderSettings, UpstreamSettings

from ..server_settings import Listener
from . import headers
from .collected import Collected
from .listening import listeners
from .options import OPTIONS
from .provider import provider
from .upstreams import upstreams


class Parts(NamedTuple):
    """What both forms can say; the rest comes from flat options only."""

    providers: tuple[ProviderSettings, ...]
    request_headers: tuple[HeaderRule, ...]
    response_headers: tuple[HeaderRule, ...]
    upstreams: tuple[UpstreamSettings, ...]
    listeners: tuple[Listener, ...]
    proxy_raw_path: bool = False
    access_rules: tuple[AccessRule, ...] = ()


def placed(collected: Collected, prefix: str) -> dict[str, Any]:
    """The values of the options whose place is a field right below *prefix*."""
    return {
        name: collected.value(option.key)
        for option in OPTIONS
        if option.place.startswith(prefix)
        and "." not in (name := option.place.removeprefix(prefix))
    }


def flat_parts(collected: Collected) -> Parts:
    """What the flat options say; problems are noted."""
    return Parts(
        providers=(provider(collected, placed(collected, "core.providers.")),),
        request_headers=headers.request_rules(collected),
        response_headers=headers.response_rules(collected),
        upstreams=upstreams(collected),
        listeners=listeners(collected),
    )
