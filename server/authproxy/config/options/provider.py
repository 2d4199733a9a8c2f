"""Rows of the option table: the identity provider."""

from __future__ import annotations

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

# The core's table has them too; it is not imported, for --help has to be quick.
TYPES = (
    "adfs, azure, bitbucket, cidaas, digitalocean, entra-id, facebook, github, gitlab, "
    "google, keycloak, keycloak-oidc, linkedin, login.gov, nextcloud, oidc, sourcehut"
)


def _of_one(
    key: str, provider: str, setting: object, help_: str, *, flag: str = ""
) -> Option:
    """A string that only one type of provider reads."""
    return Option(
        key,
        "string",
        "",
        f"{provider}: {help_}",
        setting,
        flag,
        secret=key in ("github_token", "jwt_key"),
    )


def _list_of_one(
    key: str, provider: str, setting: object, help_: str, *, flag: str = ""
) -> Option:
    return _of_one(key, provider, setting, help_, flag=flag)._replace(
        kind="list", default=()
    )


PROVIDER_OPTIONS = in_group(
    "Provider",
    Option(
        "provider",
        "string",
        "google",
        f"type of the identity provider: {TYPES}",
        ProviderSettings.type,
    ),
    Option(
        "provider_display_name",
        "string",
        "",
        "name on the sign-in button, and the provider's id in sessions",
        ProviderSettings.name,
    ),
    Option("client_id", "string", "", "id of this client", ProviderSettings.client_id),
    Option(
        "client_secret",
        "string",
        "",
        "secret of this client",
        ProviderSettings.client_secret,
        secret=True,
    ),
    Option(
        "client_secret_file",
        "string",
        "",
        "file with the client secret, read byte for byte; used when client_secret is "
        "empty",
        ProviderSettings.client_secret,
    ),
    Option(
        "provider_ca_files",
        "list",
        (),
        "PEM files with the only authorities trusted for the provider",
        ClientSettings.ca_files,
        "provider-ca-file",
    ),
    Option(
        "use_system_trust_store",
        "bool",
        False,
        "trust the system's authorities beside provider_ca_files",
        ClientSettings.use_system_trust_store,
    ),
    Option(
        "ssl_insecure_skip_verify",
        "bool",
        False,
        "do not verify the provider's certificate (insecure)",
        ClientSettings.insecure_skip_verify,
        note="upstreams are not affected; they have their own option",
    ),
    Option(
        "provider_connect_timeout",
        "duration",
        5.0,
        "time to connect to the provider",
        ClientSettings.connect_timeout,
        minimum=0.1,
        is_extension=True,
    ),
    Option(
        "provider_connections",
        "int",
        16,
        "kept connections to each origin of the provider, per worker",
        ClientSettings.pool_size,
        minimum=1,
        is_extension=True,
    ),
    Option(
        "oidc_issuer_url",
        "string",
        "",
        "issuer, exactly as the provider writes it",
        ProviderSettings.issuer,
    ),
    Option(
        "skip_oidc_discovery",
        "bool",
        False,
        "use the configured endpoints instead of the discovery document",
        ProviderSettings.skip_discovery,
    ),
    Option(
        "login_url",
        "string",
        "",
        "authorization endpoint, without discovery",
        ProviderSettings.login_url,
    ),
    Option(
        "redeem_url",
        "string",
        "",
        "token endpoint, without discovery",
        ProviderSettings.redeem_url,
    ),
    Option(
        "profile_url",
        "string",
        "",
        "userinfo endpoint, without discovery",
        ProviderSettings.profile_url,
    ),
    Option(
        "oidc_jwks_url",
        "string",
        "",
        "key set of the provider, without discovery",
        ProviderSettings.jwks_url,
    ),
    Option(
        "validate_url",
        "string",
        "",
        "endpoint that is asked whether an access token is good",
        ProviderSettings.validate_url,
    ),
    Option(
        "oidc_public_key_files",
        "list",
        (),
        "PEM files with the provider's keys, without discovery",
        ProviderSettings.public_keys,
        "oidc-public-key-file",
    ),
    Option(
        "scope",
        "string",
        "",
        "scopes to ask for; empty means the provider's default",
        ProviderSettings.scope,
    ),
    Option(
        "code_challenge_method",
        "string",
        "",
        "PKCE method; empty means S256 when the provider advertises it",
        ProviderSettings.code_challenge_method,
        choices=("", "S256", "plain", "none"),
        note="none switches PKCE off; in oauth2-proxy empty does",
    ),
    Option(
        "force_code_challenge_method",
        "string",
        "",
        "old name of code_challenge_method, used when that is empty",
        ProviderSettings.code_challenge_method,
        choices=("", "S256", "plain", "none"),
    ),
    Option(
        "insecure_oidc_skip_nonce",
        "bool",
        False,
        "neither send nor check the nonce (insecure)",
        ProviderSettings.skip_nonce,
        note="the nonce is checked by default; oauth2-proxy skips it by default",
    ),
    Option(
        "insecure_oidc_skip_issuer_verification",
        "bool",
        False,
        "do not compare the issuer (insecure)",
        ProviderSettings.skip_issuer_verification,
    ),
    Option(
        "insecure_oidc_allow_unverified_email",
        "bool",
        False,
        "accept an e-mail address that the provider calls unverified",
        ProviderSettings.allow_unverified_email,
    ),
    Option(
        "oidc_email_claim",
        "string",
        "email",
        "claim with the e-mail address",
        ProviderSettings.email_claim,
    ),
    Option(
        "user_id_claim",
        "string",
        "email",
        "old name of oidc_email_claim, used while that is at its default",
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
        "claims with the audience; the first one present decides",
        ProviderSettings.audience_claims,
        "oidc-audience-claim",
    ),
    Option(
        "oidc_extra_audiences",
        "list",
        (),
        "audiences accepted beside the client id",
        ProviderSettings.extra_audiences,
        "oidc-extra-audience",
    ),
    Option(
        "oidc_enabled_signing_algs",
        "list",
        (),
        "algorithms accepted for ID tokens; empty means those advertised",
        ProviderSettings.signing_algs,
        "oidc-enabled-signing-alg",
    ),
    Option(
        "skip_claims_from_profile_url",
        "bool",
        False,
        "never ask userinfo for claims that the ID token lacks",
        ProviderSettings.skip_claims_from_profile_url,
    ),
    Option(
        "allowed_groups",
        "list",
        (),
        "let in only members of one of these groups",
        ProviderSettings.allowed_groups,
        "allowed-group",
    ),
    Option(
        "allowed_roles",
        "list",
        (),
        "keycloak-oidc: let in only holders of one of these roles",
        ProviderSettings.allowed_groups,
        "allowed-role",
    ),
    Option(
        "prompt",
        "string",
        "",
        "prompt parameter of the authorization request",
        ProviderSettings.login_parameters,
    ),
    Option(
        "approval_prompt",
        "string",
        "force",
        "approval_prompt parameter, sent unless prompt is set",
        ProviderSettings.login_parameters,
    ),
    Option(
        "acr_values",
        "string",
        "",
        "acr_values parameter of the authorization request",
        ProviderSettings.login_parameters,
    ),
    Option(
        "auth_request_response_mode",
        "string",
        "",
        "response_mode parameter: query or form_post",
        ProviderSettings.response_mode,
    ),
    Option(
        "backend_logout_url",
        "string",
        "",
        "address that is called when somebody signs out; {id_token} is filled in",
        ProviderSettings.backend_logout_url,
    ),
    Option(
        "resource",
        "string",
        "",
        "resource that access tokens are asked for: azure, adfs, and types without ID "
        "tokens",
        ProviderSettings.resource,
    ),
    _list_of_one(
        "keycloak_groups",
        "keycloak",
        ProviderSettings.keycloak_groups,
        "groups to let in; with keycloak-oidc use allowed_groups",
        flag="keycloak-group",
    ),
    _of_one(
        "azure_tenant",
        "azure",
        AzureSettings.tenant,
        "tenant whose endpoints are used without discovery",
    )._replace(default="common"),
    _of_one(
        "azure_graph_group_field",
        "azure",
        AzureSettings.graph_group_field,
        "field of Graph with the group's name; empty means its id",
    ),
    _list_of_one(
        "entra_id_allowed_tenants",
        "entra-id",
        EntraIdSettings.allowed_tenants,
        "ids of the tenants to let in",
        flag="entra-id-allowed-tenant",
    ),
    Option(
        "entra_id_federated_token_auth",
        "bool",
        False,
        "entra-id: the token in the file that AZURE_FEDERATED_TOKEN_FILE names stands "
        "for the client secret",
        EntraIdSettings.federated_token,
    ),
    _of_one(
        "bitbucket_team",
        "bitbucket",
        BitbucketSettings.team,
        "workspace (as teams are called now) to let in",
    ),
    _of_one(
        "bitbucket_repository",
        "bitbucket",
        BitbucketSettings.repository,
        "let in who contributes to this repository, OWNER/NAME",
    ),
    _of_one("github_org", "github", GithubSettings.org, "organisation to let in"),
    _of_one(
        "github_team",
        "github",
        GithubSettings.team,
        "teams to let in, with commas between them; ORG:TEAM without github_org",
    ),
    _of_one(
        "github_repo",
        "github",
        GithubSettings.repo,
        "let in who works on this repository, OWNER/NAME; not with github_org",
    ),
    _of_one(
        "github_token",
        "github",
        GithubSettings.token,
        "token to read the collaborators of github_repo with",
    ),
    _list_of_one(
        "github_users",
        "github",
        GithubSettings.users,
        "users to let in, whatever else is demanded",
        flag="github-user",
    ),
    _list_of_one(
        "gitlab_groups",
        "gitlab",
        GitlabSettings.groups,
        "groups to let in",
        flag="gitlab-group",
    ),
    _list_of_one(
        "gitlab_projects",
        "gitlab",
        GitlabSettings.projects,
        "projects whose members to let in, as PATH or PATH=LEVEL (10 to 40; 20)",
        flag="gitlab-project",
    ),
    _list_of_one(
        "google_groups",
        "google",
        GoogleSettings.groups,
        "groups to let in",
        flag="google-group",
    ),
    _list_of_one(
        "google_group",
        "google",
        GoogleSettings.groups,
        "old name of google_groups; wins when both are given",
        flag="google-group",
    ),
    _of_one(
        "google_admin_email",
        "google",
        GoogleSettings.admin_email,
        "administrator as whom the directory is asked",
    ),
    _of_one(
        "google_service_account_json",
        "google",
        GoogleSettings.credentials,
        "file with the key of the service account that asks the directory",
    ),
    Option(
        "google_use_application_default_credentials",
        "string-bool",
        False,
        "google: ask the directory with the application default credentials",
        GoogleSettings.metadata_server,
    ),
    _of_one(
        "google_target_principal",
        "google",
        GoogleSettings.target_principal,
        "service account that the default credentials act for",
    ),
    Option(
        "google_use_organization_id",
        "string-bool",
        False,
        "google: the organisation id of the directory is the preferred user name",
        GoogleSettings.use_organization_id,
    ),
    _of_one(
        "google_admin_api_user_scope",
        "google",
        GoogleSettings.admin_api_user_scope,
        "scope to read users with: cloud, user, else the read-only one",
    ),
    _of_one("jwt_key", "login.gov", LoginGovSettings.jwt_key, "private RSA key, PEM"),
    _of_one(
        "jwt_key_file",
        "login.gov",
        LoginGovSettings.jwt_key,
        "file with the private RSA key, PEM",
    ),
    _of_one(
        "pubjwk_url",
        "login.gov",
        LoginGovSettings.pubjwk_url,
        "key set of the provider; empty means login.gov's own",
    ),
)
