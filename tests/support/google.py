"""Double of Google: OpenID Connect and the Workspace directory."""

from __future__ import annotations

from typing import Any

import orjson
from joserfc.jwk import RSAKey

from authproxy_core import Secret
from authproxy_core.settings.providers import GoogleSettings
from support.endpoints import (
    Endpoints,
    json,
    jwks,
)

ISSUER = "https://accounts.google.com"
TOKEN_URL = "POST https://www.googleapis.com/oauth2/v3/token"
EXCHANGE = "POST https://oauth2.googleapis.com/token"
DIRECTORY = "https://admin.googleapis.com/admin/directory/v1"
METADATA = (
    "http://metadata.google.internal/computeMetadata/v1/instance/"
    "service-accounts/default"
)
SIGN_JWT = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
ALICE = {"email": "alice@example.com", "email_verified": True, "hd": "example.com"}
KEY = RSAKey.generate_key(2048)
GRANTED = {"access_token": "directory-1", "expires_in": 3599, "token_type": "Bearer"}
REFUSED = json({"error": "unauthorized_client"}, 401)
ACCOUNT = {
    "type": "service_account",
    "project_id": "p",
    "private_key_id": "kid-1",
    "private_key": KEY.as_pem(private=True).decode(),
    "client_email": "proxy@p.iam.gserviceaccount.com",
    "client_id": "1",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def google(
    responses: dict[str, Any] | None = None,
    *,
    claims: dict[str, Any] | None = None,
    **more: Any,
) -> Endpoints:
    idp = Endpoints(
        "google",
        {
            "GET https://www.googleapis.com/oauth2/v3/certs": jwks(),
            EXCHANGE: GRANTED,
            **(responses or {}),
        },
        claims={"iss": ISSUER, **(ALICE if claims is None else claims)},
        **more,
    )
    idp.responses.setdefault(TOKEN_URL, idp.tokens())
    return idp


def workspace(responses: dict[str, Any] | None = None, **more: Any) -> Endpoints:
    """Google with a service account."""
    return google(
        responses,
        google=GoogleSettings(
            admin_email="admin@example.com",
            **{"credentials": Secret(orjson.dumps(ACCOUNT)), **more.pop("google", {})},
        ),
        **more,
    )
