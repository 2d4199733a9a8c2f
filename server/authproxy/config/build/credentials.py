"""The options about bearer JWTs and the htpasswd file."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy_core.settings.credentials import CredentialSettings, JwtIssuer, is_hash
from authproxy_core.settings.secret import Secret

from ..read.files import read_text
from ..read.go_csv import read_records
from ..read.resolved import ResolvedOptions

FILE = "htpasswd_file"
MAX_BCRYPT_COST = 15  # of bcrypt's costs; above it a try takes seconds


def credentials(collected: ResolvedOptions) -> CredentialSettings:
    """The settings of what requests bring along; problems are noted."""
    bearer = collected.boolean("skip_jwt_bearer_tokens")
    path = collected.string(FILE)
    return CredentialSettings(
        jwt_bearer_tokens=bearer,
        bearer_login_fallback=collected.boolean("bearer_token_login_fallback"),
        jwt_issuers=tuple(_issuers(collected)) if bearer else (),
        jwt_authorized_parties=collected.strings("bearer_authorized_parties"),
        users=_users(collected, path) if path else None,
        user_groups=collected.strings("htpasswd_user_groups"),
        display_form=collected.boolean("display_htpasswd_form"),
        email_is_user=collected.boolean("prefer_email_to_user"),
    )


def _issuers(collected: ResolvedOptions) -> Iterator[JwtIssuer]:
    key = "extra_jwt_issuers"
    for entry in collected.strings(key):
        issuer, equals, audience = entry.partition("=")
        if not equals or not audience or not issuer.startswith(("https://", "http://")):
            collected.add_mismatch(
                key, entry, "ISSUER=AUDIENCE, such as https://HOST/path=web"
            )
            continue
        yield JwtIssuer(issuer, audience)


def _users(collected: ResolvedOptions, path: str) -> dict[str, Secret]:
    """Names and hashes; entries of another kind let nobody in, as in oauth2-proxy."""
    text = read_text(collected, FILE, path)
    if text is None:
        return {}
    try:
        records = read_records(text, comment="#", trim=True, separator=":")
    except ValueError as error:
        collected.add_problem(FILE, f"{path} is malformed: {error}")
        return {}
    if any(len(record) != 2 for record in records):
        collected.add_problem(FILE, f"{path} has lines of another form than NAME:HASH")
        return {}
    users = {name: Secret(hashed) for name, hashed in records}
    usable = {name: one for name, one in users.items() if is_hash(one.value)}
    if not usable:
        collected.add_problem(FILE, f"{path} has no user with a bcrypt or {{SHA}} hash")
    _warn(collected, users, usable)
    return usable


def _warn(
    collected: ResolvedOptions, users: dict[str, Secret], usable: dict[str, Secret]
) -> None:
    others = ", ".join(repr(name) for name in users if name not in usable)
    if others:
        collected.add_warning(
            FILE, f"neither bcrypt nor {{SHA}}, so they can't log in: {others}"
        )
    weak = sum(one.value.startswith(b"{SHA}") for one in usable.values())
    if weak:
        collected.add_warning(
            FILE,
            f"{weak} of the hashes are SHA-1 without a salt, which is soon guessed; "
            "renew them by htpasswd -B",
        )
    slow = [name for name, one in usable.items() if _cost(one.value) > MAX_BCRYPT_COST]
    if slow:
        collected.add_warning(
            FILE,
            f"bcrypt costs above {MAX_BCRYPT_COST} take seconds for each try: {slow}",
        )


def _cost(hashed: bytes) -> int:
    return 0 if hashed.startswith(b"{") else int(hashed[4:6])
