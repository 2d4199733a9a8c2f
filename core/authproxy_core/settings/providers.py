"""Settings of one identity provider, and their problems.

Options of a single provider type are in a struct of that type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ..encoding import is_host_name
from ..go_regex import compile_pattern
from .provider_types import PROVIDER_TYPES, ProviderType
from .secret import Secret
from .validation import ValidatedStruct

RESPONSE_MODES = ("", "query", "form_post")
PROJECT_LEVELS = ("10", "20", "30", "40")


class AllowRule(ValidatedStruct, frozen=True):
    """Values that a login request may choose: ``text``, or matches of a pattern.

    A pattern is a regular expression in Go's syntax, searched anywhere in the value.
    """

    text: str
    is_pattern: bool = False


class LoginParameter(ValidatedStruct, frozen=True):
    """An extra parameter of the authorization request.

    ``values`` are sent unless the login request contains one that a rule of ``allow``
    matches. Without rules, the parameter is fixed.
    """

    name: str
    values: tuple[str, ...] = ()
    allow: tuple[AllowRule, ...] = ()


class GithubSettings(ValidatedStruct, frozen=True, kw_only=True):
    """GitHub users who are allowed; ``team`` is a comma-separated list.

    ``token`` is used to read the collaborators of ``repo``. ``users`` are allowed even if
    they meet no other criterion.
    """

    org: str = ""
    team: str = ""
    repo: str = ""
    token: Secret = Secret(b"")
    users: tuple[str, ...] = ()


class GitlabSettings(ValidatedStruct, frozen=True, kw_only=True):
    """GitLab groups and projects whose users are allowed.

    Projects are ``path`` or ``path=level``.
    """

    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()


class GoogleSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Google groups whose members are allowed, and access to the directory.

    ``credentials`` is the JSON of a service account (or of a user's application default
    credentials); with ``metadata_server``, the token comes from Google's metadata server
    instead. ``admin_email`` is impersonated, by way of the service account
    ``target_principal`` if the credentials are not those of a service account.
    """

    groups: tuple[str, ...] = ()
    admin_email: str = ""
    credentials: Secret = Secret(b"")
    metadata_server: bool = False
    target_principal: str = ""
    use_organization_id: bool = False
    admin_api_user_scope: str = ""


class BitbucketSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Bitbucket users who are allowed: of a workspace, or with access to a repository."""

    workspace: str = ""
    repository: str = ""


class AzureSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The tenant (without discovery), and Microsoft Graph's field for group names."""

    tenant: str = "common"
    graph_group_field: str = ""


class EntraIdSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Allowed tenants (empty: all), and workload identity.

    ``federated_token`` returns the token that replaces the client secret. It is called
    by an `Offload` effect, because it may read a file.
    """

    allowed_tenants: tuple[str, ...] = ()
    federated_token: Callable[[], bytes] | None = None


class LoginGovSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The client's private RSA key (PEM), and the URL of login.gov's public keys."""

    jwt_key: Secret = Secret(b"")
    pubjwk_url: str = ""


