"""Token issuer: start a login, redeem its code, refresh and revoke its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from authproxy_core.encoding import b64url

from . import documents
from .config import Overrides, ProviderConfig, User, merge
from .grants import Authorization, ExpiringDict, Login
from .protocol import OAuthError, check_verifier
from .signing import SigningKeys


class TokenIssuer:
    """Issues, redeems and revokes codes and tokens; raises `OAuthError`.

    *clock* returns seconds since the epoch.
    """

    def __init__(
        self,
        config: ProviderConfig,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.keys = SigningKeys()
        self._config = config
        self._now = clock
        self._random_bytes = random_bytes
        self._codes: ExpiringDict[Login] = ExpiringDict()
        self._refresh_tokens: ExpiringDict[Login] = ExpiringDict()
        self._access_tokens: ExpiringDict[Login] = ExpiringDict()

    def start_login(self, authorization: Authorization, user: User) -> str:
        """Start a login; returns its authorization code."""
        now, code = self._now(), self._random_text()
        login = Login(
            sid=self._random_text(),
            user=user,
            authorization=authorization,
            auth_time=now,
        )
        # A used code is stored as long as its tokens, so that reuse revokes them
        # (RFC 6749 §4.1.2). `redeem` checks the short lifetime of the code itself.
        lifetime = self._config.refresh_token_lifetime + self._config.code_lifetime
        self._codes.put(code, login, now=now, lifetime=lifetime)
        return code

    def redeem(self, client_id: str, form: dict[str, str]) -> Login:
        """Return the login of the code in *form* (RFC 6749 §4.1.3)."""
        now, code = self._now(), form.get("code", "")
        if not code:
            raise OAuthError("invalid_request", "code is missing")
        login = self._codes.get(code, now=now)
        if login is None or login.authorization.client.id != client_id:
            raise OAuthError("invalid_grant", "unknown code")
        if login.code_used:
            login.revoked = True
        if login.revoked:
            raise OAuthError("invalid_grant", "the code was used before")
        login.code_used = True
        if now >= login.auth_time + self._config.code_lifetime:
            raise OAuthError("invalid_grant", "the code has expired")
        if form.get("redirect_uri", "") != login.authorization.redirect_uri:
            raise OAuthError(
                "invalid_grant", "redirect_uri differs from the authorization request"
            )
        check_verifier(login.authorization, form.get("code_verifier", ""))
        return login

    def refresh(self, client_id: str, form: dict[str, str]) -> Login:
        """Return the login of the refresh token in *form* (RFC 6749 §6)."""
        now, token = self._now(), form.get("refresh_token", "")
        if not token:
            raise OAuthError("invalid_request", "refresh_token is missing")
        login = self._refresh_tokens.get(token, now=now)
        if login is None or login.authorization.client.id != client_id:
            raise OAuthError("invalid_grant", "unknown or expired refresh token")
        if token in login.used_refresh_tokens:
            login.revoked = True  # RFC 9700 §4.14.2: the token may be stolen
        if login.revoked:
            raise OAuthError("invalid_grant", "the refresh token is no longer valid")
        if not set(form.get("scope", "").split()) <= set(login.authorization.scopes):
            raise OAuthError("invalid_scope", "scope exceeds the granted one")
        if self._config.rotate_refresh_tokens:
            login.used_refresh_tokens.add(token)
        return login

    def issue(self, login: Login, *, refreshed: bool) -> dict[str, Any]:
        """Return a token response (RFC 6749 §5.1, OIDC Core §3.1.3.3)."""
        now, lifetime = self._now(), self._config.access_token_lifetime
        access_token = self._access_token(login)
        self._access_tokens.put(access_token, login, now=now, lifetime=lifetime)
        tokens = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": int(lifetime),
            "scope": " ".join(login.authorization.scopes),
            "refresh_token": self._refresh_token(login, refreshed=refreshed),
        }
        is_openid = "openid" in login.authorization.scopes
        if is_openid and (not refreshed or self._config.id_token_on_refresh):
            tokens["id_token"] = self._id_token(
                login, access_token, refreshed=refreshed
            )
        return merge(tokens, {})

    def _refresh_token(self, login: Login, *, refreshed: bool) -> str | None:
        if not self._config.issue_refresh_token:
            return None
        if refreshed and not self._config.rotate_refresh_tokens:
            return None  # the old one stays valid
        token, lifetime = self._random_text(), self._config.refresh_token_lifetime
        self._refresh_tokens.put(token, login, now=self._now(), lifetime=lifetime)
        return token

    def _id_token(self, login: Login, access_token: str, *, refreshed: bool) -> str:
        config = self._config
        claims = documents.id_token_claims(
            config,
            login,
            now=self._now(),
            access_token=access_token,
            refreshed=refreshed,
        )
        token = self._sign(claims, config.id_token_header)
        return config.id_token_filter(token) if config.id_token_filter else token

    def _access_token(self, login: Login) -> str:
        claims = documents.access_token_claims(
            self._config, login, now=self._now(), jti=self._random_text()
        )
        return self._sign(claims, {})

    def _sign(self, claims: dict[str, Any], header: Overrides) -> str:
        if self._config.padding:
            # Random, so that compression of the session does not undo it.
            filler = self._random_bytes(self._config.padding * 3 // 4)
            claims = {**claims, "padding": b64url(filler).decode()}
        return self.keys.sign(claims, self._config.signing_alg, header)

    def logout_token(self, user: User | None, changes: Overrides) -> str:
        """Return a logout token for *user* (Back-Channel Logout §2.4)."""
        now = self._now()
        claims: dict[str, Any] = {
            "iss": self._config.issuer,
            "sub": user.subject if user else None,
            "aud": self._config.clients[0].id,
            "iat": int(now),
            "exp": int(now) + 120,
            "jti": self._random_text(),
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        return self.keys.sign(
            merge(claims, changes), self._config.signing_alg, {"typ": "logout+jwt"}
        )

    def login_of(self, access_token: str) -> Login | None:
        """Return the login of a valid access token; None for other tokens."""
        login = self._access_tokens.get(access_token, now=self._now())
        return None if login is None or login.revoked else login

    def revoke(self, matches: Callable[[Login], bool]) -> None:
        """Revoke all logins for which *matches* returns True."""
        for table in (self._codes, self._refresh_tokens, self._access_tokens):
            for login in table.values():
                login.revoked = login.revoked or matches(login)

    def _random_text(self) -> str:
        return b64url(self._random_bytes(24)).decode()
