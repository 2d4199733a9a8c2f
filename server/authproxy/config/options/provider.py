"""Options of the identity provider."""

from __future__ import annotations

from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.providers import (
    AzureSettings,
    BitbucketSettings,
    EntraIdSettings,
    GithubSettings,
    GitlabSettings,
    GoogleSettings,
    LoginGovSettings,
)
from authproxy_core.settings.root import ProviderSettings

from ...server_settings import ClientSettings
from .option import Option, in_group


def _string_of(
    key: str, provider: str, setting: object, help_: str, *, flag: str = ""
) -> Option:
    """Return a string option that only one type of provider reads."""
    secret = key in ("github_token", "jwt_key")
    return Option(
        key, "string", "", f"{provider}: {help_}", setting, flag, secret=secret
    )


def _list_of(
    key: str, provider: str, setting: object, help_: str, *, flag: str = ""
) -> Option:
    """Return a list option that only one type of provider reads."""
    return _string_of(key, provider, setting, help_, flag=flag)._replace(
        kind="list", default=()
    )


PROVIDER_OPTIONS = in_group(
    "Provider",
    Option(
        "provider",
        "string",
        "google",
        f"type of the identity provider: {', '.join(sorted(PROVIDER_TYPES))}",
        ProviderSettings.type,
    ),
    Option(
        "provider_display_name",
        "string",
        "",
        "provider name on the sign-in button, and provider ID in sessions; empty: "
        "PROVIDER=CLIENT_ID as ID",
        ProviderSettings.name,
    ),
    Option("client_id", "string", "", "OAuth client ID", ProviderSettings.client_id),
    Option(
        "client_secret",
        "string",
        "",
        "OAuth client secret",
        ProviderSettings.client_secret,
        secret=True,
    ),
    Option(
        "client_secret_file",
        "string",
        "",
        "file with the client secret, read byte for byte; ignored if client_secret is "
        "set",
        ProviderSettings.client_secret,
    ),
    Option(
        "provider_ca_files",
        "list",
        (),
        "PEM files with the CA certificates to trust for the provider, instead of the "
        "system's",
        ClientSettings.ca_files,
        "provider-ca-file",
    ),
    Option(
        "use_system_trust_store",
        "bool",
        False,
        "trust the system's CA certificates in addition to provider_ca_files",
        ClientSettings.use_system_trust_store,
    ),
    Option(
        "ssl_insecure_skip_verify",
        "bool",
        False,
        "skip the verification of the provider's certificate (insecure)",
        ClientSettings.insecure_skip_verify,
        note="does not affect upstreams, which have ssl_upstream_insecure_skip_verify",
    ),
    Option(
        "provider_connect_timeout",
        "duration",
        5.0,
        "timeout for connecting to the provider",
        ClientSettings.connect_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "provider_connections",
        "int",
        16,
        "maximum number of connections to each origin of the provider, per worker",
        ClientSettings.pool_size,
        minimum=1,
        is_extension=True,
    ),
    Option(
        "oidc_issuer_url",
        "string",
        "",
        "issuer URL, exactly as in the provider's metadata",
        ProviderSettings.issuer,
    ),
    Option(
        "skip_oidc_discovery",
        "bool",
        False,
        "use the configured endpoints instead of the provider's metadata (discovery)",
        ProviderSettings.skip_discovery,
    ),
    Option(
        "login_url",
        "string",
        "",
        "authorization endpoint; with OIDC ignored unless skip_oidc_discovery",
        ProviderSettings.login_url,
    ),
    Option(
        "redeem_url",
        "string",
        "",
        "token endpoint; with OIDC ignored unless skip_oidc_discovery",
        ProviderSettings.redeem_url,
    ),
    Option(
        "profile_url",
        "string",
        "",
        "userinfo endpoint; with OIDC ignored unless skip_oidc_discovery",
        ProviderSettings.profile_url,
    ),
    Option(
        "oidc_jwks_url",
        "string",
        "",
        "JWKS URL of the provider; ignored unless skip_oidc_discovery",
        ProviderSettings.jwks_url,
    ),
    Option(
        "validate_url",
        "string",
        "",
        "endpoint that validates access tokens",
        ProviderSettings.validate_url,
    ),
    Option(
        "oidc_public_key_files",
        "list",
        (),
        "PEM files with the provider's public keys, instead of oidc_jwks_url; ignored "
        "unless skip_oidc_discovery",
        ProviderSettings.public_keys,
        "oidc-public-key-file",
    ),
    Option(
        "scope",
        "string",
        "",
        "requested scopes; empty: the default of the provider type",
        ProviderSettings.scope,
    ),
    Option(
        "code_challenge_method",
        "string",
        "",
        "PKCE method; empty: S256 if the provider supports it",
        ProviderSettings.code_challenge_method,
        choices=("", "S256", "plain", "none"),
        note="none disables PKCE; in oauth2-proxy empty disables it",
    ),
    Option(
        "force_code_challenge_method",
        "string",
        "",
        "older name of code_challenge_method, ignored if that is set",
        ProviderSettings.code_challenge_method,
        choices=("", "S256", "plain", "none"),
    ),
    Option(
        "insecure_oidc_skip_nonce",
        "bool",
        False,
        "skip sending and checking the nonce (insecure)",
        ProviderSettings.skip_nonce,
        note="oauth2-proxy skips the nonce by default",
    ),
    Option(
        "insecure_oidc_skip_issuer_verification",
        "bool",
        False,
        "skip the check of the issuer (insecure)",
        ProviderSettings.skip_issuer_verification,
    ),
    Option(
        "insecure_oidc_allow_unverified_email",
        "bool",
        False,
        "accept emails that the provider reports as not verified",
        ProviderSettings.allow_unverified_email,
    ),
    Option(
        "oidc_email_claim",
        "string",
        "email",
        "claim with the email",
        ProviderSettings.email_claim,
    ),
    Option(
        "user_id_claim",
        "string",
        "email",
        "older name of oidc_email_claim, ignored if that is not at its default",
        ProviderSettings.email_claim,
    ),
    Option(
        "oidc_groups_claim",
        "string",
        "groups",
        "claim with the groups",
        ProviderSettings.groups_claim,
    ),
    Option(
        "oidc_audience_claims",
        "list",
        ("aud",),
        "claims with the audience; the first claim in the token is used",
        ProviderSettings.audience_claims,
        "oidc-audience-claim",
    ),
    Option(
        "oidc_extra_audiences",
        "list",
        (),
        "audiences that are accepted in addition to client_id",
        ProviderSettings.extra_audiences,
        "oidc-extra-audience",
    ),
    Option(
        "oidc_enabled_signing_algs",
        "list",
        (),
        "accepted signing algorithms of ID tokens; empty: those in the provider's "
        "metadata, but a refreshed ID token with another one than the session's ends it",
        ProviderSettings.signing_algs,
        "oidc-enabled-signing-alg",
    ),
    Option(
        "skip_claims_from_profile_url",
        "bool",
        False,
        "skip the userinfo request for claims that are missing in the ID token",
        ProviderSettings.skip_claims_from_profile_url,
    ),
    Option(
        "allowed_groups",
        "list",
        (),
        "allow only members of at least one of these groups; empty allows any",
        ProviderSettings.allowed_groups,
        "allowed-group",
    ),
    Option(
        "allowed_roles",
        "list",
        (),
        "keycloak-oidc: allow only users with at least one of these roles; empty "
        "allows any",
        ProviderSettings.allowed_groups,
        "allowed-role",
    ),
    Option(
        "prompt",
        "string",
        "",
        "prompt parameter of the authorization request; empty omits it",
        ProviderSettings.login_parameters,
    ),
    Option(
        "approval_prompt",
        "string",
        "force",
        "approval_prompt parameter of the authorization request; ignored if prompt is "
        "set",
        ProviderSettings.login_parameters,
    ),
    Option(
        "acr_values",
        "string",
        "",
        "acr_values parameter of the authorization request; empty omits it",
        ProviderSettings.login_parameters,
    ),
    Option(
        "auth_request_response_mode",
        "string",
        "",
        "response_mode parameter of the authorization request: query or form_post; "
        "empty omits it; with form_post the login cookie has SameSite=None and Secure, "
        "unless cookie_csrf_samesite is set",
        ProviderSettings.response_mode,
    ),
    Option(
        "backend_logout_url",
        "string",
        "",
        "URL requested at sign-out; {id_token} is replaced",
        ProviderSettings.backend_logout_url,
    ),
    Option(
        "resource",
        "string",
        "",
        "resource for which access tokens are requested: azure, adfs, and provider "
        "types without ID tokens",
        ProviderSettings.resource,
    ),
    _list_of(
        "keycloak_groups",
        "keycloak",
        ProviderSettings.keycloak_groups,
        "allowed groups; with keycloak-oidc use allowed_groups",
        flag="keycloak-group",
    ),
    _string_of(
        "azure_tenant",
        "azure",
        AzureSettings.tenant,
        "tenant of the default endpoints without discovery",
    )._replace(default="common"),
    _string_of(
        "azure_graph_group_field",
        "azure",
        AzureSettings.graph_group_field,
        "field of Microsoft Graph with the group name; empty: the group ID",
    ),
    _list_of(
        "entra_id_allowed_tenants",
        "entra-id",
        EntraIdSettings.allowed_tenants,
        "IDs of the allowed tenants; empty allows any",
        flag="entra-id-allowed-tenant",
    ),
    Option(
        "entra_id_federated_token_auth",
        "bool",
        False,
        "entra-id: authenticate with the token in the file that "
        "AZURE_FEDERATED_TOKEN_FILE names, instead of client_secret",
        EntraIdSettings.federated_token,
    ),
    _string_of(
        "bitbucket_workspace",
        "bitbucket",
        BitbucketSettings.workspace,
        "slug of the allowed workspace",
    ),
    _string_of(
        "bitbucket_team",
        "bitbucket",
        BitbucketSettings.workspace,
        "former name of bitbucket_workspace; ignored if both are set",
    ),
    _string_of(
        "bitbucket_repository",
        "bitbucket",
        BitbucketSettings.repository,
        "repository whose contributors are allowed, as OWNER/NAME",
    ),
    _string_of("github_org", "github", GithubSettings.org, "allowed organization"),
    _string_of(
        "github_team",
        "github",
        GithubSettings.team,
        "allowed teams, comma-separated; ORG:TEAM without github_org",
    ),
    _string_of(
        "github_repo",
        "github",
        GithubSettings.repo,
        "repository whose collaborators are allowed, as OWNER/NAME; ignored with "
        "github_org",
    ),
    _string_of(
        "github_token",
        "github",
        GithubSettings.token,
        "token for reading the collaborators of github_repo",
    ),
    _list_of(
        "github_users",
        "github",
        GithubSettings.users,
        "users that are allowed regardless of organization, team and repository",
        flag="github-user",
    ),
    _list_of(
        "gitlab_groups",
        "gitlab",
        GitlabSettings.groups,
        "allowed groups",
        flag="gitlab-group",
    ),
    _list_of(
        "gitlab_projects",
        "gitlab",
        GitlabSettings.projects,
        "projects whose members are allowed, as PATH or PATH=LEVEL (access level 10 "
        "to 40; default 20)",
        flag="gitlab-project",
    ),
    _list_of(
        "google_groups",
        "google",
        GoogleSettings.groups,
        "allowed groups",
        flag="google-group",
    ),
    _list_of(
        "google_group",
        "google",
        GoogleSettings.groups,
        "older name of google_groups, takes precedence over it",
        flag="google-group",
    ),
    _string_of(
        "google_admin_email",
        "google",
        GoogleSettings.admin_email,
        "administrator impersonated for directory requests",
    ),
    _string_of(
        "google_service_account_json",
        "google",
        GoogleSettings.credentials,
        "file with the key of the service account for directory requests",
    ),
    Option(
        "google_use_application_default_credentials",
        "string-bool",
        False,
        "google: use the application default credentials for directory requests",
        GoogleSettings.metadata_server,
    ),
    _string_of(
        "google_target_principal",
        "google",
        GoogleSettings.target_principal,
        "service account impersonated by the application default credentials",
    ),
    Option(
        "google_use_organization_id",
        "string-bool",
        False,
        "google: use the organization ID of the directory as preferred username",
        GoogleSettings.use_organization_id,
    ),
    _string_of(
        "google_admin_api_user_scope",
        "google",
        GoogleSettings.admin_api_user_scope,
        "scope for reading users: cloud, user, else the read-only scope",
    ),
    _string_of(
        "jwt_key",
        "login.gov",
        LoginGovSettings.jwt_key,
        "private RSA key that authenticates the client, PEM",
    ),
    _string_of(
        "jwt_key_file",
        "login.gov",
        LoginGovSettings.jwt_key,
        "file with the private RSA key, PEM; can't be used with jwt_key",
    ),
    _string_of(
        "pubjwk_url",
        "login.gov",
        LoginGovSettings.pubjwk_url,
        "JWKS URL of the provider; empty: that of login.gov",
    ),
)