class ProviderSettings(ValidatedStruct, frozen=True, kw_only=True):
    """One identity provider.

    ``id`` is stored in login states and sessions. ``code_challenge_method`` "" means S256
    if the provider supports it; "none" disables PKCE. ``hosts`` binds the provider: only
    on these hosts it is offered, and no other provider is. ``public_keys`` are PEM
    texts, used instead of ``jwks_url``. ``resource`` is the resource parameter for
    azure, adfs and providers without ID tokens. ``keycloak_groups`` are the allowed
    groups of the legacy type ``keycloak``.
    """

    id: str
    type: str = "oidc"
    name: str = ""
    hosts: tuple[str, ...] = ()
    client_id: str = ""
    client_secret: Secret = Secret(b"")
    issuer: str = ""
    login_url: str = ""
    redeem_url: str = ""
    profile_url: str = ""
    jwks_url: str = ""
    validate_url: str = ""
    public_keys: tuple[str, ...] = ()
    skip_discovery: bool = False
    scope: str = ""
    resource: str = ""
    response_mode: str = ""
    code_challenge_method: Literal["", "S256", "plain", "none"] = ""
    skip_nonce: bool = False
    skip_issuer_verification: bool = False
    allow_unverified_email: bool = False
    email_claim: str = "email"
    groups_claim: str = "groups"
    audience_claims: tuple[str, ...] = ("aud",)
    extra_audiences: tuple[str, ...] = ()
    additional_claims: tuple[str, ...] = ()
    signing_algs: tuple[str, ...] = ()
    allowed_groups: tuple[str, ...] = ()
    skip_claims_from_profile_url: bool = False
    login_parameters: tuple[LoginParameter, ...] = ()
    backend_logout_url: str = ""
    skip_scope: bool = False
    keycloak_groups: tuple[str, ...] = ()
    github: GithubSettings = GithubSettings()
    gitlab: GitlabSettings = GitlabSettings()
    google: GoogleSettings = GoogleSettings()
    bitbucket: BitbucketSettings = BitbucketSettings()
    azure: AzureSettings = AzureSettings()
    entra_id: EntraIdSettings = EntraIdSettings()
    login_gov: LoginGovSettings = LoginGovSettings()


def provider_problems(providers: tuple[ProviderSettings, ...]) -> list[str]:
    """Return the problems, one line each; with several providers, it names the one."""
    if not providers:
        return ["provider: missing; at least one provider is needed"]
    ids = [provider.id for provider in providers]
    hosts = [host.lower() for provider in providers for host in provider.hosts]
    problems = [
        f"provider: the id {name!r} is used twice"
        for name in sorted({name for name in ids if ids.count(name) > 1})
    ]
    problems += [
        f"hosts: {host!r} is bound to two providers"
        for host in sorted({host for host in hosts if hosts.count(host) > 1})
    ]
    for provider in providers:
        which = f" (provider {provider.id!r})" if len(providers) > 1 else ""
        problems += [f"{problem}{which}" for problem in _problems(provider)]
    return problems


def has_provider_choice(providers: tuple[ProviderSettings, ...]) -> bool:
    """Return whether more than one provider is offered on some host."""
    return sum(not provider.hosts for provider in providers) > 1


def _problems(provider: ProviderSettings) -> Iterator[str]:
    kind = PROVIDER_TYPES.get(provider.type)
    if kind is None:
        yield (
            f"provider: got {provider.type!r}, expected one of "
            f"{', '.join(sorted(PROVIDER_TYPES))}"
        )
        return
    if not provider.id:
        yield "provider: the id is empty"
    if not provider.client_id:
        yield "client_id: missing; expected the id of this client"
    federated = provider.type == "entra-id" and provider.entra_id.federated_token
    if kind.secret and not provider.client_secret and not federated:
        yield "client_secret: missing (or client_secret_file)"
    yield from _endpoint_problems(provider, kind)
    if provider.response_mode not in RESPONSE_MODES:
        yield (
            f"auth_request_response_mode: got {provider.response_mode!r}, "
            "expected 'query' or 'form_post'"
        )
    yield from _group_problems(provider)
    for host in provider.hosts:
        if not is_host_name(host):
            yield f"hosts: got {host!r}, expected a host name"
    yield from _parameter_problems(provider)
    yield from _type_problems(provider)


def _endpoint_problems(provider: ProviderSettings, kind: ProviderType) -> Iterator[str]:
    if kind.discovers:
        yield from _issuer_problems(provider)
        return
    urls = {
        "login_url": provider.login_url,
        "redeem_url": provider.redeem_url,
        "profile_url": provider.profile_url,
        "validate_url": provider.validate_url,
    }
    for option in kind.required_options:
        if not urls[option]:
            yield f"{option}: missing; the provider {provider.type} has no default"
    # Tokens of a self-hosted server must not be sent to the public one.
    if urls["redeem_url"] not in ("", kind.redeem_url):
        for option in ("profile_url", "validate_url"):
            default = getattr(kind, option)
            if default and not urls[option]:
                yield (
                    f"{option}: missing; with another redeem_url, the default {default} "
                    "would receive the tokens of another server"
                )


