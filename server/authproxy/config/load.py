"""Load `ServerSettings` from the command line, the environment and files.

The option table names the settings field of each option. Most values are set unchanged;
fields that are built from several options, or from files, are built here and in
``build``. All builders add problems instead of raising, so that one error reports every
problem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from authproxy_core.encoding import is_token
from authproxy_core.errors import SettingsError
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.root import (
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
from .build.access_rules import build_rule_settings
from .build.cookies import build_cookie
from .build.credentials import build_credentials
from .build.listeners import build_metrics_listeners, parse_proxy_protocol_sources
from .build.provider import is_http_url
from .build.sections import Sections, build_sections, option_fields
from .build.tracing import build_tracing
from .build.workers import worker_count
from .config_warnings import add_warnings
from .options.table import BY_KEY, OPTIONS
from .preflight import preflight_problems
from .read import files
from .read.resolved import ConfigError, ResolvedOptions
from .read.sources import Flags, parse_flags, resolve_options

DEFAULT_LOG_SIZE = 100  # MiB
CLIENT_IP_HEADERS = (
    "X-Forwarded-For",
    "X-Real-IP",
    "X-ProxyUser-IP",
    "X-Envoy-External-Address",
    "CF-Connecting-IP",
)


def load_settings(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> ServerSettings:
    """Load the settings; raises `ConfigError` with every problem."""
    return build_settings(parse_flags(arguments), environ)


def build_settings(flags: Flags, environ: Mapping[str, str]) -> ServerSettings:
    """Build the settings for a parsed command line; raises `ConfigError`."""
    options, settings = resolve_settings(flags, environ)
    if not options.problems:  # otherwise the preflight repeats the same causes
        options.problems += preflight_problems(settings)
    names = _file_names(options, flags, settings)
    if options.problems:
        raise ConfigError(tuple(options.problems), tuple(options.warnings), names)
    add_warnings(options)
    auth_bypass.add_bypass_warnings(options, settings.core)
    return msgspec.structs.replace(
        settings, files=names, warnings=tuple(options.warnings)
    )


def resolve_settings(
    flags: Flags, environ: Mapping[str, str]
) -> tuple[ResolvedOptions, ServerSettings]:
    """Return the options with all their problems, and the settings made from them.

    With problems, the settings are not usable. Raises `ConfigError` for an unreadable
    TOML file.
    """
    options = resolve_options(flags, environ)
    sections = _sections(options, str(flags.control.get("alpha-config", "")), environ)
    settings = _server_settings(options, sections)
    options.problems += _core_problems(options, settings.core)
    return options, settings


def _file_names(
    options: ResolvedOptions, flags: Flags, settings: ServerSettings
) -> tuple[str, ...]:
    """Return the names of all files of the configuration, which a reload watches."""
    names = [str(flags.control.get(flag, "")) for flag in ("config", "alpha-config")]
    for option in OPTIONS:
        value = options.value(option.key)
        if option.key.endswith(("_file", "_files", "_ca_path")):
            names += value if isinstance(value, tuple) else [str(value)]
    for listener in settings.listeners:
        if listener.tls is not None:
            names += (listener.tls.cert_file, listener.tls.key_file)
    names += settings.client.ca_files
    return tuple(sorted(options.files.union(filter(None, names))))


def _sections(
    options: ResolvedOptions, alpha_path: str, environ: Mapping[str, str]
) -> Sections:
    """Build the sections from the alpha file, if there is one, or flat options."""
    if not alpha_path:
        return build_sections(options)
    # Imported on use, because most deployments have no alpha file.
    from .alpha.sections import build_alpha_sections

    return build_alpha_sections(options, alpha_path, environ)


def _core_problems(options: ResolvedOptions, core: Settings) -> list[str]:
    """Return the core's problems, with origins, except for options that failed."""
    try:
        check(core)
    except SettingsError as error:
        failed = options.failed | {key.removesuffix("_file") for key in options.failed}
        problems = [problem.partition(": ") for problem in error.problems]
        return [
            f"{options.label(key) if key in BY_KEY else key}: {text}"
            for key, _, text in problems
            if key not in failed
        ]
    return []


