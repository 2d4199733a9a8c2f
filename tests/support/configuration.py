"""Configurations for tests: a valid base, and functions that load variants."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from authproxy.config.load import load_settings
from authproxy.config.read.resolved import ConfigError
from authproxy.server_settings import ServerSettings
from support.endpoints import signing_key

BASE = {
    "OAUTH2_PROXY_PROVIDER": "oidc",
    "OAUTH2_PROXY_CLIENT_ID": "web",
    "OAUTH2_PROXY_CLIENT_SECRET": "hidden-client-secret",
    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef",
    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
    "OAUTH2_PROXY_OIDC_ISSUER_URL": "https://idp.example.com/realms/r",
}

# One rule of each kind, as TOML.
ACCESS_RULES = """
[[access_rules]]
name = "health"
paths = "/healthz"
policy = "public"

[[access_rules]]
paths = ["/.git/", "/.env"]
policy = "deny"

[[access_rules]]
name = "admin area"
hosts = ["app.example", "*.app.example"]
paths = ["/admin/"]
patterns = ["/[a-z]+/admin/"]
groups = ["admins"]
emails = "boss@example.com"
any_of = true

[[access_rules]]
methods = ["DELETE"]
roles = ["editor"]
email_domains = ["example.com"]

[access_rules.claims]
level = [3, "4"]
active = true
"""


def settings(
    *flags: str, env: Mapping[str, str] | None = None, file: Path | None = None
) -> ServerSettings:
    """Load the base with *flags*, variables and a TOML file."""
    config = [] if file is None else ["--config", str(file)]
    return load_settings([*config, *flags], {**BASE, **(env or {})})


def problems(
    *flags: str, env: Mapping[str, str] | None = None, file: Path | None = None
) -> Sequence[str]:
    """Return the problems of the configuration."""
    try:
        settings(*flags, env=env, file=file)
    except ConfigError as error:
        return error.problems
    return ()


def problem(
    *flags: str, env: Mapping[str, str] | None = None, file: Path | None = None
) -> str:
    """Return the only problem of the configuration."""
    [text] = problems(*flags, env=env, file=file)
    return text


def key_file(directory: Path, name: str) -> Path:
    """Write a private RSA key, one for each *name*, as PEM."""
    file = directory / f"{name}.pem"
    file.write_bytes(signing_key(name).as_pem(private=True))
    return file


def account_file(directory: Path, name: str) -> Path:
    """Write a service account of Google, one for each *name*, as JSON."""
    account = {
        "type": "service_account",
        "client_email": f"{name}@p.iam.gserviceaccount.com",
        "private_key": signing_key(name).as_pem(private=True).decode(),
    }
    file = directory / f"{name}.json"
    file.write_text(json.dumps(account))
    return file
