"""The alpha configuration's keys, and which flat option says the same.

A field is a kind of value, a mapping of further keys, or a list of such mappings. What
a provider's key means, its default and its bounds are those of the flat option that it
is mapped to, so that both forms can't drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

Scalar: TypeAlias = Literal[
    "text", "bool", "int", "duration", "texts", "bytes", "claims"
]


class Many(NamedTuple):
    """A list of mappings with these keys."""

    keys: Schema


Field: TypeAlias = "Scalar | Schema | Many"
Schema: TypeAlias = Mapping[str, "Field"]

SECRET_SOURCE: Schema = {"value": "bytes", "fromEnv": "text", "fromFile": "text"}
CLAIM_SOURCE: Schema = {
    "claim": "text",
    "prefix": "text",
    "basicAuthPassword": SECRET_SOURCE,
}
HEADER: Schema = {
    "name": "text",
    "preserveRequestValue": "bool",
    "InsecureSkipHeaderNormalization": "bool",
    "values": Many({"secretSource": SECRET_SOURCE, "claimSource": CLAIM_SOURCE}),
}
# Not in oauth2-proxy, as what is made of it.
CONDITION: Schema = {
    "hosts": "texts",
    "methods": "texts",
    "groups": "texts",
    "roles": "texts",
    "emails": "texts",
    "emailDomains": "texts",
    "claims": "claims",
    "anyOf": "bool",
}
ACCESS_RULE: Schema = {
    "name": "text",
    "paths": "texts",
    "patterns": "texts",
    "policy": "text",
    **CONDITION,
}
UPSTREAM: Schema = {
    "id": "text",
    "path": "text",
    "rewriteTarget": "text",
    "uri": "text",
    "insecureSkipTLSVerify": "bool",
    "static": "bool",
    "staticCode": "int",
    "flushInterval": "duration",
    "passHostHeader": "bool",
    "proxyWebSockets": "bool",
    "timeout": "duration",
    "disableKeepAlives": "bool",
    # Not in oauth2-proxy: for which requests and people it is.
    "when": CONDITION,
}
SERVER: Schema = {
    "bindAddress": "text",
    "secureBindAddress": "text",
    "tls": {
        "key": SECRET_SOURCE,
        "cert": SECRET_SOURCE,
        "minVersion": "text",
        "cipherSuites": "texts",
    },
}

# Keys of a provider, by block ("" for those right below it): flat option and kind.
PROVIDER_KEYS: Mapping[str, Mapping[str, tuple[str, Scalar]]] = {
    "": {
        "clientID": ("client_id", "text"),
        "clientSecret": ("client_secret", "text"),
        "clientSecretFile": ("client_secret_file", "text"),
        "name": ("provider_display_name", "text"),
        "provider": ("provider", "text"),
        "caFiles": ("provider_ca_files", "texts"),
        "useSystemTrustStore": ("use_system_trust_store", "bool"),
        "loginURL": ("login_url", "text"),
        "authRequestResponseMode": ("auth_request_response_mode", "text"),
        "redeemURL": ("redeem_url", "text"),
        "profileURL": ("profile_url", "text"),
        "skipClaimsFromProfileURL": ("skip_claims_from_profile_url", "bool"),
        "resource": ("resource", "text"),
        "validateURL": ("validate_url", "text"),
        "scope": ("scope", "text"),
        "allowedGroups": ("allowed_groups", "texts"),
        "code_challenge_method": ("code_challenge_method", "text"),
        "backendLogoutURL": ("backend_logout_url", "text"),
    },
    "oidcConfig": {
        "issuerURL": ("oidc_issuer_url", "text"),
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
        "jwksURL": ("oidc_jwks_url", "text"),
        "publicKeyFiles": ("oidc_public_key_files", "texts"),
        "emailClaim": ("oidc_email_claim", "text"),
        "groupsClaim": ("oidc_groups_claim", "text"),
        "userIDClaim": ("user_id_claim", "text"),
        "audienceClaims": ("oidc_audience_claims", "texts"),
        "extraAudiences": ("oidc_extra_audiences", "texts"),
        "enabledSigningAlgs": ("oidc_enabled_signing_algs", "texts"),
    },
    "keycloakConfig": {
        "groups": ("keycloak_groups", "texts"),
        "roles": ("allowed_roles", "texts"),
    },
    "azureConfig": {
        "tenant": ("azure_tenant", "text"),
        "graphGroupField": ("azure_graph_group_field", "text"),
    },
    "microsoftEntraIDConfig": {
        "allowedTenants": ("entra_id_allowed_tenants", "texts"),
        "federatedTokenAuth": ("entra_id_federated_token_auth", "bool"),
    },
    "bitbucketConfig": {
        "team": ("bitbucket_team", "text"),
        "repository": ("bitbucket_repository", "text"),
    },
    "githubConfig": {
        "org": ("github_org", "text"),
        "team": ("github_team", "text"),
        "repo": ("github_repo", "text"),
        "token": ("github_token", "text"),
        "users": ("github_users", "texts"),
    },
    "gitlabConfig": {
        "group": ("gitlab_groups", "texts"),
        "projects": ("gitlab_projects", "texts"),
    },
    "googleConfig": {
        "group": ("google_groups", "texts"),
        "adminEmail": ("google_admin_email", "text"),
        "serviceAccountJson": ("google_service_account_json", "text"),
        "useApplicationDefaultCredentials": (
            "google_use_application_default_credentials",
            "bool",
        ),
        "targetPrincipal": ("google_target_principal", "text"),
        "useOrganizationID": ("google_use_organization_id", "bool"),
        "adminAPIUserScope": ("google_admin_api_user_scope", "text"),
    },
    "loginGovConfig": {
        "jwtKey": ("jwt_key", "text"),
        "jwtKeyFile": ("jwt_key_file", "text"),
        "pubjwkURL": ("pubjwk_url", "text"),
    },
}

LOGIN_PARAMETER: Schema = {
    "name": "text",
    "default": "texts",
    "allow": Many({"value": "text", "pattern": "text"}),
}


def _provider() -> Schema:
    blocks = {
        block: {name: kind for name, (_, kind) in keys.items()}
        for block, keys in PROVIDER_KEYS.items()
    }
    return {
        "id": "text",
        **blocks.pop(""),
        **blocks,
        "ADFSConfig": {"skipScope": "bool"},
        "loginURLParameters": Many(LOGIN_PARAMETER),
        "additionalClaims": "texts",
        # Not in oauth2-proxy: on these hosts this provider is offered alone.
        "hosts": "texts",
    }


PROVIDER: Schema = _provider()
ROOT: Schema = {
    "upstreamConfig": {"proxyRawPath": "bool", "upstreams": Many(UPSTREAM)},
    "injectRequestHeaders": Many(HEADER),
    "injectResponseHeaders": Many(HEADER),
    "server": SERVER,
    "metricsServer": SERVER,
    "providers": Many(PROVIDER),
    "accessRules": Many(ACCESS_RULE),
}
