"""Build sections of the settings from an alpha configuration.

The file replaces the flat options of providers, headers, upstreams and servers. Unlike
the flat options it has no default upstream, header or listener. All other settings come
from flat options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from authproxy_core.settings.rules import AccessRule

from ..build.access_rules import build_access_rule, to_toml_names
from ..build.sections import Sections
from ..read.resolved import ResolvedOptions
from .headers import build_header_rules
from .providers import build_providers
from .read import Problems, read_alpha_file
from .servers import ListenerBuilder
from .upstreams import build_upstreams


def build_alpha_sections(
    options: ResolvedOptions, path: str, environ: Mapping[str, str]
) -> Sections:
    """Build the sections from the file at *path*; problems are added to *options*."""
    tree, problems = read_alpha_file(path, environ)
    listeners = ListenerBuilder(options, environ, problems)
    upstream_config = tree.get("upstreamConfig", {})
    sections = Sections(
        providers=build_providers(tree.get("providers"), options, problems),
        request_headers=build_header_rules(
            "injectRequestHeaders", tree, environ, problems
        ),
        response_headers=build_header_rules(
            "injectResponseHeaders", tree, environ, problems
        ),
        upstreams=build_upstreams(upstream_config, problems),
        listeners=(
            *listeners.build_application(tree.get("server", {})),
            *listeners.build_metrics(tree.get("metricsServer", {})),
        ),
        access_rules=_build_access_rules(tree.get("accessRules", ()), problems),
        proxy_raw_path=upstream_config.get("proxyRawPath", False),
    )
    options.files |= problems.files
    options.problems += problems.problems
    options.warnings += problems.warnings
    return sections


def _build_access_rules(
    entries: Sequence[Mapping[str, Any]], problems: Problems
) -> tuple[AccessRule, ...]:
    return tuple(
        build_access_rule(
            to_toml_names(entry),
            partial(problems.add_problem, f"accessRules[{number}]"),
        )
        for number, entry in enumerate(entries)
    )
