"""Flat options as an alpha configuration: what ``--convert-config-to-alpha`` prints.

The document is the one that oauth2-proxy makes, with three differences. A secret is not
shown: in its place stands a reference to the option's environment variable, or its
file. A ``$`` in other texts is doubled, since reading the file would take it for a
reference. And the nonce, which oauth2-proxy skips by default, is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from authproxy_core.settings.root import ClaimSource, HeaderRule

from ..build.headers import request_rules, response_rules
from ..options.table import BY_KEY
from ..read.resolved import ConfigError, ResolvedOptions
from ..read.sources import Flags, collect
from ..read.values import format_duration
from ..read.yaml_text import Quoted, write_yaml
from .schema import PROVIDER_KEYS

# Blocks of a provider that are only filled for these types.
TYPES_OF_BLOCK = {
    "keycloakConfig": ("keycloak", "keycloak-oidc"),
    "microsoftEntraIDConfig": ("entra-id",),
    "bitbucketConfig": ("bitbucket",),
    "githubConfig": ("github",),
    "gitlabConfig": ("gitlab",),
    "googleConfig": ("google",),
    "loginGovConfig": ("login.gov",),
}
# What is printed at its default as well, also where the block is not the type's.
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


def convert(flags: Flags, environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The YAML for the flat options, and warnings; raises `ConfigError`.

    As in oauth2-proxy the options are read but their values not checked further.
    """
    for other in ("alpha-config", "config-test"):
        if flags.control.get(other):
            raise ConfigError(
                (f"--convert-config-to-alpha: can't be used with --{other}",)
            )
    collected = collect(flags, environ)
    upstreams = [_upstream(collected, uri) for uri in collected.strings("upstreams")]
    document = {
        "injectRequestHeaders": [*map(_header, request_rules(collected))],
        "injectResponseHeaders": [*map(_header, response_rules(collected))],
        "metricsServer": _metrics(collected),
        "providers": [_provider(collected)],
        "server": _server(collected),
        "upstreamConfig": {
            "proxyRawPath": False,
            **({"upstreams": upstreams} if upstreams else {}),
        },
    }
    if collected.problems:
        raise ConfigError(tuple(collected.problems), tuple(collected.warnings))
    _warn_of_secrets(collected)
    text = write_yaml({key: value for key, value in document.items() if value != []})
    return text, tuple(collected.warnings)


def _warn_of_secrets(collected: ResolvedOptions) -> None:
    for key in ("client_secret", "basic_auth_password", "github_token", "jwt_key"):
        given = collected.given.get(key)
        if given and given.value and given.origin != BY_KEY[key].environment:
            collected.add_warning(
                key, f"not printed; set {BY_KEY[key].environment} beside the alpha file"
            )


def _text(value: str) -> str:
    return value.replace("$", "$$")


def _reference(key: str) -> Quoted:
    return Quoted("${" + BY_KEY[key].environment + "}")


# -- providers


def _provider(collected: ResolvedOptions) -> dict[str, Any]:
    kind = collected.string("provider")
    flat = PROVIDER_KEYS[""]
    top = {name: _value(collected, key) for name, (key, _) in flat.items()}
    top["code_challenge_method"] = collected.string(
        "code_challenge_method"
    ) or collected.string("force_code_challenge_method")
    blocks = {
        block: _block(collected, block, keys, kind)
        for block, keys in PROVIDER_KEYS.items()
        if block
    }
    name = collected.string("provider_display_name")
    document = {
        "id": _text(name or f"{kind}={collected.string('client_id')}"),
        **top,
        **blocks,
        "ADFSConfig": {"skipScope": False},
        "loginURLParameters": _login_parameters(collected),
    }
    return {key: value for key, value in document.items() if _shown(key, value)}


def _block(
    collected: ResolvedOptions,
    block: str,
    keys: Mapping[str, tuple[str, str]],
    kind: str,
) -> dict[str, Any]:
    fits = kind in TYPES_OF_BLOCK.get(block, (kind,))
    values = {
        name: _value(collected, key) if fits else BY_KEY[key].default
        for name, (key, _) in keys.items()
    }
    if block == "keycloakConfig" and kind == "keycloak":
        values["roles"] = []
    if block == "googleConfig" and fits:
        old = list(collected.strings("google_group"))
        values["group"] = old or values["group"]
    return {name: value for name, value in values.items() if _shown(name, value)}


