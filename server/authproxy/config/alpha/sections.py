"""An alpha configuration as parts of the settings.

It stands for the flat options about providers, headers, upstreams and servers, and has
no defaults of its own beside theirs: there is no upstream, no header and no listener
unless the file has one. All else comes from the flat options as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from authproxy_core.settings.rules import AccessRule

from ..build.access_rules import access_rule, snake_case
from ..build.sections import Sections
from ..read.resolved import ResolvedOptions
from .headers import header_rules
from .providers import providers
from .read import Problems, read_alpha
from .servers import Servers
from .upstreams import upstreams


def alpha_sections(
    collected: ResolvedOptions, path: str, environ: Mapping[str, str]
) -> Sections:
    """What the file at *path* says; problems and warnings go to *collected*."""
    tree, problems = read_alpha(path, environ)
    servers = Servers(collected, environ, problems)
    parts = Sections(
        providers=providers(tree.get("providers"), collected, problems),
        request_headers=header_rules("injectRequestHeaders", tree, environ, problems),
        response_headers=header_rules("injectResponseHeaders", tree, environ, problems),
        upstreams=upstreams(tree.get("upstreamConfig", {}), problems),
        listeners=(
            *servers.application(tree.get("server", {})),
            *servers.metrics(tree.get("metricsServer", {})),
        ),
        access_rules=access_rules(tree.get("accessRules", ()), problems),
        proxy_raw_path=tree.get("upstreamConfig", {}).get("proxyRawPath", False),
    )
    collected.files |= problems.files
    collected.problems += problems.found
    collected.warnings += problems.warnings
    return parts


def access_rules(
    entries: Sequence[Mapping[str, Any]], problems: Problems
) -> tuple[AccessRule, ...]:
    """The access rules; what is wrong is noted."""
    return tuple(
        access_rule(
            snake_case(entry), partial(problems.wrong, f"accessRules[{number}]")
        )
        for number, entry in enumerate(entries)
    )
