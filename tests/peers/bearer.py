"""An ID token of the client, as an API client would send it."""

from __future__ import annotations

import json
import urllib.parse

from authproxy_core.effects import Fetch
from authproxy_devprovider.provider import DevProvider
from support.keycloak import CLIENT_ID, CLIENT_SECRET

REDIRECT_URI = "https://app.example.com/oauth2/callback"


def id_token(provider: DevProvider, user: str = "alice") -> str:
    """Return an ID token for *user*, obtained from the provider directly."""
    issuer = provider.config.issuer
    parameters = {
        "client_id": CLIENT_ID,
        "redirect_uri": REDIRECT_URI,
        "response_type": "code",
        "scope": "openid email profile",
    }
    callback = provider.log_in(
        f"{issuer}/authorize?{urllib.parse.urlencode(parameters)}", user
    )
    [code] = urllib.parse.parse_qs(urllib.parse.urlsplit(callback).query)["code"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    headers = ((b"content-type", b"application/x-www-form-urlencoded"),)
    body = urllib.parse.urlencode(form).encode()
    response = provider.fetch(Fetch("POST", f"{issuer}/token", headers, body))
    token: str = json.loads(response.body)["id_token"]
    return token
