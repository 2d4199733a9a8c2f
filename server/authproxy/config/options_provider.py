"""Rows of the option table: the identity provider."""

from __future__ import annotations

from .option import Option, in_group

_P = "core.providers"


def _of_other(key: str, provider: str, help_: str, *, flag: str = "") -> Option:
    """A string that only a provider type reads which is not built in yet."""
    return Option(
        key,
        "string",
        "",
        help_,
        flag=flag,
        support="idle",
        note=f"only the provider {provider} reads it",
        secret=key in ("github_token", "jwt_key"),
    )


def _lists_of_other(key: str, provider: str, help_: str, *, flag: str = "") -> Option:
    return _of_other(key, provider, help_, flag=flag)._replace(kind="list", default=())


def _bool_of_other(key: str, provider: str, help_: str) -> Option:
    return _of_other(key, provider, help_)._replace(kind="bool", default=False)


PROVIDER_OPTIONS = in_group(
    "Provider",
    Option(
        "provider",
        "string",
        "google",
        "type of the identity provider",
        f"{_P}.type",
        note="this version has oidc and keycloak-oidc; the default of oauth2-proxy "
        "is kept, so the option has to be given",
    ),
    Option(
        "provider_display_name",
        "string",
        "",
        "name on the sign-in button, and the provider's id in sessions",
        f"{_P}.name",
    ),
    Option("client_id", "string", "", "id of this client", f"{_P}.client_id"),
    Option(
        "client_secret",
        "string",
        "",
        "secret of this client",
        f"{_P}.client_secret",
        secret=True,
    ),
    Option(
        "client_secret_file",
        "string",
        "",
        "file with the client secret, read byte for byte; used when client_secret is "
        "empty",
        f"{_P}.client_secret",
    ),
    Option(
        "provider_ca_files",
        "list",
        (),
        "PEM files with the only authorities trusted for the provider",
        "client.ca_files",
        "provider-ca-file",
    ),
    Option(
        "use_system_trust_store",
        "bool",
        False,
        "trust the system's authorities beside provider_ca_files",
        "client.use_system_trust_store",
    ),
    Option(
        "ssl_insecure_skip_verify",
        "bool",
        False,
        "do not verify the provider's certificate (insecure)",
        "client.insecure_skip_verify",
        note="upstreams are not affected; they have their own option",
    ),
    Option(
        "provider_connect_timeout",
        "duration",
        5.0,
        "time to connect to the provider",
        "client.connect_timeout",
        minimum=0.1,
        own=True,
    ),
    Option(
        "provider_connections",
        "int",
        16,
        "kept connections to each origin of the provider, per worker",
        "client.pool_size",
        minimum=1,
        own=True,
    ),
    Option(
        "oidc_issuer_url",
        "string",
        "",
        "issuer, exactly as the provider writes it",
        f"{_P}.issuer",
    ),
    Option(
        "skip_oidc_discovery",
        "bool",
        False,
        "use the configured endpoints instead of the discovery document",
        f"{_P}.skip_discovery",
    ),
    Option(
        "login_url",
        "string",
        "",
        "authorization endpoint, without discovery",
        f"{_P}.login_url",
    ),
    Option(
        "redeem_url",
        "string",
        "",
        "token endpoint, without discovery",
        f"{_P}.redeem_url",
    ),
    Option(
        "profile_url",
        "string",
        "",
        "userinfo endpoint, without discovery",
        f"{_P}.profile_url",
    ),
    Option(
        "oidc_jwks_url",
        "string",
        "",
        "key set of the provider, without discovery",
        f"{_P}.jwks_url",
    ),
    Option(
        "validate_url",
        "string",
        "",
        "endpoint that is asked whether an access token is good",
        f"{_P}.validate_url",
    ),
    Option(
        "oidc_public_key_files",
        "list",
        (),
        "PEM files with the provider's keys, without discovery",
        flag="oidc-public-key-file",
        support="refused",
        note="use oidc_jwks_url",
    ),
    Option(
        "scope",
        "string",
        "",
        "scopes to ask for; empty means the provider's default",
        f"{_P}.scope",
    ),
    Option(
        "code_challenge_method",
        "string",
        "",
        "PKCE method; empty means S256 when the provider advertises it",
        f"{_P}.code_challenge_method",
        choices=("", "S256", "plain", "none"),
        note="none switches PKCE off; in oauth2-proxy empty does",
    ),
    Option(
        "force_code_challenge_method",
        "string",
        "",
        "old name of code_challenge_method, used when that is empty",
        f"{_P}.code_challenge_method",
        choices=("", "S256", "plain", "none"),
    ),
    Option(
        "insecure_oidc_skip_nonce",
        "bool",
        False,
        "neither send nor check the nonce (insecure)",
        f"{_P}.skip_nonce",
        note="the nonce is checked by default; oauth2-proxy skips it by default",
    ),
    Option(
        "insecure_oidc_skip_issuer_verification",
        "bool",
        False,
        "do not compare the issuer (insecure)",
        f"{_P}.skip_issuer_verification",
    ),
    Option(
        "insecure_oidc_allow_unverified_email",
        "bool",
        False,
        "accept an e-mail address that the provider calls unverified",
        f"{_P}.allow_unverified_email",
    ),
    Option(
        "oidc_email_claim",
        "string",
        "email",
        "claim with the e-mail address",
        f"{_P}.email_claim",
    ),
    Option(
        "user_id_claim",
        "string",
        "email",
        "old name of oidc_email_claim, used while that is at its default",
        f"{_P}.email_claim",
    ),
    Option(
        "oidc_groups_claim",
        "string",
        "groups",
        "claim with the groups",
        f"{_P}.groups_claim",
    ),
    Option(
        "oidc_audience_claims",
        "list",
        ("aud",),
        "claims with the audience; the first one present decides",
        f"{_P}.audience_claims",
        "oidc-audience-claim",
    ),
    Option(
        "oidc_extra_audiences",
        "list",
        (),
        "audiences accepted beside the client id",
        f"{_P}.extra_audiences",
        "oidc-extra-audience",
    ),
    Option(
        "oidc_enabled_signing_algs",
        "list",
        (),
        "algorithms accepted for ID tokens; empty means those advertised",
        f"{_P}.signing_algs",
        "oidc-enabled-signing-alg",
    ),
    Option(
        "skip_claims_from_profile_url",
        "bool",
        False,
        "never ask userinfo for claims that the ID token lacks",
        f"{_P}.skip_claims_from_profile_url",
    ),
    Option(
        "allowed_groups",
        "list",
        (),
        "let in only members of one of these groups",
        f"{_P}.allowed_groups",
        "allowed-group",
    ),
    Option(
        "allowed_roles",
        "list",
        (),
        "keycloak-oidc: let in only holders of one of these roles",
        f"{_P}.allowed_groups",
        "allowed-role",
    ),
    Option(
        "prompt",
        "string",
        "",
        "prompt parameter of the authorization request",
        f"{_P}.login_parameters",
    ),
    Option(
        "approval_prompt",
        "string",
        "force",
        "approval_prompt parameter, sent unless prompt is set",
        f"{_P}.login_parameters",
    ),
    Option(
        "acr_values",
        "string",
        "",
        "acr_values parameter of the authorization request",
        f"{_P}.login_parameters",
    ),
    Option(
        "auth_request_response_mode",
        "string",
        "",
        "response_mode parameter: query or form_post",
        f"{_P}.response_mode",
    ),
    Option(
        "backend_logout_url",
        "string",
        "",
        "address called at sign-out, {id_token} is filled in",
        support="refused",
    ),
    _of_other("resource", "azure or adfs", "resource parameter"),
    _lists_of_other(
        "keycloak_groups",
        "keycloak",
        "groups to let in; use allowed_groups with keycloak-oidc",
        flag="keycloak-group",
    ),
    _of_other("azure_tenant", "azure", "tenant")._replace(default="common"),
    _of_other("azure_graph_group_field", "azure", "field of Graph with the group name"),
    _lists_of_other(
        "entra_id_allowed_tenants",
        "entra-id",
        "ids of the tenants to let in",
        flag="entra-id-allowed-tenant",
    ),
    _bool_of_other(
        "entra_id_federated_token_auth",
        "entra-id",
        "authenticate with the workload identity's token file",
    ),
    _of_other("bitbucket_team", "bitbucket", "team to let in"),
    _of_other("bitbucket_repository", "bitbucket", "repository whose users to let in"),
    _of_other("github_org", "github", "organisation to let in"),
    _of_other("github_team", "github", "teams to let in, with commas between them"),
    _of_other("github_repo", "github", "repository whose collaborators to let in"),
    _of_other("github_token", "github", "token to read collaborators with"),
    _lists_of_other("github_users", "github", "users to let in", flag="github-user"),
    _lists_of_other("gitlab_groups", "gitlab", "groups to let in", flag="gitlab-group"),
    _lists_of_other(
        "gitlab_projects",
        "gitlab",
        "projects to let in, as path or path=level",
        flag="gitlab-project",
    ),
    _lists_of_other("google_groups", "google", "groups to let in", flag="google-group"),
    _lists_of_other(
        "google_group", "google", "old name of google_groups", flag="google-group"
    ),
    _of_other("google_admin_email", "google", "admin to impersonate"),
    _of_other("google_service_account_json", "google", "file of the service account"),
    _of_other(
        "google_use_application_default_credentials",
        "google",
        "use the application default credentials",
    )._replace(kind="string-bool", default=False),
    _of_other("google_target_principal", "google", "principal to impersonate"),
    _of_other(
        "google_use_organization_id", "google", "organisation id as preferred user name"
    )._replace(kind="string-bool", default=False),
    _of_other("google_admin_api_user_scope", "google", "scope: cloud or user"),
    _of_other("jwt_key", "login.gov", "private key, PEM"),
    _of_other("jwt_key_file", "login.gov", "file with the private key, PEM"),
    _of_other("pubjwk_url", "login.gov", "key set of the provider"),
)
