"""Convert configurations of vouch-proxy and traefik-forward-auth, and load the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from authproxy.commands.explain import explain_request, parse_arguments
from authproxy.config.load import load_settings
from authproxy.migration import forward_auth, vouch
from authproxy.migration.configuration import NamedText
from authproxy.migration.converted import PLACEHOLDERS, Converted
from authproxy.server_settings import ServerSettings

VOUCH = """
vouch: {{domains: [example.com]{vouch}}}
oauth: {{provider: {provider}, client_id: web, client_secret: top-secret{oauth}}}
"""
FORWARD_AUTH = """
# traefik-forward-auth
default-provider = oidc
providers.oidc.issuer-url = https://idp.example.com
providers.oidc.client-id = web
providers.oidc.client-secret = "top-secret"
secret = top-secret
"""


def load(converted: Converted, folder: Path) -> ServerSettings:
    """Load the printed configuration, which contains no secret."""
    text = converted.format()
    assert "top-secret" not in text
    assert converted.problems() == ()
    file = folder / "authproxy.cfg"
    file.write_text(text)
    return load_settings(["--config", str(file)], PLACEHOLDERS)


def from_vouch(text: str) -> Converted:
    return vouch.convert_vouch(NamedText("config.yml", text))


def from_forward_auth(text: str, flags: Sequence[str] = ()) -> Converted:
    return forward_auth.convert_forward_auth([NamedText("file.ini", text)], flags)


def decision(settings: ServerSettings, *arguments: str) -> str:
    """Return the decision for an auth check, such as "allowed"."""
    request, _ = parse_arguments(arguments)
    *_, line = explain_request(settings.core, request)
    return line.removeprefix("auth check of a gateway: ").partition(":")[0]
