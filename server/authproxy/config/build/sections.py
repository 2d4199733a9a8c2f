"""The parts of the settings that either the flat options or an alpha file give."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

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


def option_fields(collected: ResolvedOptions, settings: type[Struct]) -> dict[str, Any]:
    """Return the values of the options that set a field of *settings*, by field name."""
    return {
        name: collected.value(option.key)
        for option in OPTIONS
        if (name := option.field_of(settings))
    }


def flat_sections(collected: ResolvedOptions) -> Sections:
    """What the flat options say; problems are noted."""
    return Sections(
        providers=(provider(collected, option_fields(collected, ProviderSettings)),),
        request_headers=headers.request_rules(collected),
        response_headers=headers.response_rules(collected),
        upstreams=upstreams(collected),
        listeners=listeners(collected),
    )
