"""Single types of providers, their claims and groups."""

from __future__ import annotations

from ..conditions import (
    CHECKS_MEMBERSHIP,
    EVERY,
    ID_TOKEN_TYPES,
    IGNORED_GROUPS,
    REDEEMS_ELSEWHERE,
    given,
    is_on,
    mentions,
    provider_is,
)
from .row import BUG, SECURITY, Difference

PROVIDERS: tuple[Difference, ...] = (
    Difference(
        "roles-without-keycloak",
        "`allowed_roles` with another provider than `keycloak-oidc` is an error "
        "at start",
        "it is ignored, so the restriction that it names does not exist",
        "remove the option",
        when=given("allowed_roles") & ~provider_is("keycloak-oidc"),
        look=EVERY,
    ),
    Difference(
        "keycloak-roles",
        "`keycloak-oidc`: roles that only the ID token has count too",
        "lightweight access tokens contain no roles",
        BUG,
        when=provider_is("keycloak-oidc"),
        look=given("allowed_roles"),
    ),
    Difference(
        "keycloak-role-groups",
        "groups named `role:…` are dropped for `keycloak-oidc`",
        "they would count as roles",
        SECURITY,
        when=provider_is("keycloak-oidc"),
    ),
    Difference(
        "gitlab-project-groups",
        "groups named `project:…` are dropped for `gitlab`",
        "they would count as projects",
        SECURITY,
        when=provider_is("gitlab"),
    ),
    Difference(
        "verified-id-tokens",
        "ID tokens of `google`, `azure` and `login.gov` are verified like all "
        "others; `google` also requests the scope `openid`",
        "oauth2-proxy does not verify Google's ID tokens and accepts Azure's "
        "access token as one",
        "`scope` sets the requested scopes",
        when=provider_is("google", "azure", "login.gov"),
        look=provider_is("google") & given("scope") & ~mentions("scope", "openid"),
    ),
    Difference(
        "allowed-groups-apply",
        "`allowed_groups` applies to `gitlab`, `keycloak` and `google` if their "
        "specific option is not set",
        "oauth2-proxy ignores it and allows every user",
        SECURITY,
        when=IGNORED_GROUPS,
        look=EVERY,
    ),
    Difference(
        "redeem-url-alone",
        "a custom `redeem_url` requires a `validate_url` and a `profile_url`",
        "the default URLs would receive the tokens of another server",
        "set all three URLs",
        when=REDEEMS_ELSEWHERE,
        look=EVERY,
    ),
    Difference(
        "entra-tenants",
        "`entra-id`: tokens whose `tid` and `iss` name different tenants are denied",
        "only one of the two can be the tenant that issued the token",
        SECURITY,
        when=provider_is("entra-id"),
    ),
    Difference(
        "bitbucket-workspaces",
        "`bitbucket_workspace` is searched in all pages of the user's workspaces",
        "members of many workspaces would be denied",
        BUG,
        when=given("bitbucket_workspace", "bitbucket_team"),
    ),
    Difference(
        "signed-userinfo",
        "signed userinfo (`application/jwt`) is verified and used",
        "OpenID Connect Core §5.3.2 allows it; all logins would fail",
        BUG,
        when=provider_is(*ID_TOKEN_TYPES),
    ),
    Difference(
        "token-types",
        "ID, bearer and logout tokens are told apart by `typ`",
        "one kind of token must not replace another (RFC 8725 §3.11)",
        SECURITY,
        when=provider_is(*ID_TOKEN_TYPES),
        look=is_on("skip_jwt_bearer_tokens"),
    ),
    Difference(
        "email-claim-types",
        "an email claim that is a list, an object or a boolean denies the login",
        "its JSON text would be an address, the same one for several users",
        SECURITY,
        when=provider_is(*ID_TOKEN_TYPES),
    ),
    Difference(
        "unverified-email",
        "email addresses that `bitbucket`, `digitalocean` or `keycloak` report as "
        "unverified are denied",
        "any user can claim them",
        "`insecure_oidc_allow_unverified_email = true`",
        when=provider_is("bitbucket", "digitalocean", "keycloak")
        & ~is_on("insecure_oidc_allow_unverified_email"),
        look=EVERY,
    ),
    Difference(
        "membership-at-refresh",
        "membership of an organization, team, repository, project or directory "
        "group is checked at every refresh; if it cannot be read, access is "
        "denied",
        "former members would keep access until the session ends",
        SECURITY,
        when=CHECKS_MEMBERSHIP,
    ),
)
