"""Convert flat options to an alpha configuration (``--convert-config-to-alpha``).

The document is that of oauth2-proxy, with three differences. Secrets are not printed,
but replaced by references to the option's environment variable or file. ``$`` is doubled
in other strings, because reading the file would substitute it. The nonce, which
oauth2-proxy skips by default, is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings import ClaimSource, HeaderRule

from ..build.headers import build_request_headers, build_response_headers
from ..build.provider import build_login_parameters
from ..options.table import BY_KEY
from ..read.resolved import ConfigError, ResolvedOptions
from ..read.sources import Flags, resolve_options
from ..read.values import format_duration
from ..read.yaml_text import SingleQuoted, write_yaml
from .schema import PROVIDER_KEYS

# The provider types that fill a block; others leave it at the defaults.
TYPES_OF_BLOCK = {
    "keycloakConfig": ("keycloak", "keycloak-oidc"),
    "microsoftEntraIDConfig": ("entra-id",),
    "bitbucketConfig": ("bitbucket",),
    "githubConfig": ("github",),
    "gitlabConfig": ("gitlab",),
    "googleConfig": ("google",),
    "loginGovConfig": ("login.gov",),
}
# Keys that are printed at their default as well, for any provider type.
ALWAYS = {
    "backendLogoutURL",
    "skipClaimsFromProfileURL",
    "useSystemTrustStore",
    "federatedTokenAuth",
    "useApplicationDefaultCredentials",
    "useOrganizationID",
    "insecureAllowUnverifiedEmail",
    "insecureSkipIssuerVerification",
    "insecureSkipNonce",
    "skipDiscovery",
}


def convert_to_alpha(
    flags: Flags, environ: Mapping[str, str]
) -> tuple[str, tuple[str, ...]]:
    """Return the YAML for the flat options, and warnings; raises `ConfigError`.

    As in oauth2-proxy, values are parsed but not validated further.
    """
    for other in ("alpha-config", "config-test"):
        if flags.control.get(other):
            raise ConfigError(
                (f"--convert-config-to-alpha: can't be used with --{other}",)
            )
    options = resolve_options(flags, environ)
    upstreams = [
        _convert_upstream(options, uri) for uri in options.strings("upstreams")
    ]
    document = {
        "injectRequestHeaders": [*map(_convert_header, build_request_headers(options))],
        "injectResponseHeaders": [
            *map(_convert_header, build_response_headers(options))
        ],
        "metricsServer": _convert_metrics(options),
        "providers": [_convert_provider(options)],
        "server": _convert_server(options),
        "upstreamConfig": {
            "proxyRawPath": False,
            **({"upstreams": upstreams} if upstreams else {}),
        },
    }
    if options.problems:
        raise ConfigError(tuple(options.problems), tuple(options.warnings))
    _warn_unprinted_secrets(options)
    text = write_yaml({key: value for key, value in document.items() if value != []})
    return text, tuple(options.warnings)


def _warn_unprinted_secrets(options: ResolvedOptions) -> None:
    for key in ("client_secret", "basic_auth_password", "github_token", "jwt_key"):
        value = options.explicit.get(key)
        if value and value.value and value.origin != BY_KEY[key].environment:
            options.add_warning(
                key, f"not printed; set {BY_KEY[key].environment} for the alpha file"
            )


def _escape_dollars(value: str) -> str:
    return value.replace("$", "$$")


def _variable_reference(key: str) -> SingleQuoted:
    return SingleQuoted("${" + BY_KEY[key].environment + "}")


# Providers


def _convert_provider(options: ResolvedOptions) -> dict[str, Any]:
    kind = options.string("provider")
    flat = PROVIDER_KEYS[""]
    top = {name: _convert_value(options, key) for name, (key, _) in flat.items()}
    top["code_challenge_method"] = options.string(
        "code_challenge_method"
    ) or options.string("force_code_challenge_method")
    blocks = {
        block: _convert_block(options, block, keys, kind)
        for block, keys in PROVIDER_KEYS.items()
        if block
    }
    name = options.string("provider_display_name")
    document = {
        "id": _escape_dollars(name or f"{kind}={options.string('client_id')}"),
        **top,
        **blocks,
        "ADFSConfig": {"skipScope": False},
        "loginURLParameters": [
            {"name": item.name, "default": [*map(_escape_dollars, item.values)]}
            for item in build_login_parameters(options)
        ],
    }
    return {key: value for key, value in document.items() if _is_printed(key, value)}


def _convert_block(
    options: ResolvedOptions,
    block: str,
    keys: Mapping[str, tuple[str, str]],
    kind: str,
) -> dict[str, Any]:
    is_used = kind in TYPES_OF_BLOCK.get(block, (kind,))
    values = {
        name: _convert_value(options, key) if is_used else BY_KEY[key].default
        for name, (key, _) in keys.items()
    }
    if block == "keycloakConfig" and kind == "keycloak":
        values["roles"] = []
    if block == "googleConfig" and is_used:
        old = list(options.strings("google_group"))
        values["group"] = old or values["group"]
    return {name: value for name, value in values.items() if _is_printed(name, value)}


def _is_printed(name: str, value: object) -> bool:
    return name in ALWAYS or value not in ("", [], (), {}, False)


def _convert_value(options: ResolvedOptions, key: str) -> Any:
    value = options.value(key)
    if isinstance(value, tuple):
        return [_escape_dollars(item) for item in value]
    if isinstance(value, str) and value:
        return (
            _variable_reference(key) if BY_KEY[key].secret else _escape_dollars(value)
        )
    return value


# Headers


def _convert_header(rule: HeaderRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "preserveRequestValue": rule.preserve_request_value,
        "values": [
            {"claimSource": _convert_claim(source)}
            for source in rule.values
            if isinstance(source, ClaimSource)
        ],
    }


def _convert_claim(source: ClaimSource) -> dict[str, Any]:
    if source.basic_auth_password is not None:
        password = {"fromEnv": BY_KEY["basic_auth_password"].environment}
        # The prefix has no effect with a password, but oauth2-proxy prints it.
        return {
            "claim": source.claim,
            "prefix": "Basic ",
            "basicAuthPassword": password,
        }
    prefix = {"prefix": source.prefix} if source.prefix else {}
    return {"claim": source.claim, **prefix}


# Servers


def _convert_server(options: ResolvedOptions) -> dict[str, Any]:
    cert, key = options.string("tls_cert_file"), options.string("tls_key_file")
    if not cert and not key:
        address = options.string("http_address")
        return {} if not address else {"bindAddress": _escape_dollars(address)}
    tls: dict[str, Any] = {"key": _file_source(key), "cert": _file_source(cert)}
    if version := options.string("tls_min_version"):
        tls["minVersion"] = version
    if suites := options.strings("tls_cipher_suites"):
        tls["cipherSuites"] = list(suites)
    address = options.string("https_address")
    return {
        **({"secureBindAddress": _escape_dollars(address)} if address else {}),
        "tls": tls,
    }


def _file_source(path: str) -> dict[str, str]:
    return {"fromFile": _escape_dollars(path)} if path else {}


def _convert_metrics(options: ResolvedOptions) -> dict[str, Any]:
    server: dict[str, Any] = {}
    for name, key in (
        ("bindAddress", "metrics_address"),
        ("secureBindAddress", "metrics_secure_address"),
    ):
        if address := options.string(key):
            server[name] = _escape_dollars(address)
    cert = options.string("metrics_tls_cert_file")
    key_file = options.string("metrics_tls_key_file")
    if cert or key_file:
        server["tls"] = {"key": _file_source(key_file), "cert": _file_source(cert)}
    return server


# Upstreams


def _convert_upstream(options: ResolvedOptions, uri: str) -> dict[str, Any]:
    try:
        parts = urlsplit(uri)
    except ValueError:
        options.add_mismatch("upstreams", uri, "a URL such as http://127.0.0.1:8080/")
        return {}
    if parts.scheme == "static":
        return _convert_static(uri, parts.netloc)
    path, match_path = parts.path or "/", parts.path or "/"
    if parts.scheme == "unix":
        match_path = "/"
    if parts.scheme == "file" and parts.fragment:
        path = match_path = parts.fragment
        uri = uri.partition("#")[0]
    return {
        "id": _escape_dollars(path),
        "path": _escape_dollars(match_path),
        "uri": _escape_dollars(uri),
        "insecureSkipTLSVerify": options.boolean("ssl_upstream_insecure_skip_verify"),
        "static": False,
        "flushInterval": format_duration(options.seconds("flush_interval")),
        "passHostHeader": options.boolean("pass_host_header"),
        "proxyWebSockets": options.boolean("proxy_websockets"),
        "timeout": format_duration(options.seconds("upstream_timeout")),
        "disableKeepAlives": options.boolean("disable_keep_alives"),
    }


def _convert_static(uri: str, code: str) -> dict[str, Any]:
    """Return a static upstream; its other settings have no effect and are fixed."""
    number = int(code) if code.isascii() and code.isdigit() else 200
    return {
        "id": _escape_dollars(uri),
        "path": "/",
        "insecureSkipTLSVerify": False,
        "static": True,
        "staticCode": number,
        "flushInterval": "1s",
        "passHostHeader": False,
        "proxyWebSockets": False,
        "timeout": "30s",
        "disableKeepAlives": False,
    }
