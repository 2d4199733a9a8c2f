"""The parts of the settings that either the flat options or an alpha file give."""

from __future__ import annotations

from typing import Any, NamedTuple

from authproxy_core.settings.root import HeaderRule, ProviderSettings, UpstreamSettings
from authproxy_core.settings.rules import AccessRule

from ...server_settings import Listener
from ..options.table import OPTIONS
from ..read.resolved import ResolvedOptions
from . import headers
from .listeners import listeners
from .provider import provider
from .upstreams import upstreams


class Sections(NamedTuple):
    """What both forms can say; the rest comes from flat options only."""

    providers: tuple[ProviderSettings, ...]
    request_headers: tuple[HeaderRule, ...]
    response_headers: tuple[HeaderRule, ...]
    upstreams: tuple[UpstreamSettings, ...]
    listeners: tuple[Listener, ...]
    proxy_raw_path: bool = False
    access_rules: tuple[AccessRule, ...] = ()


def option_fields(collected: ResolvedOptions, prefix: str) -> dict[str, Any]:
    """The values of the options whose place is a field right below *prefix*."""
    return {
        name: collected.value(option.key)
        for option in OPTIONS
        if option.setting.startswith(prefix)
        and "." not in (name := option.setting.removeprefix(prefix))
    }


def flat_sections(collected: ResolvedOptions) -> Sections:
    """What the flat options say; problems are noted."""
    return Sections(
        providers=(provider(collected, option_fields(collected, "core.providers.")),),
        request_headers=headers.request_rules(collected),
        response_headers=headers.response_rules(collected),
        upstreams=upstreams(collected),
        listeners=listeners(collected),
    )
