"""Which types of provider there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..settings import ProviderSettings
from . import bitbucket, github, profiles
from .adfs import Adfs
from .azure import Azure
from .base import Provider
from .cidaas import Cidaas
from .entra import EntraId
from .gitlab import Gitlab
from .google import Google
from .keycloak import KeycloakOidc
from .login_gov import LoginGov
from .profile import ProfileProvider, Reader

OPENID: Mapping[str, type[Provider]] = {
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
PROFILES: Mapping[str, Reader] = {
    "github": github.read,
    "bitbucket": bitbucket.read,
    "digitalocean": profiles.read_digitalocean,
    "facebook": profiles.read_facebook,
    "linkedin": profiles.read_linkedin,
    "sourcehut": profiles.read_sourcehut,
    "keycloak": profiles.read_keycloak,
    "nextcloud": profiles.read_nextcloud,
}


def build(
    settings: ProviderSettings,
    *,
    clock: Callable[[], float],
    leeway: float,
    extra_claims: tuple[str, ...],
) -> Provider:
    """The provider for *settings*; raises `SettingsError` for keys that can't be used."""
    read = PROFILES.get(settings.type)
    if read is not None:
        return ProfileProvider(settings, read=read, clock=clock, leeway=leeway)
    kind = OPENID[settings.type]
    return kind(settings, clock=clock, leeway=leeway, extra_claims=extra_claims)
