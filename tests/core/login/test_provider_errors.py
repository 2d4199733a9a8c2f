"""Errors of the provider in the log, and failures that a client alone can cause."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import Respond, Secret
from authproxy_core.messages import Response
from authproxy_core.oidc.provider_errors import (
    MAX_DESCRIPTION_LENGTH,
    safe_description,
    safe_error_code,
)
from authproxy_core.settings.root import PageSettings
from support.endpoints import ISSUER, Endpoints, form, json
from support.openid import openid

CALLBACK = "https://app.example.com/oauth2/callback"


def failed_callback(idp: Endpoints, **parameters: str) -> Respond:
    """Return the response to a callback with an error."""
    state = idp.start_login()["state"]
    return idp.harness.get(
        f"/oauth2/callback?{urlencode({'state': state} | parameters)}"
    )


def rejected_code(document: Any, status: int = 400, **changes: Any) -> Respond:
    """Return the response to a callback whose code the provider rejects."""
    idp = openid("oidc", {f"POST {ISSUER}/token": json(document, status)}, **changes)
    return idp.log_in()


# -- errors in the callback


@pytest.mark.parametrize(
    ("code", "description", "hint"),
    [
        ("invalid_scope", "Invalid scopes: openid groups", "Create client scope"),
        ("invalid_scope", "", "'openid email profile'"),
        ("unauthorized_client", "Client not allowed", "Standard flow"),
        ("invalid_request", "redirect_uri does not match", f"was sent: {CALLBACK}"),
        ("server_error", "Try later", "'server_error': 'Try later'"),
    ],
)
def test_callback_error_description_and_hint_logged(
    code: str, description: str, hint: str
) -> None:
    response = failed_callback(
        openid("oidc"), error=code, error_description=description
    )
    assert response.status == 403
    [event] = response.events
    assert event.reason == code
    assert hint in event.detail
    assert description in event.detail
    if description:
        assert description.encode() not in response.body


def test_callback_error_of_missing_scope_has_its_page() -> None:
    response = failed_callback(openid("oidc"), error="invalid_scope")
    assert b"does not know a scope" in response.body


def test_callback_error_description_shown_escaped_with_debug_only() -> None:
    markup = "<img src=x onerror=alert(1)>"
    for debug in (False, True):
        idp = openid("oidc", core={"pages": PageSettings(show_debug_on_error=debug)})
        response = failed_callback(
            idp, error="server_error", error_description=markup + "y" * 5000
        )
        assert b"<img" not in response.body
        assert (b"&lt;img src=x" in response.body) is debug
        assert b"y" * 400 not in response.body
        assert len(response.events[0].detail) < 600


# -- errors of the token endpoint


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [
        ({"error": "invalid_grant"}, 403, "invalid_grant"),
        ({"error": "invalid_request"}, 403, "invalid_request"),
        ({"error": {"code": 100, "type": "OAuthException"}}, 403, None),
        ({}, 403, None),
        ({"error": "bad_verification_code"}, 403, "bad_verification_code"),
        ({"error": "invalid_client"}, 500, "invalid_client"),
        ({"error": "unsupported_grant_type"}, 500, "unsupported_grant_type"),
    ],
)
def test_rejected_code_is_client_error(
    document: Any, status: int, reason: str | None
) -> None:
    response = rejected_code(document)
    assert response.status == status
    assert response.events[0].reason == (reason or "token_endpoint_rejected")


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
def test_failing_token_endpoint_is_no_client_error(status: int) -> None:
    response = rejected_code({}, status)
    assert response.status == 500
    assert response.events[0].reason == "token_endpoint_failed"


def test_token_error_description_logged_without_secrets() -> None:
    def response(fetch: Any) -> Response:
        sent = form(fetch)
        text = f"Code {sent['code']} of hush-hush, verifier {sent['code_verifier']}"
        return json({"error": "invalid_grant", "error_description": text}, 400)

    idp = openid(
        "oidc",
        {f"POST {ISSUER}/token": response},
        client_secret=Secret("hush-hush"),
        code_challenge_method="S256",
    )
    [event] = idp.log_in().events
    assert "'invalid_grant': 'Code ... of ..., verifier ...'" in event.detail


@pytest.mark.parametrize("code", ["invalid_grant", "redirect_uri_mismatch"])
def test_token_error_about_redirect_uri_names_the_sent_one(code: str) -> None:
    text = "Incorrect redirect_uri"
    [event] = rejected_code({"error": code, "error_description": text}).events
    assert event.detail.endswith(f"register the callback URL that was sent: {CALLBACK}")


def test_token_error_of_other_cause_does_not_blame_redirect_uri() -> None:
    text = "Code not valid"
    document = {"error": "invalid_grant", "error_description": text}
    [event] = rejected_code(document).events
    assert text in event.detail
    assert CALLBACK not in event.detail


# -- texts


@given(st.text(), st.lists(st.text(min_size=6, max_size=12), max_size=3))
def test_description_is_one_bounded_printable_line(
    text: str, secrets: list[str]
) -> None:
    found = safe_description(text, secrets)
    assert found.isprintable()
    assert len(found) <= MAX_DESCRIPTION_LENGTH + 3
    assert safe_description(found) == found or len(found) > MAX_DESCRIPTION_LENGTH


@pytest.mark.parametrize("value", [None, 1, ["x"], {"a": "b"}])
def test_description_of_other_type_left_out(value: Any) -> None:
    assert safe_description(value) == ""


def test_description_keeps_text_equal_to_short_secrets() -> None:
    assert safe_description("Code is odd", ["", "o", "Code"]) == "Code is odd"
    assert safe_description("Code is odd", ["is odd"]) == "Code ..."


def test_description_that_is_long_is_cut() -> None:
    found = safe_description("word " * 500)
    assert len(found) == MAX_DESCRIPTION_LENGTH + 3
    assert found.endswith("...")


def test_description_masks_tokens_but_no_hosts() -> None:
    text = f"at {'a' * 40} and {CALLBACK} and 123e4567-e89b-12d3-a456-426614174000"
    found = safe_description(text)
    assert found == text.replace("a" * 40, "...")


def test_error_code_of_other_form_replaced() -> None:
    assert safe_error_code("invalid_scope") == "invalid_scope"
    for code in ("", "a b", "<b>", "x" * 65, "a\n"):
        assert safe_error_code(code) == "invalid error code"