def _server_settings(options: ResolvedOptions, sections: Sections) -> ServerSettings:
    id_header = options.string("request_id_header")
    if not is_token(id_header.encode()):
        options.add_mismatch("request_id_header", id_header, "a header name")
    upstreams.check_forward_options(options)
    store = stores.build_store(options)
    return ServerSettings(
        core=_core_settings(options, sections, store),
        listeners=(*sections.listeners, *build_metrics_listeners(options)),
        workers=worker_count(options, store),
        store=store,
        limits=Limits(**option_fields(options, Limits)),
        client=ClientSettings(**option_fields(options, ClientSettings)),
        forward=ForwardSettings(**option_fields(options, ForwardSettings)),
        logs=_log_settings(options),
        tracing=build_tracing(options),
        request_id_header=id_header.lower(),
        proxy_protocol_from=parse_proxy_protocol_sources(options),
        reload_on_change=options.boolean("reload_on_change"),
    )


def _log_settings(options: ResolvedOptions) -> LogSettings:
    """Build the log settings; "" selects the optimized code of a default format."""
    fields = option_fields(options, LogSettings)
    for name in ("standard", "auth", "request"):
        if options.is_default(f"{name}_logging_format"):
            fields[f"{name}_format"] = ""
    fields["exclude_paths"] = frozenset(fields["exclude_paths"])
    fields["file"] = _log_file_settings(options)
    return LogSettings(**fields)


def _log_file_settings(options: ResolvedOptions) -> LogFileSettings | None:
    path = options.string("logging_filename")
    if not path:
        return None
    fields = option_fields(options, LogFileSettings)
    fields["max_size"] = fields["max_size"] or DEFAULT_LOG_SIZE
    return LogFileSettings(path=path, **fields)


def _core_settings(
    options: ResolvedOptions, sections: Sections, store: StoreSettings
) -> Settings:
    # The built values override those that option_fields returns for the same field.
    return Settings(
        **{
            **option_fields(options, Settings),
            "cookie": build_cookie(options, files.read_key_ring(options)),
            "credentials": build_credentials(options),
            "auth_bypass": auth_bypass.build_auth_bypass(
                options,
                option_fields(options, AuthBypassSettings),
                sections.listeners,
            ),
            "hsts": auth_bypass.build_hsts(options),
            "access": build_rule_settings(options, sections.access_rules),
            "sessions": stores.build_sessions(
                options, option_fields(options, SessionSettings), store.kind
            ),
            "providers": sections.providers,
            "proxy_prefix": _proxy_prefix(options),
            "real_client_ip_header": _client_ip_header(options),
            "redirect_url": _redirect_url(options),
            "signature_key": Secret(options.string("signature_key")),
            "authenticated_emails": _authenticated_emails(options),
            "inject_request_headers": sections.request_headers,
            "inject_response_headers": sections.response_headers,
            "upstreams": upstreams.add_ca_certificates(options, sections.upstreams),
            "proxy_raw_path": sections.proxy_raw_path,
            "strip_identity_headers": options.boolean("strip_identity_headers")
            and options.boolean("skip_auth_strip_headers"),
            "logout": LogoutSettings(**option_fields(options, LogoutSettings)),
            "pages": _page_settings(options),
            "version": __version__,
        }
    )


def _proxy_prefix(options: ResolvedOptions) -> str:
    """Return the prefix without its final slash, which oauth2-proxy tolerates."""
    prefix = options.string("proxy_prefix")
    text = prefix.rstrip("/")
    if text != prefix and text:
        options.add_warning("proxy_prefix", f"got {prefix!r}; {text!r} is used instead")
    return text


def _client_ip_header(options: ResolvedOptions) -> str:
    name = options.string("real_client_ip_header")
    known = {header.lower() for header in CLIENT_IP_HEADERS}
    if options.boolean("reverse_proxy") and name.lower() not in known:
        expected = "one of " + ", ".join(CLIENT_IP_HEADERS)
        options.add_mismatch("real_client_ip_header", name, expected)
    return name.lower()


def _redirect_url(options: ResolvedOptions) -> str:
    url = options.string("redirect_url")
    if url and not is_http_url(url) and not url.startswith("/"):
        options.add_mismatch(
            "redirect_url", url, "a URL such as https://HOST/oauth2/callback"
        )
    return url


def _authenticated_emails(options: ResolvedOptions) -> frozenset[str] | None:
    """Return the allowed emails; None without a list. An empty list allows no user."""
    key = "authenticated_emails_file"
    path = options.string(key)
    return files.read_emails(options, key, path) if path else None


def _page_settings(options: ResolvedOptions) -> PageSettings:
    return PageSettings(
        **{
            **option_fields(options, PageSettings),
            **files.read_templates(options, "custom_templates_dir"),
            "logo": files.read_logo(options, "custom_sign_in_logo"),
        }
    )
