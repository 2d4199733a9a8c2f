"""Build the settings that only one type of provider has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from authproxy_core.settings import Secret
from authproxy_core.settings.providers import (
    AzureSettings,
    BitbucketSettings,
    EntraIdSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
)

from ..read.files import read_file
from ..read.resolved import ResolvedOptions

# The only type of provider that reads the option; others ignore it with a warning.
PROVIDER_OF_OPTION: Mapping[str, str] = {
    "keycloak_groups": "keycloak",
    "azure_tenant": "azure",
    "azure_graph_group_field": "azure",
    "entra_id_allowed_tenants": "entra-id",
    "entra_id_federated_token_auth": "entra-id",
    "bitbucket_workspace": "bitbucket",
    "bitbucket_team": "bitbucket",
    "bitbucket_repository": "bitbucket",
    "github_org": "github",
    "github_team": "github",
    "github_repo": "github",
    "github_token": "github",
    "github_users": "github",
    "gitlab_groups": "gitlab",
    "gitlab_projects": "gitlab",
    "google_groups": "google",
    "google_group": "google",
    "google_admin_email": "google",
    "google_service_account_json": "google",
    "google_use_application_default_credentials": "google",
    "google_target_principal": "google",
    "google_use_organization_id": "google",
    "google_admin_api_user_scope": "google",
    "jwt_key": "login.gov",
    "jwt_key_file": "login.gov",
    "pubjwk_url": "login.gov",
}
TOKEN_FILE_VARIABLE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - a variable's name
GOOGLE_FILE_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
GOOGLE_DEFAULT_FILE = ".config/gcloud/application_default_credentials.json"


class TokenFile(Struct, frozen=True):
    """A file with a token; read at each call, because the platform rotates it.

    The call raises OSError for an unreadable file.
    """

    path: str

    def __call__(self) -> bytes:
        return Path(self.path).read_bytes()


def warn_unused_options(options: ResolvedOptions, kind: str) -> None:
    """Warn about options that a provider of type *kind* ignores."""
    for key, reader in PROVIDER_OF_OPTION.items():
        # Both options share one flag; one warning is enough.
        is_alias = key == "google_groups" and "google_group" in options.explicit
        if kind != reader and not options.is_default(key) and not is_alias:
            options.add_warning(
                key, f"has no effect: only the provider {reader} reads it"
            )


def build_github(options: ResolvedOptions) -> GithubSettings:
    """Build the settings of GitHub."""
    return GithubSettings(
        org=options.string("github_org"),
        team=options.string("github_team"),
        repo=options.string("github_repo"),
        token=Secret(options.string("github_token")),
        users=options.strings("github_users"),
    )


def build_gitlab(options: ResolvedOptions) -> GitlabSettings:
    """Build the settings of GitLab."""
    return GitlabSettings(
        groups=options.strings("gitlab_groups"),
        projects=options.strings("gitlab_projects"),
    )


def build_bitbucket(options: ResolvedOptions) -> BitbucketSettings:
    """Build the settings of Bitbucket."""
    return BitbucketSettings(
        workspace=options.string("bitbucket_workspace")
        or options.string("bitbucket_team"),
        repository=options.string("bitbucket_repository"),
    )


def build_azure(options: ResolvedOptions) -> AzureSettings:
    """Build the settings of Azure."""
    return AzureSettings(
        tenant=options.string("azure_tenant"),
        graph_group_field=options.string("azure_graph_group_field"),
    )


def build_entra_id(options: ResolvedOptions) -> EntraIdSettings:
    """Build the settings of Entra ID."""
    key = "entra_id_federated_token_auth"
    token = _federated_token_file(options, key) if options.boolean(key) else None
    return EntraIdSettings(
        allowed_tenants=options.strings("entra_id_allowed_tenants"),
        federated_token=token,
    )


def _federated_token_file(options: ResolvedOptions, key: str) -> TokenFile:
    path = options.environ.get(TOKEN_FILE_VARIABLE, "")
    if not path:
        options.add_problem(
            key, f"requires the variable {TOKEN_FILE_VARIABLE} with a file name"
        )
    elif not Path(path).is_file():
        options.add_problem(key, f"no file {path} ({TOKEN_FILE_VARIABLE})")
    return TokenFile(path)


def build_google(options: ResolvedOptions) -> GoogleSettings:
    """Build the settings of Google, with the credentials for the directory."""
    groups, old = options.strings("google_groups"), options.strings("google_group")
    if old and old != groups:
        options.add_warning("google_group", "overrides google_groups, its new name")
        groups = old
    credentials = _google_credentials(options)
    return GoogleSettings(
        groups=groups,
        admin_email=options.string("google_admin_email"),
        credentials=credentials or Secret(b""),
        metadata_server=credentials is None,
        target_principal=options.string("google_target_principal"),
        use_organization_id=options.boolean("google_use_organization_id"),
        admin_api_user_scope=options.string("google_admin_api_user_scope"),
    )


def _google_credentials(options: ResolvedOptions) -> Secret | None:
    """Return the account as JSON; None for the credentials of the metadata server."""
    key = "google_service_account_json"
    path = options.string(key)
    default = "google_use_application_default_credentials"
    if options.boolean(default):
        if path:
            options.add_problem(key, f"can't be used with {default}")
        key, path = default, _default_credentials_file(options.environ)
        if not path:
            return None
    return Secret(read_file(options, key, path) or b"") if path else Secret(b"")


def _default_credentials_file(environ: Mapping[str, str]) -> str:
    """Return the file with the application default credentials, or ""."""
    explicit = environ.get(GOOGLE_FILE_VARIABLE, "")
    if explicit:
        return explicit
    default = Path(environ.get("HOME", "/")) / GOOGLE_DEFAULT_FILE
    return str(default) if default.is_file() else ""


def build_login_gov(options: ResolvedOptions) -> LoginGovSettings:
    """Build the settings of login.gov."""
    text, path = options.string("jwt_key"), options.string("jwt_key_file")
    if text and path:
        options.add_problem("jwt_key", "can't be used with jwt_key_file")
    if path and not text:
        content = read_file(options, "jwt_key_file", path)
        if content == b"":
            options.add_problem("jwt_key_file", f"{path} is empty")
        key = Secret(content or b"")
    else:
        key = Secret(text)
    return LoginGovSettings(jwt_key=key, pubjwk_url=options.string("pubjwk_url"))
