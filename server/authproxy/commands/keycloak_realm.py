"""``authproxy keycloak-realm``: print a realm that Keycloak imports."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from .realm import RealmSettings, RealmUser, realm_representation

DESCRIPTION = (
    "Prints a realm as JSON: a client for authproxy, a scope for groups, and users. "
    "Import it with Create realm in the admin console, or with --import-realm at the "
    "start of Keycloak. Generated secrets are also printed to the standard error."
)
USERS = {"alice": ("admin", "staff"), "bob": ("staff",)}  # name → groups
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
SECRET_BYTES = 24
PASSWORD_BYTES = 12
MAX_SECRET_LENGTH = 1024  # characters


def main(arguments: Sequence[str]) -> int:
    """Print the realm; raises SystemExit if the arguments are invalid."""
    options = parser().parse_args(arguments)
    endpoints = options.url[0] + options.proxy_prefix
    settings = RealmSettings(
        name=options.realm,
        origins=tuple(dict.fromkeys(options.url)),
        proxy_prefix=options.proxy_prefix,
        client_id=options.client_id,
        client_secret=options.client_secret_file or secrets.token_urlsafe(SECRET_BYTES),
        backchannel_url=options.backchannel_url or f"{endpoints}/backchannel-logout",
        users=_users(dict(options.user or USERS), options.password_file),
    )
    sys.stdout.write(json.dumps(realm_representation(settings), indent=2) + "\n")
    if not options.client_secret_file:
        sys.stderr.write(f"client secret: {settings.client_secret}\n")
    for user in settings.users:
        if user.is_temporary:
            sys.stderr.write(f"temporary password of {user.name}: {user.password}\n")
    return 0


def _users(
    groups: dict[str, tuple[str, ...]], password: str | None
) -> tuple[RealmUser, ...]:
    """Return the users; only the first one has roles, so that they can be compared."""
    return tuple(
        RealmUser(
            name=name,
            groups=groups[name],
            has_roles=number == 0,
            password=password or secrets.token_urlsafe(PASSWORD_BYTES),
            is_temporary=not password,
        )
        for number, name in enumerate(groups)
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="authproxy keycloak-realm", description=DESCRIPTION, allow_abbrev=False
    )
    add = result.add_argument
    help_ = "origin of an application, such as https://app.example.com"
    add("url", metavar="URL", nargs="+", type=_origin, help=help_)
    help_ = "name of the realm (default: main)"
    add("--realm", metavar="NAME", type=_name, default="main", help=help_)
    help_ = "ID of the client (default: oauth2-proxy)"
    add("--client-id", metavar="ID", type=_name, default="oauth2-proxy", help=help_)
    help_ = "file with the client secret (default: generated)"
    add("--client-secret-file", metavar="FILE", type=_secret, help=help_)
    help_ = (
        "a user, may be repeated; the first one also has roles (default: alice and bob)"
    )
    add("--user", metavar="NAME[=GROUP,…]", action="append", type=_user, help=help_)
    help_ = "file with the password of the users (default: generated and temporary)"
    add("--password-file", metavar="FILE", type=_secret, help=help_)
    help_ = "proxy_prefix of authproxy (default: /oauth2)"
    add("--proxy-prefix", metavar="PATH", type=_prefix, default="/oauth2", help=help_)
    help_ = "back-channel logout URL (default: that of the first application)"
    add("--backchannel-url", metavar="URL", type=_url, help=help_)
    return result


def _origin(text: str) -> str:
    url = _url(text).removesuffix("/")
    if url.count("/") != 2 or "*" in url:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected scheme and host")
    return url


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_valid = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and "@" not in parts.netloc
            and parts.port != 0
            and re.fullmatch(r"[!-~]+", text) is not None
            and not (parts.query or parts.fragment)
        )
    except ValueError:
        is_valid = False
    if not is_valid:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an http or https URL")
    return text


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {NAME.pattern}")
    return text


def _prefix(text: str) -> str:
    if not PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a path")
    return text


def _user(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, groups = text.partition("=")
    names = groups.split(",") if equals else []
    return _name(name), tuple(map(_name, names))


def _secret(path: str) -> str:
    try:
        text = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path}: cannot be read") from error
    if not 0 < len(text) <= MAX_SECRET_LENGTH or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{path}: expected one line of text")
    return text
