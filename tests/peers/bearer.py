"""An ID token as some other program of the same client would bring it."""

from __future__ import annotations

import json
import urllib.parse

from authproxy_core.effects import Fetch
from authproxy_devprovider.provider import DevProvider
from support.keycloak import CLIENT_ID, CLIENT_SECRET

REDIRECT_URI = "https://app.example.com/oauth2/callback"


def id_token(provider: DevProvider, user: str = "alice") -> str:
    """A token of *user* for the client, straight from the provider."""
    issuer = provider.config.issuer
    asked = {
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "response_type": "code",
        "scope": "openid email profile",
    }
    callback = provider.log_in(
        f"{issuer}/authorize?{urllib.parse.urlencode(asked)}", user
    )
    [code] = urllib.parse.parse_qs(urllib.parse.urlsplit(callback).query)["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    kind = ((b"content-type", b"application/x-www-form-urlencoded"),)
    body = urllib.parse.urlencode(form).encode()
    answer = provider.fetch(Fetch("POST", f"{issuer}/token", kind, body))
    token: str = json.loads(answer.body)["id_token"]
    return token
