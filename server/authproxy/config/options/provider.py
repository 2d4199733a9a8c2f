"""Rows of the option table: the identity provider."""

from __future__ import annotations

from .option import Option, in_group

_P = "core.providers"
# The core's table has them too; it is not imported, for --help has to be quick.
TYPES = (
    "adfs, azure, bitbucket, cidaas, digitalocean, entra-id, facebook, github, gitlab, "
    "google, keycloak, keycloak-oidc, linkedin, login.gov, nextcloud, oidc, sourcehut"
)


def _of_one(
    key: str, provider: str, place: str, help_: str, *, flag: str = ""
) -> Option:
    """A string that only one type of provider reads."""
    return Option(
        key,
        "string",
        "",
        f"{provider}: {help_}",
        f"{_P}.{place}",
        flag,
        secret=key in ("github_token", "jwt_key"),
    )


def _list_of_one(
    key: str, provider: str, place: str, help_: str, *, flag: str = ""
) -> Option:
    return _of_one(key, provider, place, help_, flag=flag)._replace(
        kind="list", default=()
    )


PROVIDER_OPTIONS = in_group(
    "Provider",
    Option(
        "provider",
        "string",
        "google",
        f"type of the identity provider: {TYPES}",
        f"{_P}.type",
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
        is_extension=True,
    ),
    Option(
        "provider_connections",
        "int",
        16,
        "kept connections to each origin of the provider, per worker",
        "client.pool_size",
        minimum=1,
        is_extension=True,
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
        f"{_P}.public_keys",
        "oidc-public-key-file",
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
        "address that is called when somebody signs out; {id_token} is filled in",
        f"{_P}.backend_logout_url",
    ),
    Option(
        "resource",
        "string",
        "",
        "resource that access tokens are asked for: azure, adfs, and types without ID "
        "tokens",
        f"{_P}.resource",
    ),
    _list_of_one(
        "keycloak_groups",
        "keycloak",
        "keycloak_groups",
        "groups to let in; with keycloak-oidc use allowed_groups",
        flag="keycloak-group",
    ),
    _of_one(
        "azure_tenant",
        "azure",
        "azure.tenant",
        "tenant whose endpoints are used without discovery",
    )._replace(default="common"),
    _of_one(
        "azure_graph_group_field",
        "azure",
        "azure.graph_group_field",
        "field of Graph with the group's name; empty means its id",
    ),
    _list_of_one(
        "entra_id_allowed_tenants",
        "entra-id",
        "entra_id.allowed_tenants",
        "ids of the tenants to let in",
        flag="entra-id-allowed-tenant",
    ),
    Option(
        "entra_id_federated_token_auth",
        "bool",
        False,
        "entra-id: the token in the file that AZURE_FEDERATED_TOKEN_FILE names stands "
        "for the client secret",
        f"{_P}.entra_id.federated_token",
    ),
    _of_one(
        "bitbucket_team",
        "bitbucket",
        "bitbucket.team",
        "workspace (as teams are called now) to let in",
    ),
    _of_one(
        "bitbucket_repository",
        "bitbucket",
        "bitbucket.repository",
        "let in who contributes to this repository, OWNER/NAME",
    ),
    _of_one("github_org", "github", "github.org", "organisation to let in"),
    _of_one(
        "github_team",
        "github",
        "github.team",
        "teams to let in, with commas between them; ORG:TEAM without github_org",
    ),
    _of_one(
        "github_repo",
        "github",
        "github.repo",
        "let in who works on this repository, OWNER/NAME; not with github_org",
    ),
    _of_one(
        "github_token",
        "github",
        "github.token",
        "token to read the collaborators of github_repo with",
    ),
    _list_of_one(
        "github_users",
        "github",
        "github.users",
        "users to let in, whatever else is demanded",
        flag="github-user",
    ),
    _list_of_one(
        "gitlab_groups",
        "gitlab",
        "gitlab.groups",
        "groups to let in",
        flag="gitlab-group",
    ),
    _list_of_one(
        "gitlab_projects",
        "gitlab",
        "gitlab.projects",
        "projects whose members to let in, as PATH or PATH=LEVEL (10 to 40; 20)",
        flag="gitlab-project",
    ),
    _list_of_one(
        "google_groups",
        "google",
        "google.groups",
        "groups to let in",
        flag="google-group",
    ),
    _list_of_one(
        "google_group",
        "google",
        "google.groups",
        "old name of google_groups; wins when both are given",
        flag="google-group",
    ),
    _of_one(
        "google_admin_email",
        "google",
        "google.admin_email",
        "administrator as whom the directory is asked",
    ),
    _of_one(
        "google_service_account_json",
        "google",
        "google.credentials",
        "file with the key of the service account that asks the directory",
    ),
    Option(
        "google_use_application_default_credentials",
        "string-bool",
        False,
        "google: ask the directory with the application default credentials",
        f"{_P}.google.metadata_server",
    ),
    _of_one(
        "google_target_principal",
        "google",
        "google.target_principal",
        "service account that the default credentials act for",
    ),
    Option(
        "google_use_organization_id",
        "string-bool",
        False,
        "google: the organisation id of the directory is the preferred user name",
        f"{_P}.google.use_organization_id",
    ),
    _of_one(
        "google_admin_api_user_scope",
        "google",
        "google.admin_api_user_scope",
        "scope to read users with: cloud, user, else the read-only one",
    ),
    _of_one("jwt_key", "login.gov", "login_gov.jwt_key", "private RSA key, PEM"),
    _of_one(
        "jwt_key_file",
        "login.gov",
        "login_gov.jwt_key",
        "file with the private RSA key, PEM",
    ),
    _of_one(
        "pubjwk_url",
        "login.gov",
        "login_gov.pubjwk_url",
        "key set of the provider; empty means login.gov's own",
    ),
)
