"""The options that only one type of provider reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from authproxy_core.settings.providers import (
    AzureSettings,
    BitbucketSettings,
    EntraIdSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
)
from authproxy_core.settings.root import Secret

from ..read.files import read_file
from ..read.resolved import ResolvedOptions

# Whose options these are; what others are given is ignored, with a warning.
READERS: Mapping[str, tuple[str, ...]] = {
    "keycloak_groups": ("keycloak",),
    "azure_tenant": ("azure",),
    "azure_graph_group_field": ("azure",),
    "entra_id_allowed_tenants": ("entra-id",),
    "entra_id_federated_token_auth": ("entra-id",),
    "bitbucket_team": ("bitbucket",),
    "bitbucket_repository": ("bitbucket",),
    "github_org": ("github",),
    "github_team": ("github",),
    "github_repo": ("github",),
    "github_token": ("github",),
    "github_users": ("github",),
    "gitlab_groups": ("gitlab",),
    "gitlab_projects": ("gitlab",),
    "google_groups": ("google",),
    "google_group": ("google",),
    "google_admin_email": ("google",),
    "google_service_account_json": ("google",),
    "google_use_application_default_credentials": ("google",),
    "google_target_principal": ("google",),
    "google_use_organization_id": ("google",),
    "google_admin_api_user_scope": ("google",),
    "jwt_key": ("login.gov",),
    "jwt_key_file": ("login.gov",),
    "pubjwk_url": ("login.gov",),
}
TOKEN_FILE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105  # the name of a variable
GOOGLE_FILE = "GOOGLE_APPLICATION_CREDENTIALS"
GOOGLE_DEFAULT = ".config/gcloud/application_default_credentials.json"


class TokenFile(Struct, frozen=True):
    """A file whose content is a token; it is read anew each time, for it changes.

    Raises OSError when it can't be read.
    """

    path: str

    def __call__(self) -> bytes:
        return Path(self.path).read_bytes()


def warn_of_others(collected: ResolvedOptions, kind: str) -> None:
    """Say which of the given options have no effect with the provider *kind*."""
    for key, readers in READERS.items():
        # Both options have one flag.
        twin = key == "google_groups" and "google_group" in collected.given
        if kind not in readers and not collected.is_default(key) and not twin:
            collected.add_warning(
                key, f"has no effect: only the provider {readers[0]} reads it"
            )


def github(collected: ResolvedOptions) -> GithubSettings:
    """The options about GitHub."""
    return GithubSettings(
        org=collected.string("github_org"),
        team=collected.string("github_team"),
        repo=collected.string("github_repo"),
        token=Secret(collected.string("github_token")),
        users=collected.strings("github_users"),
    )


def gitlab(collected: ResolvedOptions) -> GitlabSettings:
    """The options about GitLab."""
    return GitlabSettings(
        groups=collected.strings("gitlab_groups"),
        projects=collected.strings("gitlab_projects"),
    )


def bitbucket(collected: ResolvedOptions) -> BitbucketSettings:
    """The options about Bitbucket."""
    return BitbucketSettings(
        team=collected.string("bitbucket_team"),
        repository=collected.string("bitbucket_repository"),
    )


def azure(collected: ResolvedOptions) -> AzureSettings:
    """The options about Azure."""
    return AzureSettings(
        tenant=collected.string("azure_tenant"),
        graph_group_field=collected.string("azure_graph_group_field"),
    )


def entra_id(collected: ResolvedOptions) -> EntraIdSettings:
    """The options about Entra ID."""
    key = "entra_id_federated_token_auth"
    token = _token_file(collected, key) if collected.boolean(key) else None
    return EntraIdSettings(
        allowed_tenants=collected.strings("entra_id_allowed_tenants"),
        federated_token=token,
    )


def _token_file(collected: ResolvedOptions, key: str) -> TokenFile:
    path = collected.environ.get(TOKEN_FILE, "")
    if not path:
        collected.add_problem(
            key, f"needs the variable {TOKEN_FILE}, the name of a file"
        )
    elif not Path(path).is_file():
        collected.add_problem(
            key, f"the file {path} of the variable {TOKEN_FILE} is missing"
        )
    return TokenFile(path)


def google(collected: ResolvedOptions) -> GoogleSettings:
    """The options about Google, and the credentials that they lead to."""
    groups, old = collected.strings("google_groups"), collected.strings("google_group")
    if old and old != groups:
        collected.add_warning(
            "google_group", "is the old name of google_groups, and wins"
        )
        groups = old
    credentials = _google_credentials(collected)
    return GoogleSettings(
        groups=groups,
        admin_email=collected.string("google_admin_email"),
        credentials=credentials or Secret(b""),
        metadata_server=credentials is None,
        target_principal=collected.string("google_target_principal"),
        use_organization_id=collected.boolean("google_use_organization_id"),
        admin_api_user_scope=collected.string("google_admin_api_user_scope"),
    )


def _google_credentials(collected: ResolvedOptions) -> Secret | None:
    """The JSON of an account; None for those that the metadata server has."""
    key = "google_service_account_json"
    path = collected.string(key)
    default = "google_use_application_default_credentials"
    if collected.boolean(default):
        if path:
            collected.add_problem(key, f"can't be used with {default}; choose one")
        key, path = default, _default_credentials(collected.environ)
        if not path:
            return None
    return Secret(read_file(collected, key, path) or b"") if path else Secret(b"")


def _default_credentials(environ: Mapping[str, str]) -> str:
    """Where the application default credentials are, "" when in no file."""
    named = environ.get(GOOGLE_FILE, "")
    if named:
        return named
    usual = Path(environ.get("HOME", "/")) / GOOGLE_DEFAULT
    return str(usual) if usual.is_file() else ""


def login_gov(collected: ResolvedOptions) -> LoginGovSettings:
    """The options about login.gov."""
    text, path = collected.string("jwt_key"), collected.string("jwt_key_file")
    if text and path:
        collected.add_problem("jwt_key", "can't be used with jwt_key_file; choose one")
    if path and not text:
        content = read_file(collected, "jwt_key_file", path)
        if content == b"":
            collected.add_problem("jwt_key_file", f"{path} is empty")
        key = Secret(content or b"")
    else:
        key = Secret(text)
    return LoginGovSettings(jwt_key=key, pubjwk_url=collected.string("pubjwk_url"))
