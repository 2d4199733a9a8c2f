"""ID token: claims, signature and key set (OIDC Core §3.1.3.7)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from authproxy_core.providers.jwks import REFETCH_INTERVAL
from support.harness import (
    ISSUER,
    START,
    UNUSABLE_KEYS,
    Harness,
    event_reasons,
    settings,
    target_of,
)


def test_audience_missing_explains_keycloak_mapper(harness: Harness) -> None:
    harness.config.id_token_claims["aud"] = "account"
    response = harness.log_in()
    assert response.status == 403
    assert b"audience" in response.body
    detail = response.events[0].detail
    assert "expected audience 'authproxy' in the claim aud, got 'account'" in detail
    assert "Client scopes -> authproxy-dedicated" in detail
    assert "Included Client Audience: authproxy" in detail


def test_audience_missing_names_option_for_other_providers() -> None:
    harness = Harness(settings(provider={"type": "oidc"}))
    harness.config.id_token_claims["aud"] = "account"
    assert "oidc_extra_audiences" in harness.log_in().events[0].detail


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://other.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"iss": ISSUER + "/"}, "issuer"),
        ({"iss": [ISSUER]}, "issuer"),
        ({"aud": None}, "audience"),
        ({"aud": 7}, "audience"),
        ({"aud": {"authproxy": 1}}, "audience"),
        ({"aud": [7, None]}, "audience"),
        ({"aud": ["authproxy", "other"], "azp": None}, "authorized_party"),
        ({"azp": "other"}, "authorized_party"),
        ({"azp": 7}, "authorized_party"),
        ({"exp": START - 31}, "expired"),
        ({"exp": None}, "malformed"),
        ({"exp": "soon"}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"iat": START + 31}, "clock_skew"),
        ({"iat": None}, "malformed"),
        ({"iat": 1e300}, "clock_skew"),
        ({"nbf": START + 31}, "clock_skew"),
        ({"sub": None}, "subject"),
        ({"sub": ""}, "subject"),
        ({"sub": 7}, "subject"),
        ({"sub": "a\r\nb"}, "subject"),
        ({"sub": "x" * 10_000}, "subject"),
        ({"nonce": None}, "nonce"),
        ({"nonce": "other"}, "nonce"),
        ({"nonce": 7}, "nonce"),
        ({"at_hash": "AAAA"}, "at_hash"),
        ({"at_hash": 7}, "at_hash"),
        ({"events": {}}, "type"),
    ],
)
def test_jw16_to_jw37_lg29_invalid_claims_fail_login(
    harness: Harness, claims: dict[str, Any], reason: str
) -> None:
    harness.config.id_token_claims.update(claims)
    response = harness.log_in()
    forbidden = reason in ("audience", "authorized_party", "nonce")
    assert response.status == (403 if forbidden else 500)
    assert event_reasons(response) == [reason]
    assert b"_oauth2_proxy" not in harness.jar


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": ["authproxy", "account"], "azp": "authproxy"},
        {"aud": ["authproxy"], "azp": None},
        {"exp": START - 29},
        {"iat": START + 29},
        {"nbf": START + 29},
        {"nbf": START - 5},
        {"at_hash": None},
    ],
)
def test_valid_claims_accepted(harness: Harness, claims: dict[str, Any]) -> None:
    harness.config.id_token_claims.update(claims)
    assert harness.log_in().status == 302


def test_extra_audiences_and_audience_claims_accepted() -> None:
    harness = Harness(
        settings(
            provider={"audience_claims": ("x", "aud"), "extra_audiences": ("account",)}
        )
    )
    harness.config.id_token_claims["aud"] = ["account", "authproxy"]
    assert harness.log_in().status == 302
    harness.config.id_token_claims["x"] = "other"
    assert event_reasons(harness.log_in()) == ["audience"]


def test_issuer_check_disabled_accepts_other_issuer() -> None:
    harness = Harness(settings(provider={"skip_issuer_verification": True}))
    harness.config.id_token_claims["iss"] = "https://other.test"
    assert harness.log_in().status == 302


def test_clock_skew_shows_error_page(harness: Harness) -> None:
    harness.config.clock_offset = 3600.0
    response = harness.log_in()
    assert event_reasons(response) == ["clock_skew"]
    assert b"clocks" in response.body
    assert "3600 s in the future" in response.events[0].detail
    assert "clock_skew" in response.events[0].detail


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_id_token_with_common_algorithm_accepted(alg: str) -> None:
    harness = Harness(ready=False)
    harness.config.signing_alg = alg  # type: ignore[assignment]
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302


def test_jwks_unusable_keys_skipped() -> None:
    harness = Harness(ready=False)
    harness.config.jwks_before = UNUSABLE_KEYS
    harness.run(harness.proxy.warm_up())
    assert harness.log_in().status == 302


def test_jw29_rotated_keys_fetched_once(harness: Harness) -> None:
    harness.clock.now += 60
    harness.idp.rotate_keys(keep_old=False)
    before = harness.idp.count("jwks")
    assert harness.log_in().status == 302
    assert harness.log_in("bob").status == 302
    assert harness.idp.count("jwks") == before + 1


def test_jw10_jw11_unknown_keys_limit_fetches(harness: Harness) -> None:
    harness.clock.now += 60
    harness.config.id_token_header["kid"] = "unknown"
    before, start = harness.idp.count("jwks"), harness.clock.now
    for _ in range(20):
        assert event_reasons(harness.log_in()) == ["unknown_key"]
    waited = harness.clock.now - start
    assert harness.idp.count("jwks") - before <= 1 + waited / REFETCH_INTERVAL


def test_jw28_jwks_failure_keeps_old_keys(harness: Harness) -> None:
    harness.clock.now += 4000
    harness.config.failing["jwks"] = 500
    assert harness.log_in().status == 302


def test_jwks_fetched_while_waiting_not_fetched_again(harness: Harness) -> None:
    """While one login waits for the lock, another may fetch the keys."""
    harness.clock.now += 60
    harness.idp.rotate_keys(keep_old=False)
    url = harness.idp.log_in(harness.start_login(), "alice")
    provider = harness.proxy._providers["keycloak"]
    done = []

    original = harness.perform

    def perform(effect: Any) -> Any:
        if type(effect).__name__ == "Lock" and not done:
            done.append(1)
            harness.run(provider._keys.fetch(f"{ISSUER}/jwks"))
        return original(effect)

    harness.perform = perform  # type: ignore[method-assign]
    assert harness.get(target_of(url)).status == 302


def test_jw01_to_jw08_forged_tokens_rejected(harness: Harness) -> None:
    def broken(token: str) -> list[str]:
        head, body, signature = token.split(".")
        return [
            "",
            "x",
            token + "x",
            token[:-4],
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{head}.{body}.{signature}.{signature}",
            f"{head}.{body}.{signature}.{signature}.{signature}",
            f"{head}=.{body}.{signature}",
            f"{head}.{body} .{signature}",
            "eyJhbGciOiJub25lIn0.e30.AAAA",
            "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
            "e30.e30.AAAA",
            "W10.e30.AAAA",
            "bnVsbA.e30.AAAA",
            "AAAA.e30.AAAA",
            "x" * 100_000,
            "\u00e9.e30.AAAA",
        ]

    for number in range(len(broken("a.b.c"))):
        harness.jar.clear()
        harness.config.id_token_filter = lambda token, number=number: broken(token)[
            number
        ]
        response = harness.log_in()
        assert response.status == 500, number
        assert b"_oauth2_proxy" not in harness.jar


@pytest.mark.parametrize(
    ("header_change", "reason"),
    [
        ({"alg": "RS512"}, "algorithm"),
        ({"alg": ["RS256"]}, "algorithm"),
        ({"alg": None}, "algorithm"),
        ({"kid": 7}, "malformed"),
        ({"crit": ["x"]}, "malformed"),
        ({"typ": "logout+jwt"}, "type"),
        ({"typ": "at+jwt"}, "type"),
    ],
)
def test_jw04_invalid_jose_headers_rejected(
    harness: Harness, header_change: dict[str, Any], reason: str
) -> None:
    harness.config.id_token_filter = lambda token: with_header(token, header_change)
    assert event_reasons(harness.log_in()) == [reason]


def with_header(token: str, changes: dict[str, Any]) -> str:
    from authproxy_core.encoding import b64url, b64url_decode

    head, body, signature = token.split(".")
    decoded = msgspec.json.decode(b64url_decode(head.encode()) or b"")
    fields = {k: v for k, v in (decoded | changes).items() if v is not None}
    return f"{b64url(msgspec.json.encode(fields)).decode()}.{body}.{signature}"


def test_jw14_keys_in_jose_header_not_fetched(harness: Harness) -> None:
    harness.config.id_token_header.update(
        {"jku": "https://evil.test/jwks", "x5u": "https://evil.test/x"}
    )
    harness.log_in()
    assert all(effect.url.startswith(ISSUER) for effect in harness.fetched)


def test_id_token_without_key_id_verified_with_all_keys(harness: Harness) -> None:
    harness.idp.rotate_keys()
    harness.config.id_token_header["kid"] = None
    harness.clock.now += 60
    assert harness.log_in().status == 302
