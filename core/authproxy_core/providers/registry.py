"""Registry of provider types."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..settings.root import ProviderSettings
from .adapters import bitbucket, github, profiles
from .adapters.adfs import Adfs
from .adapters.azure import Azure
from .adapters.cidaas import Cidaas
from .adapters.entra import EntraId
from .adapters.gitlab import Gitlab
from .adapters.google import Google
from .adapters.keycloak import KeycloakOidc
from .adapters.login_gov import LoginGov
from .adapters.profile import ProfileProvider, Reader
from .base import Provider

OPENID_PROVIDERS: Mapping[str, type[Provider]] = {
    "oidc": Provider,
    "keycloak-oidc": KeycloakOidc,
    "entra-id": EntraId,
    "azure": Azure,
    "adfs": Adfs,
    "gitlab": Gitlab,
    "cidaas": Cidaas,
    "google": Google,
    "login.gov": LoginGov,
}
PROFILE_READERS: Mapping[str, Reader] = {
    "github": github.read_github,
    "bitbucket": bitbucket.read_bitbucket,
    "digitalocean": profiles.read_digitalocean,
    "facebook": profiles.read_facebook,
    "linkedin": profiles.read_linkedin,
    "sourcehut": profiles.read_sourcehut,
    "keycloak": profiles.read_keycloak,
    "nextcloud": profiles.read_nextcloud,
}


def create_provider(
    settings: ProviderSettings,
    *,
    clock: Callable[[], float],
    leeway: float,
    extra_claims: tuple[str, ...],
) -> Provider:
    """Return the provider for *settings*; raises `SettingsError` for invalid keys."""
    read = PROFILE_READERS.get(settings.type)
    if read is not None:
        return ProfileProvider(settings, read=read, clock=clock, leeway=leeway)
    kind = OPENID_PROVIDERS[settings.type]
    return kind(settings, clock=clock, leeway=leeway, extra_claims=extra_claims)
