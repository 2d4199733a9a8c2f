"""Which types of provider there are."""

from __future__ import annotations

from collections.abc import Mapping

from .base import Provider
from .keycloak import KeycloakOidc

PROVIDERS: Mapping[str, type[Provider]] = {
    "oidc": Provider,
    "keycloak-oidc": KeycloakOidc,
}
