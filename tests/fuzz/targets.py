"""All fuzz targets by name."""

from __future__ import annotations

from . import (
    targets_config,
    targets_http,
    targets_http2,
    targets_oidc,
    targets_sessions,
)
from .target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        targets_http,
        targets_http2,
        targets_sessions,
        targets_oidc,
        targets_config,
    )
    for target in module.TARGETS
}
