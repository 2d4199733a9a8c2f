"""Read the values.yaml of the official and of the Bitnami chart of oauth2-proxy.

The charts turn values into flags, variables and files. Values that come from Secrets,
ConfigMaps or Helm templates are not known here; they become notes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..config.options.option import ENVIRONMENT_PREFIX
from ..config.read.yaml_text import write_yaml
from .configuration import NamedText, Sources

SUBCHART = "oauth2-proxy"  # key of the values in those of a parent chart
BITNAMI_KEY = "configuration"
OFFICIAL_KEYS = (
    "config",
    "alphaConfig",
    "extraArgs",
    "extraEnv",
    "sessionStorage",
    "htpasswdFile",
    "authenticatedEmailsFile",
    "proxyVarsAsSecrets",
)
SECRET_VARIABLES = {  # value of either chart to its variable
    "clientID": "CLIENT_ID",
    "clientSecret": "CLIENT_SECRET",
    "cookieSecret": "COOKIE_SECRET",
}
TEMPLATE = "{{"
EMAILS_PATH = "/etc/oauth2-proxy/authenticated-emails-list"
HTPASSWD_PATH = "/etc/oauth2_proxy/htpasswd/users.txt"


class _Values:
    """What a values file sets, as the chart would render it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.flags: list[str] = []
        self.environ: dict[str, str] = {}
        self.toml: NamedText | None = None
        self.alpha: NamedText | None = None
        self.notes: list[str] = []

    def add_flag(self, flag: str, value: object) -> None:
        if self._is_known(f"--{flag}", value):
            self.flags.append(f"--{flag}={_text(value)}")

    def add_variable(self, name: str, value: object) -> None:
        if self._is_known(name, value):
            self.environ[name] = _text(value)

    def _is_known(self, name: str, value: object) -> bool:
        """Return whether *value* is no template; note the name otherwise."""
        if isinstance(value, str) and TEMPLATE in value:
            self.add_note(f"{name} is a template, whose value is unknown")
            return False
        return True

    def add_note(self, text: str) -> None:
        self.notes.append(f"{self.name}: {text}")


def is_values_file(document: Any) -> bool:
    """Return whether *document* has the keys of one of the charts."""
    if not isinstance(document, dict):
        return False
    keys = {BITNAMI_KEY, *OFFICIAL_KEYS}
    return bool(keys & set(document)) or is_values_file(document.get(SUBCHART))


def read_values(document: dict[str, Any], name: str) -> Sources:
    """Return the flags, variables and files that the chart makes from the values."""
    values = _Values(name)
    if not {BITNAMI_KEY, *OFFICIAL_KEYS} & set(document):
        document = document[SUBCHART]
    if BITNAMI_KEY in document:
        _read_bitnami(document, values)
    else:
        _read_official(document, values)
    return Sources(
        tuple(values.flags),
        values.environ,
        values.toml,
        values.alpha,
        tuple(values.notes),
    )


def _read_official(document: dict[str, Any], values: _Values) -> None:
    config = _mapping(document, "config")
    alpha = _mapping(document, "alphaConfig")
    if alpha.get("enabled"):
        _read_alpha(document, alpha, values)
    else:
        values.add_flag("http-address", "0.0.0.0:4180")
        if _mapping(document, "metrics").get("enabled", True):
            values.add_flag("metrics-address", "0.0.0.0:44180")
    if config.get("cookieName"):
        values.add_flag("cookie-name", config["cookieName"])
    _read_arguments(document.get("extraArgs"), values)
    _read_official_file(config, bool(alpha.get("enabled")), values)
    _read_lists(document, values)
    _read_google(_mapping(config, "google"), values)
    if document.get("proxyVarsAsSecrets", True):
        _read_secrets(config, config.get("existingSecret"), values)
    _read_session_storage(_mapping(document, "sessionStorage"), values)
    _read_environment(document.get("extraEnv"), values)
    if document.get("envFrom"):
        values.add_note("envFrom: the variables are not in this file")


