"""From the command line, the environment and a file to `ServerSettings`.

Most options go straight to the place that the table names; those that mean several
things together are put together by the functions below and in `headers`, `listening`
and `files`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from authproxy_core.errors import SettingsError
from authproxy_core.settings import (
    CookieSettings,
    LoginParameter,
    PageSettings,
    ProviderSettings,
    Secret,
    Settings,
    check,
)

from .. import __version__
from ..server_settings import ClientSettings, Limits, LogSettings, ServerSettings
from . import files, headers, listening
from .collected import Collected, ConfigError
from .option import Option
from .options import OPTIONS
from .sources import Flags, collect, read_flags

PROVIDER_TYPES = ("oidc", "keycloak-oidc")
# These mean more than their value; the functions below read them.
COMPOSED = frozenset(
    {
        "allowed_groups",
        "allowed_roles",
        "authenticated_emails_file",
        "client_secret",
        "client_secret_file",
        "code_challenge_method",
        "cookie_csrf_per_request_limit",
        "cookie_csrf_slots",
        "cookie_secret",
        "cookie_secret_file",
        "cookie_secrets",
        "custom_sign_in_logo",
        "custom_templates_dir",
        "exclude_logging_paths",
        "force_code_challenge_method",
        "oidc_email_claim",
        "provider",
        "user_id_claim",
        "workers",
    }
)


def load(arguments: Sequence[str], environ: Mapping[str, str]) -> ServerSettings:
    """The settings; raises `ConfigError` with everything that is wrong."""
    return build(read_flags(arguments), environ)


def build(flags: Flags, environ: Mapping[str, str]) -> ServerSettings:
    """The settings for a command line that has been read already."""
    collected = collect(flags, environ)
    for name in ("alpha-config", "convert-config-to-alpha"):
        if flags.control.get(name):
            collected.problems.append(f"--{name}: not supported yet by this version")
    settings = _server_settings(collected)
    problems = [*collected.problems, *_core_problems(settings.core, collected)]
    if problems:
        raise ConfigError(tuple(problems))
    return msgspec.structs.replace(settings, warnings=tuple(collected.warnings))


def _core_problems(core: Settings, collected: Collected) -> list[str]:
    """What the core finds, less what has been said already."""
    try:
        check(core)
    except SettingsError as error:
        said = {key.removesuffix("_file") for key in collected.failed}
        return [
            problem
            for problem in error.problems
            if problem.partition(":")[0] not in said
        ]
    return []


def _placed(collected: Collected, prefix: str) -> dict[str, Any]:
    """The values of all simple options whose place is a field right below *prefix*."""
    return {
        option.place.removeprefix(prefix): _value(collected, option)
        for option in OPTIONS
        if option.support == "full"
        and option.key not in COMPOSED
        and option.place.startswith(prefix)
        and "." not in option.place.removeprefix(prefix)
        and option.place not in ("core.inject_response_headers", "core.upstreams")
        and option.place not in ("core.inject_request_headers",)
        and not option.place.endswith("login_parameters")
    }


def _value(collected: Collected, option: Option) -> Any:
    given = collected.given.get(option.key)
    return option.default if given is None else given.value


def _server_settings(collected: Collected) -> ServerSettings:
    logs = _placed(collected, "logs.")
    for name in ("standard", "auth", "request"):
        if collected.is_default(f"{name}_logging_format"):
            logs[f"{name}_format"] = ""
    exclude = frozenset(collected.strings("exclude_logging_paths"))
    workers = collected.integer("workers") or _usable_cpus()
    client = ClientSettings(**_placed(collected, "client."))
    _warn(collected, client)
    return ServerSettings(
        core=_core(collected),
        listeners=listening.listeners(collected),
        workers=workers,
        limits=Limits(**_placed(collected, "limits.")),
        client=client,
        logs=LogSettings(**{**logs, "exclude_paths": exclude}),
        request_id_header=collected.string("request_id_header").lower(),
    )


def _usable_cpus() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _warn(collected: Collected, client: ClientSettings) -> None:
    if client.insecure_skip_verify:
        collected.warn(
            "ssl_insecure_skip_verify",
            "the identity provider's certificate is not verified",
        )
    if collected.boolean("reverse_proxy") and not collected.strings("trusted_proxy_ips"):
        collected.warn(
            "reverse_proxy",
            "no trusted_proxy_ips are given, so X-Forwarded-* fields are believed from "
            "loopback and private addresses only",
        )
    if collected.boolean("insecure_oidc_skip_nonce"):
        collected.warn("insecure_oidc_skip_nonce", "the nonce is not checked")
    if collected.string("code_challenge_method") == "none":
        collected.warn("code_challenge_method", "PKCE is off")


def _core(collected: Collected) -> Settings:
    values = _placed(collected, "core.")
    emails = collected.string("authenticated_emails_file")
    if emails:
        key = "authenticated_emails_file"
        values["authenticated_emails"] = files.read_addresses(collected, key, emails)
    values["cookie"] = _cookie(collected)
    values["providers"] = (_provider(collected),)
    values["inject_request_headers"] = headers.request_rules(collected)
    values["inject_response_headers"] = headers.response_rules(collected)
    values["upstreams"] = listening.upstreams(collected)
    values["pages"] = _pages(collected)
    return Settings(**values, version=__version__)


def _cookie(collected: Collected) -> CookieSettings:
    values = _placed(collected, "core.cookie.")
    limit = collected.integer("cookie_csrf_per_request_limit")
    slots = collected.integer("cookie_csrf_slots")
    # oauth2-proxy counts those that are there before the new one.
    values["csrf_slots"] = min(limit + 1, 64) if limit else slots
    return CookieSettings(**values, secrets=_cookie_secrets(collected))


def _cookie_secrets(collected: Collected) -> tuple[Secret, ...]:
    first = collected.string("cookie_secret").encode()
    path = collected.string("cookie_secret_file")
    if not first and path:
        # Nothing is trimmed: every byte of the file is part of the secret.
        first = files.read_file(collected, "cookie_secret_file", path) or b""
    ring = [text.encode() for text in collected.strings("cookie_secrets")]
    return tuple(Secret(text) for text in (first, *ring) if text)


def _provider(collected: Collected) -> ProviderSettings:
    values = _placed(collected, "core.providers.")
    kind = collected.string("provider")
    client_id = collected.string("client_id")
    if kind not in PROVIDER_TYPES:
        expected = " or ".join(repr(name) for name in PROVIDER_TYPES)
        collected.got("provider", kind, f"{expected} (the types supported so far)")
        kind = "oidc"
    return ProviderSettings(
        **{
            **values,
            "id": values["name"] or f"{kind}={client_id}",
            "type": kind,
            "client_secret": _client_secret(collected),
            "code_challenge_method": collected.string("code_challenge_method")
            or collected.string("force_code_challenge_method"),
            "email_claim": _email_claim(collected),
            "allowed_groups": _allowed_groups(collected, kind),
            "login_parameters": _login_parameters(collected),
        }
    )


def _client_secret(collected: Collected) -> Secret:
    secret = collected.string("client_secret")
    path = collected.string("client_secret_file")
    if secret or not path:
        return Secret(secret)
    return Secret(files.read_file(collected, "client_secret_file", path) or b"")


def _email_claim(collected: Collected) -> str:
    claim = collected.string("oidc_email_claim")
    return collected.string("user_id_claim") if claim == "email" else claim


def _allowed_groups(collected: Collected, kind: str) -> tuple[str, ...]:
    groups = collected.strings("allowed_groups")
    roles = collected.strings("allowed_roles")
    if roles and kind != "keycloak-oidc":
        collected.wrong("allowed_roles", "only the provider keycloak-oidc knows roles")
    return (*groups, *(f"role:{role}" if role else "" for role in roles))


def _login_parameters(collected: Collected) -> tuple[LoginParameter, ...]:
    """The fixed parameters; approval_prompt is always there unless prompt is."""
    found = []
    if acr_values := collected.string("acr_values"):
        found.append(LoginParameter("acr_values", (acr_values,)))
    if prompt := collected.string("prompt"):
        found.append(LoginParameter("prompt", (prompt,)))
    else:
        approval = collected.string("approval_prompt") or "force"
        found.append(LoginParameter("approval_prompt", (approval,)))
    return tuple(found)


def _pages(collected: Collected) -> PageSettings:
    values = _placed(collected, "core.pages.")
    logo = collected.string("custom_sign_in_logo")
    values["logo"] = files.logo_html(collected, "custom_sign_in_logo", logo)
    folder = collected.string("custom_templates_dir")
    if folder:
        values |= _templates(collected, Path(folder))
    return PageSettings(**values)


def _templates(collected: Collected, folder: Path) -> dict[str, str]:
    key = "custom_templates_dir"
    if not folder.is_dir():
        collected.got(key, str(folder), "a folder that exists")
        return {}
    return {
        "sign_in_template": files.read_text(collected, key, folder / "sign_in.html"),
        "error_template": files.read_text(collected, key, folder / "error.html"),
        "robots": files.read_text(collected, key, folder / "robots.txt"),
    }


def flag_of(flags: Flags, name: str) -> bool:
    """Whether a control flag is set."""
    return bool(cast(object, flags.control.get(name)))
