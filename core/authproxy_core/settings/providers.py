"""One identity provider as configured, and what is wrong with it.

What only one type of provider reads is in a struct of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ..encoding import host_is_valid
from ..go_regex import compile_pattern
from .provider_types import PROVIDER_TYPES, ProviderType
from .secret import Secret
from .validation import ValidatedStruct

RESPONSE_MODES = ("", "query", "form_post")
PROJECT_LEVELS = ("10", "20", "30", "40")


class AllowRule(ValidatedStruct, frozen=True):
    """A value that a browser may choose: this text, or whatever the pattern finds.

    Patterns are Go's regular expressions, searched anywhere in the value.
    """

    text: str
    is_pattern: bool = False


class LoginParameter(ValidatedStruct, frozen=True):
    """An extra parameter of the authorization request.

    ``values`` are sent unless the request for the login brings one that a rule of
    ``allow`` matches. Without rules the parameter is fixed.
    """

    name: str
    values: tuple[str, ...] = ()
    allow: tuple[AllowRule, ...] = ()


class GithubSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Who comes in through GitHub; ``team`` has commas between several teams.

    ``token`` reads the collaborators of ``repo``; ``users`` come in whatever else is
    demanded.
    """

    org: str = ""
    team: str = ""
    repo: str = ""
    token: Secret = Secret(b"")
    users: tuple[str, ...] = ()


class GitlabSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Who comes in through GitLab; projects as ``path`` or ``path=level``."""

    groups: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()


class GoogleSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Who comes in through Google, and how its directory is asked.

    ``credentials`` is the JSON of a service account (or of a user's application
    default credentials); ``metadata_server`` asks Google's machines for a token
    instead. ``admin_email`` is impersonated, by way of ``target_principal`` when the
    credentials are not a service account's own.
    """

    groups: tuple[str, ...] = ()
    admin_email: str = ""
    credentials: Secret = Secret(b"")
    metadata_server: bool = False
    target_principal: str = ""
    use_organization_id: bool = False
    admin_api_user_scope: str = ""


class BitbucketSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Who comes in through Bitbucket: of a workspace, or with access to a repository."""

    team: str = ""
    repository: str = ""


class AzureSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The tenant (without discovery), and the field of Graph that names a group."""

    tenant: str = "common"
    graph_group_field: str = ""


class EntraIdSettings(ValidatedStruct, frozen=True, kw_only=True):
    """Tenants that are let in (none: all), and workload identity.

    ``federated_token`` reads the token that stands for a client secret; it is called
    through an effect, for it may have to read a file.
    """

    allowed_tenants: tuple[str, ...] = ()
    federated_token: Callable[[], bytes] | None = None


class LoginGovSettings(ValidatedStruct, frozen=True, kw_only=True):
    """The private RSA key (PEM) that signs for the client, and login.gov's keys."""

    jwt_key: Secret = Secret(b"")
    pubjwk_url: str = ""


class ProviderSettings(ValidatedStruct, frozen=True, kw_only=True):
    """One identity provider.

    ``id`` stands in login states and sessions. ``code_challenge_method`` "" means S256
    when the provider understands it; "none" switches PKCE off. ``hosts`` binds: on
    those hosts this provider is offered alone, and nowhere else. ``public_keys`` are
    PEM texts, used instead of ``jwks_url``. ``resource`` is what azure and adfs, and
    providers without ID tokens, are asked for a token to. ``keycloak_groups`` are the
    allowed groups of the old type ``keycloak``.
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
    """One line for each thing that is wrong; with several providers it names which."""
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


def offers_a_choice(providers: tuple[ProviderSettings, ...]) -> bool:
    """Whether there is a host on which more than one provider is offered."""
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
        if not host_is_valid(host):
            yield f"hosts: got {host!r}, expected a host name"
    yield from _parameter_problems(provider)
    yield from _of_one_type(provider)


def _endpoint_problems(provider: ProviderSettings, kind: ProviderType) -> Iterator[str]:
    if kind.discovers:
        yield from _issuer_problems(provider)
        return
    given = {
        "login_url": provider.login_url,
        "redeem_url": provider.redeem_url,
        "profile_url": provider.profile_url,
        "validate_url": provider.validate_url,
    }
    for option in kind.demands:
        if not given[option]:
            yield f"{option}: missing; the provider {provider.type} has no default"
    # The tokens of a server of one's own must not be sent to the public one.
    if given["redeem_url"] not in ("", kind.redeem_url):
        for option in ("profile_url", "validate_url"):
            default = getattr(kind, option)
            if default and not given[option]:
                yield (
                    f"{option}: missing; with a redeem_url of its own the default "
                    f"{default} would get the tokens of another server"
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
            "oidc_public_key_files: can't be used with oidc_jwks_url, the keys come "
            "from one of them"
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
            yield f"{option}: got an empty {kind}; an empty entry would mean nobody"


def _parameter_problems(provider: ProviderSettings) -> Iterator[str]:
    names = [parameter.name for parameter in provider.login_parameters]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"loginURLParameters: the parameter {name!r} is there twice"
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


def _of_one_type(provider: ProviderSettings) -> Iterator[str]:
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
    asks = bool(google.credentials or google.metadata_server)
    if asks and not google.admin_email:
        yield "google_admin_email: missing; an administrator is impersonated"
    if google.admin_email and not asks:
        yield (
            "google_service_account_json: missing (or "
            "google_use_application_default_credentials), needed with "
            "google_admin_email"
        )
    if not asks and (google.groups or google.use_organization_id):
        option = "google_groups" if google.groups else "google_use_organization_id"
        yield (
            f"{option}: needs google_admin_email and google_service_account_json (or "
            "google_use_application_default_credentials) to ask Google's directory"
        )