def _read_alpha(
    document: dict[str, Any], alpha: dict[str, Any], values: _Values
) -> None:
    """Set the alpha file that the chart composes."""
    for key in ("existingConfig", "existingSecret"):
        if alpha.get(key):
            values.add_note(f"alphaConfig.{key}: the alpha file is not in this file")
            return
    composed: dict[str, Any] = {
        "server": {"BindAddress": "0.0.0.0:4180", **_mapping(alpha, "serverConfigData")}
    }
    if _mapping(document, "metrics").get("enabled", True):
        composed["metricsServer"] = {
            "BindAddress": "0.0.0.0:44180",
            **_mapping(alpha, "metricsConfigData"),
        }
    composed |= _mapping(alpha, "configData")
    text = f"{write_yaml(composed)}\n{_text(alpha.get('configFile') or '')}\n"
    values.alpha = NamedText(f"{values.name} alphaConfig", text)


def _read_official_file(
    config: dict[str, Any], has_alpha: bool, values: _Values
) -> None:
    """Set the TOML file; without one of its own, the chart has a default."""
    forced = config.get("forceLegacyConfig", True)
    if config.get("existingConfig") and (forced or not has_alpha):
        values.add_note("config.existingConfig: the TOML file is not in this file")
    elif config.get("configFile") and (forced or not has_alpha):
        text = _text(config["configFile"])
        values.toml = NamedText(f"{values.name} config.configFile", text)
    elif has_alpha or forced:
        lines = [f"email_domains = {_toml_list(config.get('emailDomains', ['*']))}"]
        if not has_alpha:
            upstreams = config.get("upstreams", ["file:///dev/null"])
            lines.append(f"upstreams = {_toml_list(upstreams)}")
        name = f"{values.name} config"
        values.toml = NamedText(name, "\n".join(lines))


def _read_bitnami(document: dict[str, Any], values: _Values) -> None:
    config = _mapping(document, BITNAMI_KEY)
    port = document.get("containerPort", 4180)
    values.add_flag("http-address", f"0.0.0.0:{port}")
    default = 'email_domains = ["*"]\nupstreams = ["file:///dev/null"]\n'
    if config.get("existingConfigmap"):
        values.add_note(
            "configuration.existingConfigmap: the TOML file is not in this file"
        )
    elif text := _text(config.get("content", default)):
        values.toml = NamedText(f"{values.name} configuration.content", text)
    _read_lists(config, values)
    _read_google(_mapping(config, "google"), values)
    for key, flag in (
        ("redirectUrl", "redirect-url"),
        ("oidcIssuerUrl", "oidc-issuer-url"),
        ("whiteList", "whitelist-domain"),
    ):
        if config.get(key):
            values.add_flag(flag, config[key])
    _read_arguments(document.get("extraArgs"), values)
    _read_secrets(config, config.get("existingSecret"), values)
    _read_bitnami_redis(document, values)
    _read_environment(document.get("extraEnvVars"), values)
    for key in ("extraEnvVarsCM", "extraEnvVarsSecret"):
        if document.get(key):
            values.add_note(f"{key}: the variables are not in this file")


def _read_bitnami_redis(document: dict[str, Any], values: _Values) -> None:
    redis, external = _mapping(document, "redis"), _mapping(document, "externalRedis")
    if redis.get("enabled", True):
        host = "redis-master"
    elif external.get("host"):
        host = f"{external['host']}:{external.get('port', 6379)}"
    else:
        values.add_variable(f"{ENVIRONMENT_PREFIX}SESSION_STORE_TYPE", "cookie")
        return
    values.add_variable(f"{ENVIRONMENT_PREFIX}SESSION_STORE_TYPE", "redis")
    values.add_variable(f"{ENVIRONMENT_PREFIX}REDIS_CONNECTION_URL", f"redis://{host}")


