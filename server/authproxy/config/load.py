"""From the command line, the environment and a file to `ServerSettings`.

Most options go as they are to the place that the table names. Those that mean
something only together, or under another name, are put together here and in
`provider`, `headers`, `upstreams`, `listening`, `secrets` and `files`. All of them
note problems instead of raising, so that everything that is wrong is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from authproxy_core.encoding import is_token
from authproxy_core.errors import SettingsError
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.root import (
    CookieSettings,
    LogoutSettings,
    PageSettings,
    Secret,
    SessionSettings,
    Settings,
    check,
)

from .. import __version__
from ..server_settings import (
    ClientSettings,
    ForwardSettings,
    Limits,
    LogFileSettings,
    LogSettings,
    ServerSettings,
    StoreSettings,
)
from .build import auth_bypass, stores, upstreams
from .build.access_rules import toml_rules
from .build.cpus import usable_cpus
from .build.credentials import credentials
from .build.listeners import proxy_protocol_sources
from .build.metrics import metrics_listeners
from .build.provider import is_web_address
from .build.sections import Sections, flat_sections, option_fields
from .config_warnings import add_warnings
from .options.table import BY_KEY, OPTIONS
from .preflight import preflight_problems
from .read import files, secrets
from .read.resolved import ConfigError, ResolvedOptions
from .read.sources import Flags, collect, read_flags

LOG_SIZE = 100  # MiB, when the option says 0
CLIENT_IP_HEADERS = (
    "X-Forwarded-For",
    "X-Real-IP",
    "X-ProxyUser-IP",
    "X-Envoy-External-Address",
    "CF-Connecting-IP",
)


def load(arguments: Sequence[str], environ: Mapping[str, str]) -> ServerSettings:
    """The settings; raises `ConfigError` with everything that is wrong."""
    return build(read_flags(arguments), environ)


def build(flags: Flags, environ: Mapping[str, str]) -> ServerSettings:
    """The settings for a command line that has been read already."""
    collected = collect(flags, environ)
    parts = _parts(collected, str(flags.control.get("alpha-config", "")), environ)
    settings = _server_settings(collected, parts)
    collected.problems += _problems_of_core(collected, settings.core)
    if not collected.problems:  # what fails now would only repeat the reasons above
        collected.problems += preflight_problems(settings)
    named = _files(collected, flags, settings)
    if collected.problems:
        raise ConfigError(tuple(collected.problems), tuple(collected.warnings), named)
    add_warnings(collected)
    auth_bypass.add_rule_warnings(collected, settings.core)
    return msgspec.structs.replace(
        settings, files=named, warnings=tuple(collected.warnings)
    )


def _files(
    collected: ResolvedOptions, flags: Flags, settings: ServerSettings
) -> tuple[str, ...]:
    """All files that the configuration comes from; a reload follows their changes."""
    named = [str(flags.control.get(flag, "")) for flag in ("config", "alpha-config")]
    for option in OPTIONS:
        value = collected.value(option.key)
        if option.key.endswith(("_file", "_files", "_ca_path")):
            named += value if isinstance(value, tuple) else [str(value)]
    for listener in settings.listeners:
        if listener.tls is not None:
            named += (listener.tls.cert_file, listener.tls.key_file)
    named += settings.client.ca_files
    return tuple(sorted(collected.files.union(filter(None, named))))


def _parts(
    collected: ResolvedOptions, alpha: str, environ: Mapping[str, str]
) -> Sections:
    """Providers, headers, upstreams and listeners, from the file *alpha* if given."""
    if not alpha:
        return flat_sections(collected)
    from .alpha.sections import (
        alpha_sections,  # few need it, and every start would pay for it
    )

    return alpha_sections(collected, alpha, environ)


def _problems_of_core(collected: ResolvedOptions, core: Settings) -> list[str]:
    """What the core finds, with its origin, less what has been said already."""
    try:
        check(core)
    except SettingsError as error:
        said = collected.failed | {
            key.removesuffix("_file") for key in collected.failed
        }
        problems = [problem.partition(": ") for problem in error.problems]
        return [
            f"{collected.label(key) if key in BY_KEY else key}: {text}"
            for key, _, text in problems
            if key not in said
        ]
    return []


def _workers(collected: ResolvedOptions, store: StoreSettings) -> int:
    """As many as given; else one for each CPU.

    With refreshes and nothing shared it is one: workers would not know who refreshes a
    session, and a provider that rotates refresh tokens ends a session whose old token
    comes a second time.
    """
    given = collected.integer("workers")
    refreshes = collected.seconds("cookie_refresh") or collected.seconds(
        "session_refresh_before"
    )
    if not refreshes or store.kind != "none":
        return given or usable_cpus()
    if given > 1:
        collected.add_warning(
            "workers",
            "several workers may refresh one session at the same time, which ends it at "
            "a provider that rotates refresh tokens; use one, or shared_state",
        )
    return given or 1


def _server_settings(collected: ResolvedOptions, parts: Sections) -> ServerSettings:
    id_header = collected.string("request_id_header")
    if not is_token(id_header.encode()):
        collected.add_mismatch("request_id_header", id_header, "the name of a header")
    upstreams.names(collected)
    store = stores.store(collected)
    return ServerSettings(
        core=_core(collected, parts, store),
        listeners=(*parts.listeners, *metrics_listeners(collected)),
        workers=_workers(collected, store),
        store=store,
        limits=Limits(**option_fields(collected, Limits)),
        client=ClientSettings(**option_fields(collected, ClientSettings)),
        forward=ForwardSettings(**option_fields(collected, ForwardSettings)),
        logs=_logs(collected),
        request_id_header=id_header.lower(),
        proxy_protocol_from=proxy_protocol_sources(collected),
        reload_on_change=collected.boolean("reload_on_change"),
    )


def _logs(collected: ResolvedOptions) -> LogSettings:
    """The log settings; a format of "" is the default one, which is made faster."""
    values = option_fields(collected, LogSettings)
    for name in ("standard", "auth", "request"):
        if collected.is_default(f"{name}_logging_format"):
            values[f"{name}_format"] = ""
    values["exclude_paths"] = frozenset(values["exclude_paths"])
    values["file"] = _log_file(collected)
    return LogSettings(**values)


def _log_file(collected: ResolvedOptions) -> LogFileSettings | None:
    path = collected.string("logging_filename")
    if not path:
        return None
    values = option_fields(collected, LogFileSettings)
    values["max_size"] = values["max_size"] or LOG_SIZE
    return LogFileSettings(path=path, **values)


def _core(
    collected: ResolvedOptions, parts: Sections, store: StoreSettings
) -> Settings:
    # Fields that several options share are overwritten by what is made of them.
    return Settings(
        **{
            **option_fields(collected, Settings),
            "cookie": _cookie(collected),
            "credentials": credentials(collected),
            "auth_bypass": auth_bypass.auth_bypass(
                collected,
                option_fields(collected, AuthBypassSettings),
                parts.listeners,
            ),
            "hsts": auth_bypass.hsts(collected),
            "access": toml_rules(collected, parts.access_rules),
            "sessions": stores.sessions(
                collected, option_fields(collected, SessionSettings), store.kind
            ),
            "providers": parts.providers,
            "real_client_ip_header": _client_ip_header(collected),
            "redirect_url": _redirect_url(collected),
            "signature_key": Secret(collected.string("signature_key")),
            "authenticated_emails": _authenticated_emails(collected),
            "inject_request_headers": parts.request_headers,
            "inject_response_headers": parts.response_headers,
            "upstreams": upstreams.trusted(collected, parts.upstreams),
            "proxy_raw_path": parts.proxy_raw_path,
            "strip_identity_headers": collected.boolean("strip_identity_headers")
            and collected.boolean("skip_auth_strip_headers"),
            "logout": LogoutSettings(**option_fields(collected, LogoutSettings)),
            "pages": _pages(collected),
            "version": __version__,
        }
    )


def _cookie(collected: ResolvedOptions) -> CookieSettings:
    values = option_fields(collected, CookieSettings)
    values["csrf_slots"] = collected.integer("cookie_csrf_slots")
    limit = collected.integer("cookie_csrf_per_request_limit")
    if limit > 0 and collected.boolean("cookie_csrf_per_request"):
        # oauth2-proxy counts those that are there before the new one.
        values["csrf_slots"] = min(limit + 1, 64)
    return CookieSettings(**{**values, "secrets": secrets.read_ring(collected)})


def _client_ip_header(collected: ResolvedOptions) -> str:
    name = collected.string("real_client_ip_header")
    known = {header.lower() for header in CLIENT_IP_HEADERS}
    if collected.boolean("reverse_proxy") and name.lower() not in known:
        expected = "one of " + ", ".join(CLIENT_IP_HEADERS)
        collected.add_mismatch("real_client_ip_header", name, expected)
    return name.lower()


def _redirect_url(collected: ResolvedOptions) -> str:
    url = collected.string("redirect_url")
    if url and not is_web_address(url) and not url.startswith("/"):
        collected.add_mismatch(
            "redirect_url", url, "an address such as https://HOST/oauth2/callback"
        )
    return url


def _authenticated_emails(collected: ResolvedOptions) -> frozenset[str] | None:
    """None: there is no list. An empty list lets nobody in."""
    key = "authenticated_emails_file"
    path = collected.string(key)
    return files.read_addresses(collected, key, path) if path else None


def _pages(collected: ResolvedOptions) -> PageSettings:
    return PageSettings(
        **{
            **option_fields(collected, PageSettings),
            **files.read_templates(collected, "custom_templates_dir"),
            "logo": files.logo_html(collected, "custom_sign_in_logo"),
        }
    )
