"""The keys of an alpha configuration, and the flat options of a provider's keys.

A field is a scalar kind, a mapping of further keys, or a list of such mappings. A key of
a provider has the meaning, default and bounds of its flat option, so that both formats
stay consistent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

Scalar: TypeAlias = Literal[
    "string", "bool", "int", "duration", "strings", "bytes", "claims"
]


class ListOf(NamedTuple):
    """A list of mappings with the same keys."""

    keys: Schema


Field: TypeAlias = "Scalar | Schema | ListOf"
Schema: TypeAlias = Mapping[str, "Field"]

SECRET_SOURCE: Schema = {"value": "bytes", "fromEnv": "string", "fromFile": "string"}
CLAIM_SOURCE: Schema = {
    "claim": "string",
    "prefix": "string",
    "basicAuthPassword": SECRET_SOURCE,
}
HEADER: Schema = {
    "name": "string",
    "preserveRequestValue": "bool",
    "InsecureSkipHeaderNormalization": "bool",
    "values": ListOf({"secretSource": SECRET_SOURCE, "claimSource": CLAIM_SOURCE}),
}
# Extension of oauth2-proxy's schema.
CONDITION: Schema = {
    "hosts": "strings",
    "methods": "strings",
    "groups": "strings",
    "roles": "strings",
    "emails": "strings",
    "emailDomains": "strings",
    "claims": "claims",
    "anyOf": "bool",
}
ACCESS_RULE: Schema = {
    "name": "string",
    "paths": "strings",
    "patterns": "strings",
    "policy": "string",
    **CONDITION,
}
UPSTREAM: Schema = {
    "id": "string",
    "path": "string",
    "rewriteTarget": "string",
    "uri": "string",
    "insecureSkipTLSVerify": "bool",
    "static": "bool",
    "staticCode": "int",
    "flushInterval": "duration",
    "passHostHeader": "bool",
    "proxyWebSockets": "bool",
    "timeout": "duration",
    "disableKeepAlives": "bool",
    # Extension: the requests and users that the upstream serves.
    "when": CONDITION,
}
SERVER: Schema = {
    "bindAddress": "string",
    "secureBindAddress": "string",
    "tls": {
        "key": SECRET_SOURCE,
        "cert": SECRET_SOURCE,
        "minVersion": "string",
        "cipherSuites": "strings",
    },
}

# Keys of a provider by block ("": top level), each with its flat option and kind.
PROVIDER_KEYS: Mapping[str, Mapping[str, tuple[str, Scalar]]] = {
    "": {
        "clientID": ("client_id", "string"),
        "clientSecret": ("client_secret", "string"),
        "clientSecretFile": ("client_secret_file", "string"),
        "name": ("provider_display_name", "string"),
        "provider": ("provider", "string"),
        "caFiles": ("provider_ca_files", "strings"),
        "useSystemTrustStore": ("use_system_trust_store", "bool"),
        "loginURL": ("login_url", "string"),
        "authRequestResponseMode": ("auth_request_response_mode", "string"),
        "redeemURL": ("redeem_url", "string"),
        "profileURL": ("profile_url", "string"),
        "skipClaimsFromProfileURL": ("skip_claims_from_profile_url", "bool"),
        "resource": ("resource", "string"),
        "validateURL": ("validate_url", "string"),
        "scope": ("scope", "string"),
        "allowedGroups": ("allowed_groups", "strings"),
        "code_challenge_method": ("code_challenge_method", "string"),
        "backendLogoutURL": ("backend_logout_url", "string"),
    },
    "oidcConfig": {
        "issuerURL": ("oidc_issuer_url", "string"),
        "insecureAllowUnverifiedEmail": (
            "insecure_oidc_allow_unverified_email",
            "bool",
        ),
        "insecureSkipIssuerVerification": (
            "insecure_oidc_skip_issuer_verification",
            "bool",
        ),
        "insecureSkipNonce": ("insecure_oidc_skip_nonce", "bool"),
        "skipDiscovery": ("skip_oidc_discovery", "bool"),
        "jwksURL": ("oidc_jwks_url", "string"),
        "publicKeyFiles": ("oidc_public_key_files", "strings"),
        "emailClaim": ("oidc_email_claim", "string"),
        "groupsClaim": ("oidc_groups_claim", "string"),
        "userIDClaim": ("user_id_claim", "string"),
        "audienceClaims": ("oidc_audience_claims", "strings"),
        "extraAudiences": ("oidc_extra_audiences", "strings"),
        "enabledSigningAlgs": ("oidc_enabled_signing_algs", "strings"),
    },
    "keycloakConfig": {
        "groups": ("keycloak_groups", "strings"),
        "roles": ("allowed_roles", "strings"),
    },
    "azureConfig": {
        "tenant": ("azure_tenant", "string"),
        "graphGroupField": ("azure_graph_group_field", "string"),
    },
    "microsoftEntraIDConfig": {
        "allowedTenants": ("entra_id_allowed_tenants", "strings"),
        "federatedTokenAuth": ("entra_id_federated_token_auth", "bool"),
    },
    "bitbucketConfig": {
        "workspace": ("bitbucket_workspace", "string"),
        "team": ("bitbucket_team", "string"),
        "repository": ("bitbucket_repository", "string"),
    },
    "githubConfig": {
        "org": ("github_org", "string"),
        "team": ("github_team", "string"),
        "repo": ("github_repo", "string"),
        "token": ("github_token", "string"),
        "users": ("github_users", "strings"),
    },
    "gitlabConfig": {
        "group": ("gitlab_groups", "strings"),
        "projects": ("gitlab_projects", "strings"),
    },
    "googleConfig": {
        "group": ("google_groups", "strings"),
        "adminEmail": ("google_admin_email", "string"),
        "serviceAccountJson": ("google_service_account_json", "string"),
        "useApplicationDefaultCredentials": (
            "google_use_application_default_credentials",
            "bool",
        ),
        "targetPrincipal": ("google_target_principal", "string"),
        "useOrganizationID": ("google_use_organization_id", "bool"),
        "adminAPIUserScope": ("google_admin_api_user_scope", "string"),
    },
    "loginGovConfig": {
        "jwtKey": ("jwt_key", "string"),
        "jwtKeyFile": ("jwt_key_file", "string"),
        "pubjwkURL": ("pubjwk_url", "string"),
    },
}

LOGIN_PARAMETER: Schema = {
    "name": "string",
    "default": "strings",
    "allow": ListOf({"value": "string", "pattern": "string"}),
}


def _provider_schema() -> Schema:
    blocks = {
        block: {name: kind for name, (_, kind) in keys.items()}
        for block, keys in PROVIDER_KEYS.items()
    }
    return {
        "id": "string",
        **blocks.pop(""),
        **blocks,
        "ADFSConfig": {"skipScope": "bool"},
        "loginURLParameters": ListOf(LOGIN_PARAMETER),
        "additionalClaims": "strings",
        # Extension: only this provider is offered on these hosts.
        "hosts": "strings",
    }


PROVIDER: Schema = _provider_schema()
ROOT: Schema = {
    "upstreamConfig": {"proxyRawPath": "bool", "upstreams": ListOf(UPSTREAM)},
    "injectRequestHeaders": ListOf(HEADER),
    "injectResponseHeaders": ListOf(HEADER),
    "server": SERVER,
    "metricsServer": SERVER,
    "providers": ListOf(PROVIDER),
    "accessRules": ListOf(ACCESS_RULE),
}