def _issuer_problems(provider: ProviderSettings) -> Iterator[str]:
    if not provider.issuer:
        yield (
            "oidc_issuer_url: missing; expected the issuer, for Keycloak "
            "'https://HOST/realms/REALM'"
        )
    elif not provider.issuer.startswith(("https://", "http://")):
        yield f"oidc_issuer_url: got {provider.issuer!r}, expected an https:// URL"
    if not provider.skip_discovery:
        return
    needed = {
        "login_url": provider.login_url or provider.type == "azure",
        "redeem_url": provider.redeem_url or provider.type == "azure",
        "oidc_jwks_url": provider.jwks_url or provider.public_keys,
    }
    for option, value in needed.items():
        if not value:
            yield f"{option}: missing; needed with skip_oidc_discovery"
    if provider.jwks_url and provider.public_keys:
        yield (
            "oidc_public_key_files: can't be used with oidc_jwks_url, because the keys "
            "come from one of them"
        )


def _group_problems(provider: ProviderSettings) -> Iterator[str]:
    for option, groups in (
        ("allowed_groups", provider.allowed_groups),
        ("keycloak_groups", provider.keycloak_groups),
        ("gitlab_groups", provider.gitlab.groups),
        ("google_groups", provider.google.groups),
        ("github_users", provider.github.users),
        ("entra_id_allowed_tenants", provider.entra_id.allowed_tenants),
    ):
        if not all(groups):
            kind = "group" if option.endswith("groups") else "entry"
            yield f"{option}: got an empty {kind}, which matches no user"


def _parameter_problems(provider: ProviderSettings) -> Iterator[str]:
    names = [parameter.name for parameter in provider.login_parameters]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"loginURLParameters: the parameter {name!r} is a duplicate"
    if not all(names):
        yield "loginURLParameters: a parameter has no name"
    for parameter in provider.login_parameters:
        for rule in parameter.allow:
            if rule.is_pattern:
                yield from _pattern_problems(parameter.name, rule.text)


def _pattern_problems(name: str, pattern: str) -> Iterator[str]:
    try:
        compile_pattern(pattern)
    except ValueError as error:
        yield f"loginURLParameters: {name} allows the pattern {pattern!r}: {error}"


def _type_problems(provider: ProviderSettings) -> Iterator[str]:
    match provider.type:
        case "github":
            yield from _github_problems(provider.github)
        case "gitlab":
            for project in provider.gitlab.projects:
                path, separator, level = project.partition("=")
                if not path or (separator and level not in PROJECT_LEVELS):
                    yield (
                        f"gitlab_projects: got {project!r}, expected PATH or "
                        f"PATH=LEVEL with a level of {', '.join(PROJECT_LEVELS)}"
                    )
        case "google":
            yield from _google_problems(provider.google)
        case "login.gov" if not provider.login_gov.jwt_key:
            yield "jwt_key: missing (or jwt_key_file); expected a private RSA key"


def _github_problems(github: GithubSettings) -> Iterator[str]:
    if github.team and not github.org:
        for team in github.team.split(","):
            if ":" not in team:
                yield (
                    f"github_team: got {team!r}, expected 'ORG:TEAM' when there is no "
                    "github_org"
                )
    if github.repo and github.repo.count("/") != 1:
        yield f"github_repo: got {github.repo!r}, expected 'OWNER/NAME'"


def _google_problems(google: GoogleSettings) -> Iterator[str]:
    has_credentials = bool(google.credentials or google.metadata_server)
    if has_credentials and not google.admin_email:
        yield "google_admin_email: missing; expected the administrator to impersonate"
    if google.admin_email and not has_credentials:
        yield (
            "google_service_account_json: missing (or "
            "google_use_application_default_credentials), needed with "
            "google_admin_email"
        )
    if not has_credentials and (google.groups or google.use_organization_id):
        option = "google_groups" if google.groups else "google_use_organization_id"
        yield (
            f"{option}: needs google_admin_email and google_service_account_json (or "
            "google_use_application_default_credentials) to read Google's directory"
        )