def _read_arguments(arguments: Any, values: _Values) -> None:
    """Add the flags of ``extraArgs``: a mapping, or a list of arguments."""
    if isinstance(arguments, dict):
        for flag, value in arguments.items():
            if isinstance(value, dict | list):
                values.add_note(
                    f"extraArgs.{flag}: expected a string; write extraArgs as a list"
                )
            elif value is None:
                values.flags.append(f"--{flag}")
            else:
                values.add_flag(str(flag), value)
    elif isinstance(arguments, list):
        for argument in map(_text, arguments):
            flag, equals, value = argument.removeprefix("--").partition("=")
            if equals and argument.startswith("--"):
                values.add_flag(flag, value)
            else:
                values.flags.append(argument)


def _read_lists(document: dict[str, Any], values: _Values) -> None:
    """Add the flags of the files with emails and passwords, which are in the pod only."""
    if _mapping(document, "authenticatedEmailsFile").get("enabled"):
        values.add_flag("authenticated-emails-file", EMAILS_PATH)
    if _mapping(document, "htpasswdFile").get("enabled"):
        values.add_flag("htpasswd-file", HTPASSWD_PATH)


def _read_google(google: dict[str, Any], values: _Values) -> None:
    if google.get("adminEmail"):
        values.add_flag("google-admin-email", google["adminEmail"])
        if google.get("useApplicationDefaultCredentials"):
            values.add_flag("google-use-application-default-credentials", True)
        else:
            path = "/google/service-account.json"
            values.add_flag("google-service-account-json", path)
        if google.get("targetPrincipal"):
            values.add_flag("google-target-principal", google["targetPrincipal"])
    for group in google.get("groups") or ():
        values.add_flag("google-group", group)


def _read_secrets(config: dict[str, Any], existing: object, values: _Values) -> None:
    """Set the client ID and the secrets, unless they are in a Secret."""
    if existing:
        values.add_note(
            f"existingSecret: {', '.join(SECRET_VARIABLES)} are not in this file"
        )
        return
    for key, variable in SECRET_VARIABLES.items():
        if config.get(key):
            values.add_variable(ENVIRONMENT_PREFIX + variable, config[key])


def _read_session_storage(storage: dict[str, Any], values: _Values) -> None:
    if storage.get("type") != "redis":
        return
    values.add_variable(f"{ENVIRONMENT_PREFIX}SESSION_STORE_TYPE", "redis")
    redis = _mapping(storage, "redis")
    match redis.get("clientType", "standalone"):
        case "standalone":
            url = _mapping(redis, "standalone").get("connectionUrl")
            values.add_variable(
                f"{ENVIRONMENT_PREFIX}REDIS_CONNECTION_URL", url or "redis://redis"
            )
        case "cluster":
            urls = _joined(_mapping(redis, "cluster").get("connectionUrls"))
            values.add_variable(f"{ENVIRONMENT_PREFIX}REDIS_USE_CLUSTER", True)
            values.add_variable(
                f"{ENVIRONMENT_PREFIX}REDIS_CLUSTER_CONNECTION_URLS", urls
            )
        case "sentinel":
            sentinel = _mapping(redis, "sentinel")
            urls = _joined(sentinel.get("connectionUrls"))
            values.add_variable(f"{ENVIRONMENT_PREFIX}REDIS_USE_SENTINEL", True)
            values.add_variable(
                f"{ENVIRONMENT_PREFIX}REDIS_SENTINEL_MASTER_NAME",
                sentinel.get("masterName") or "",
            )
            values.add_variable(
                f"{ENVIRONMENT_PREFIX}REDIS_SENTINEL_CONNECTION_URLS", urls
            )


def _read_environment(entries: Any, values: _Values) -> None:
    """Add the variables of oauth2-proxy; other ones have no meaning here."""
    for name, entry in _variables(entries):
        value = entry.get("value")
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if value is None:
            values.add_note(f"{name}: the value is not in this file")
        else:
            values.add_variable(name, value)


def _variables(entries: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield str(entry.get("name", "")), entry


def _mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    """Return a scalar as the chart prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _joined(value: object) -> str:
    return ",".join(map(_text, value)) if isinstance(value, list) else _text(value)


def _toml_list(value: object) -> str:
    items = value if isinstance(value, list) else [value]
    return json.dumps([_text(item) for item in items])
