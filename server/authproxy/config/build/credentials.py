"""Build the settings of bearer JWTs and the htpasswd file."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy_core.settings import Secret
from authproxy_core.settings.credentials import CredentialSettings, JwtIssuer, is_hash

from ..read.files import read_text
from ..read.go_csv import read_records
from ..read.resolved import ResolvedOptions

FILE = "htpasswd_file"
MAX_BCRYPT_COST = 15  # above it, one verification takes seconds


def build_credentials(options: ResolvedOptions) -> CredentialSettings:
    """Build the settings of credentials in the Authorization field and the form."""
    bearer = options.boolean("skip_jwt_bearer_tokens")
    path = options.string(FILE)
    return CredentialSettings(
        jwt_bearer_tokens=bearer,
        bearer_login_fallback=options.boolean("bearer_token_login_fallback"),
        jwt_issuers=tuple(_parse_issuers(options)) if bearer else (),
        jwt_authorized_parties=options.strings("bearer_authorized_parties"),
        users=_read_users(options, path) if path else None,
        user_groups=options.strings("htpasswd_user_groups"),
        display_form=options.boolean("display_htpasswd_form"),
        email_is_user=options.boolean("prefer_email_to_user"),
    )


def _parse_issuers(options: ResolvedOptions) -> Iterator[JwtIssuer]:
    key = "extra_jwt_issuers"
    for entry in options.strings(key):
        issuer, equals, audience = entry.partition("=")
        if not equals or not audience or not issuer.startswith(("https://", "http://")):
            options.add_mismatch(
                key, entry, "ISSUER=AUDIENCE, such as https://HOST/path=web"
            )
            continue
        yield JwtIssuer(issuer, audience)


def _read_users(options: ResolvedOptions, path: str) -> dict[str, Secret]:
    """Return user names with their hashes.

    As in oauth2-proxy, users with another kind of hash can't sign in.
    """
    text = read_text(options, FILE, path)
    if text is None:
        return {}
    try:
        records = read_records(text, comment="#", trim=True, separator=":")
    except ValueError as error:
        options.add_problem(FILE, f"{path} is malformed: {error}")
        return {}
    if any(len(record) != 2 for record in records):
        options.add_problem(FILE, f"{path} has lines that are not NAME:HASH")
        return {}
    users = {name: Secret(hashed) for name, hashed in records}
    usable = {name: secret for name, secret in users.items() if is_hash(secret.value)}
    if not usable:
        options.add_problem(FILE, f"{path} has no user with a bcrypt or {{SHA}} hash")
    _add_hash_warnings(options, users, usable)
    return usable


def _add_hash_warnings(
    options: ResolvedOptions, users: dict[str, Secret], usable: dict[str, Secret]
) -> None:
    others = ", ".join(repr(name) for name in users if name not in usable)
    if others:
        options.add_warning(
            FILE, f"users without a bcrypt or {{SHA}} hash can't sign in: {others}"
        )
    unsalted = sum(secret.value.startswith(b"{SHA}") for secret in usable.values())
    if unsalted:
        options.add_warning(
            FILE,
            f"{unsalted} of the hashes are unsalted SHA-1, which is fast to crack; "
            "replace them with htpasswd -B",
        )
    slow = [
        name
        for name, secret in usable.items()
        if _bcrypt_cost(secret.value) > MAX_BCRYPT_COST
    ]
    if slow:
        options.add_warning(
            FILE,
            f"a bcrypt cost above {MAX_BCRYPT_COST} takes seconds for each sign-in: "
            f"{slow}",
        )


def _bcrypt_cost(hashed: bytes) -> int:
    return 0 if hashed.startswith(b"{") else int(hashed[4:6])