def _shown(name: str, value: object) -> bool:
    return name in ALWAYS or value not in ("", [], (), {}, False)


def _value(collected: ResolvedOptions, key: str) -> Any:
    value = collected.value(key)
    if isinstance(value, tuple):
        return [_text(item) for item in value]
    if isinstance(value, str) and value:
        return _reference(key) if BY_KEY[key].secret else _text(value)
    return value


def _login_parameters(collected: ResolvedOptions) -> list[dict[str, Any]]:
    found = []
    if acr_values := collected.string("acr_values"):
        found.append(("acr_values", acr_values))
    if prompt := collected.string("prompt"):
        found.append(("prompt", prompt))
    else:
        approval = collected.string("approval_prompt") or "force"
        found.append(("approval_prompt", approval))
    return [{"name": name, "default": [_text(value)]} for name, value in found]


# -- headers


def _header(rule: HeaderRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "preserveRequestValue": rule.preserve_request_value,
        "values": [
            {"claimSource": _claim(source)}
            for source in rule.values
            if isinstance(source, ClaimSource)
        ],
    }


def _claim(source: ClaimSource) -> dict[str, Any]:
    if source.basic_auth_password is not None:
        password = {"fromEnv": BY_KEY["basic_auth_password"].environment}
        # The prefix says nothing beside a password; oauth2-proxy prints it.
        return {
            "claim": source.claim,
            "prefix": "Basic ",
            "basicAuthPassword": password,
        }
    prefix = {"prefix": source.prefix} if source.prefix else {}
    return {"claim": source.claim, **prefix}


# -- servers


def _server(collected: ResolvedOptions) -> dict[str, Any]:
    cert, key = collected.string("tls_cert_file"), collected.string("tls_key_file")
    if not cert and not key:
        address = collected.string("http_address")
        return {} if not address else {"bindAddress": _text(address)}
    tls: dict[str, Any] = {"key": _file(key), "cert": _file(cert)}
    if version := collected.string("tls_min_version"):
        tls["minVersion"] = version
    if suites := collected.strings("tls_cipher_suites"):
        tls["cipherSuites"] = list(suites)
    address = collected.string("https_address")
    return {
        **({"secureBindAddress": _text(address)} if address else {}),
        "tls": tls,
    }


def _file(path: str) -> dict[str, str]:
    return {"fromFile": _text(path)} if path else {}


def _metrics(collected: ResolvedOptions) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in (
        ("bindAddress", "metrics_address"),
        ("secureBindAddress", "metrics_secure_address"),
    ):
        if address := collected.string(key):
            found[name] = _text(address)
    cert = collected.string("metrics_tls_cert_file")
    key_file = collected.string("metrics_tls_key_file")
    if cert or key_file:
        found["tls"] = {"key": _file(key_file), "cert": _file(cert)}
    return found


# -- upstreams


def _upstream(collected: ResolvedOptions, uri: str) -> dict[str, Any]:
    try:
        parts = urlsplit(uri)
    except ValueError:
        collected.add_mismatch(
            "upstreams", uri, "an address such as http://127.0.0.1:8080/"
        )
        return {}
    if parts.scheme == "static":
        return _static(uri, parts.netloc)
    path, match_path = parts.path or "/", parts.path or "/"
    if parts.scheme == "unix":
        match_path = "/"
    if parts.scheme == "file" and parts.fragment:
        path = match_path = parts.fragment
        uri = uri.partition("#")[0]
    return {
        "id": _text(path),
        "path": _text(match_path),
        "uri": _text(uri),
        "insecureSkipTLSVerify": collected.boolean("ssl_upstream_insecure_skip_verify"),
        "static": False,
        "flushInterval": format_duration(collected.seconds("flush_interval")),
        "passHostHeader": collected.boolean("pass_host_header"),
        "proxyWebSockets": collected.boolean("proxy_websockets"),
        "timeout": format_duration(collected.seconds("upstream_timeout")),
        "disableKeepAlives": collected.boolean("disable_keep_alives"),
    }


def _static(uri: str, code: str) -> dict[str, Any]:
    """A static upstream, whose other settings mean nothing and are fixed."""
    number = int(code) if code.isascii() and code.isdigit() else 200
    return {
        "id": _text(uri),
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
