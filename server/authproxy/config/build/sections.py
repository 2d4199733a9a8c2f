"""The sections of the settings that flat options or an alpha file define."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from authproxy_core.settings import HeaderRule, ProviderSettings, UpstreamSettings
from authproxy_core.settings.rules import AccessRule

from ...server_settings import Listener
from ..options.table import OPTIONS
from ..read.resolved import ResolvedOptions
from .headers import build_request_headers, build_response_headers
from .listeners import build_listeners
from .provider import build_provider
from .upstreams import build_upstreams


class Sections(NamedTuple):
    """The settings that an alpha file can replace; the rest has flat options only."""

    providers: tuple[ProviderSettings, ...]
    request_headers: tuple[HeaderRule, ...]
    response_headers: tuple[HeaderRule, ...]
    upstreams: tuple[UpstreamSettings, ...]
    listeners: tuple[Listener, ...]
    proxy_raw_path: bool = False
    access_rules: tuple[AccessRule, ...] = ()


def option_fields(options: ResolvedOptions, settings: type[Struct]) -> dict[str, Any]:
    """Return the values of the options that set a field of *settings*, by field name."""
    return {
        name: options.value(option.key)
        for option in OPTIONS
        if (name := option.field_of(settings))
    }


def build_sections(options: ResolvedOptions) -> Sections:
    """Build the sections from the flat options."""
    return Sections(
        providers=(build_provider(options, option_fields(options, ProviderSettings)),),
        request_headers=build_request_headers(options),
        response_headers=build_response_headers(options),
        upstreams=build_upstreams(options),
        listeners=build_listeners(options),
    )
