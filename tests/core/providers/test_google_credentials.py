"""Google: other credentials of the directory: metadata server, user credentials."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from authproxy_core import Fetch, Secret, SettingsError
from authproxy_core.messages import Response
from authproxy_core.settings.providers import GoogleSettings
from support.endpoints import (
    Endpoints,
    Turns,
    field,
    form,
    json,
    private_pem,
    status,
)
from support.google import (
    ACCOUNT,
    DIRECTORY,
    EXCHANGE,
    GRANTED,
    METADATA,
    SIGN_JWT,
    workspace,
)


def sign_jwt(fetch: Fetch) -> Response:
    """Return the response of signJwt for the request's payload."""
    return json({"keyId": "k", "signedJwt": orjson.loads(fetch.body)["payload"]})


def impersonate(
    responses: dict[str, Any], credentials: dict[str, Any] | None = None, **more: Any
) -> Endpoints:
    return workspace(
        {f"GET {DIRECTORY}/groups": {}, **responses},
        google={
            "credentials": Secret(orjson.dumps(credentials) if credentials else b""),
            "metadata_server": credentials is None,
            **more,
        },
        ready=False,
    )


def test_metadata_server_credentials_sign_with_google() -> None:
    principal = "vm@p.iam.gserviceaccount.com"
    idp = impersonate(
        {
            f"GET {METADATA}/token": {"access_token": "vm-1", "expires_in": 3599},
            f"GET {METADATA}/email": Response(200, (), principal.encode()),
            f"POST {SIGN_JWT}/vm%40p.iam.gserviceaccount.com:signJwt": sign_jwt,
        }
    )
    idp.harness.run(idp.harness.proxy.warm_up())
    assert idp.log_in().status == 302
    token, email, sign, exchange = idp.requests("directory")
    assert field(token, b"metadata-flavor") == b"Google"
    assert field(email, b"metadata-flavor") == b"Google"
    assert field(sign, b"authorization") == b"Bearer vm-1"
    claims = orjson.loads(form(exchange)["assertion"])
    assert (claims["iss"], claims["sub"]) == (principal, "admin@example.com")


def test_authorized_user_credentials_sign_with_google() -> None:
    idp = impersonate(
        {
            EXCHANGE: Turns({"access_token": "user-1"}, GRANTED),
            f"POST {SIGN_JWT}/sa%40p:signJwt": sign_jwt,
        },
        {
            "type": "authorized_user",
            "client_id": "c",
            "client_secret": "s",
            "refresh_token": "r",
        },
        target_principal="sa@p",
    )
    idp.harness.run(idp.harness.proxy.warm_up())
    refresh, sign, exchange = idp.requests("directory")
    assert form(refresh) == {
        "grant_type": "refresh_token",
        "client_id": "c",
        "client_secret": "s",
        "refresh_token": "r",
    }
    assert field(sign, b"authorization") == b"Bearer user-1"
    assert orjson.loads(form(exchange)["assertion"])["iss"] == "sa@p"


@pytest.mark.parametrize("response", [status(403), {"keyId": "k"}])
def test_unsigned_assertion_fails_login(response: Any) -> None:
    good = {"access_token": "vm-1"}
    idp = impersonate(
        {
            f"GET {METADATA}/token": good,
            f"POST {SIGN_JWT}/sa:signJwt": Turns(response, sign_jwt),
        },
        target_principal="sa",
    )
    idp.harness.run(idp.harness.proxy.warm_up())
    assert [event.kind for event in idp.harness.events] == [
        "provider_failed",
        "provider_ready",
    ]


def test_service_account_email_required_for_signing() -> None:
    responses = {
        f"GET {METADATA}/token": {"access_token": "vm-1"},
        f"GET {METADATA}/email": Turns(status(404), Response(200, (), b"sa")),
        f"POST {SIGN_JWT}/sa:signJwt": sign_jwt,
    }
    idp = impersonate(responses)
    idp.harness.run(idp.harness.proxy.warm_up())
    assert idp.harness.events[0].reason == "directory_failed"


@pytest.mark.parametrize(
    ("credentials", "text"),
    [
        (b"no json", "expected JSON"),
        (b"[]", "expected credentials of type service_account or authorized_user"),
        (orjson.dumps({"type": "external_account"}), "expected credentials of type"),
        (orjson.dumps({"type": "authorized_user"}), "requires google_target_principal"),
        (orjson.dumps({**ACCOUNT, "private_key": "x"}), ""),
        (
            orjson.dumps(
                {
                    **ACCOUNT,
                    "private_key": private_pem(
                        ec.generate_private_key(ec.SECP256R1())
                    ).decode(),
                }
            ),
            "expected an RSA key",
        ),
        (orjson.dumps({**ACCOUNT, "client_email": None}), "client_email"),
    ],
)
def test_invalid_credentials_rejected_at_startup(credentials: bytes, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        workspace(google={"credentials": Secret(credentials)})
    [problem] = caught.value.problems
    assert problem.startswith("google_service_account_json: ")
    assert text in problem


def test_repr_hides_credentials() -> None:
    from authproxy_core.providers.adapters.google_directory import Directory

    settings = GoogleSettings(
        admin_email="a@b.c", credentials=Secret(orjson.dumps(ACCOUNT))
    )
    directory = Directory(settings, lambda: 0.0)
    shown = f"{settings!r} {directory._account!r} {directory._account.key!r}"
    assert "PRIVATE" not in shown
    assert "proxy@p.iam" in shown


def test_adopt_cache_keeps_directory_with_equal_settings() -> None:
    idp = workspace({f"GET {DIRECTORY}/groups": {}})
    [provider] = idp.harness.settings.providers
    named = replace(provider, name="Staff")
    other = replace(provider, google=replace(provider.google, admin_email="b@b.c"))
    same = idp.harness.proxy.with_settings(
        replace(idp.harness.settings, providers=(named,))
    )
    assert same.ready
    new = idp.harness.proxy.with_settings(
        replace(idp.harness.settings, providers=(other,))
    )
    assert not new.ready
    idp.harness.run(new.warm_up())
    assert new.ready
    github = replace(provider, type="github")
    assert idp.harness.proxy.with_settings(
        replace(idp.harness.settings, providers=(github,))
    ).ready
