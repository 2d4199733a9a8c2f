"""An alpha configuration as parts of the settings.

It stands for the flat options about providers, headers, upstreams and servers, and has
no defaults of its own beside theirs: there is no upstream, no header and no listener
unless the file has one. All else comes from the flat options as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from authproxy_core.rule_settings import AccessRule

from .access_rules import access_rule, snake_case
from .alpha_headers import header_rules
from .alpha_providers import providers
from .alpha_read import Problems, read_alpha
from .alpha_servers import Servers
from .alpha_upstreams import upstreams
from .collected import Collected
from .parts import Parts


def alpha_parts(collected: Collected, path: str, environ: Mapping[str, str]) -> Parts:
    """What the file at *path* says; problems and warnings go to *collected*."""
    tree, problems = read_alpha(path, environ)
    servers = Servers(collected, environ, problems)
    parts = Parts(
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
