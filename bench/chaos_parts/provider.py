"""Helper process: the development provider with state that survives its crashes.

It rotates refresh tokens and ends a login whose used token is presented again. As many
providers do, it accepts a token again while the token that replaced it was never
presented, because the response may have been lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from authproxy_core.messages import Headers
from authproxy_devprovider.config import Client, HttpResponse, ProviderConfig, User
from authproxy_devprovider.grants import ExpiringDict, V
from authproxy_devprovider.protocol import parse_form
from authproxy_devprovider.provider import DevProvider, serve
from chaos_parts.control import serve_commands

LIFETIME = 12 * 3600.0  # seconds of tokens; longer than a clock step
SWEEP_INTERVAL = 10_000  # entries


class SweptDict(ExpiringDict[V]):
    """The same, but drops expired entries only now and then: there are many."""

    def put(self, key: str, value: V, *, now: float, lifetime: float) -> None:
        """Store *value* until *now* + *lifetime*."""
        self._entries[key] = (now + lifetime, value)


class CountingProvider(DevProvider):
    """Records how often each refresh token was presented."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.tokens._codes = SweptDict()
        self.tokens._refresh_tokens = SweptDict()
        self.tokens._access_tokens = SweptDict()
        self._presented: dict[str, list[float]] = {}
        self._successor: dict[str, str] = {}
        self.refreshes = 0
        self.used_twice: list[str] = []  # although the new token had arrived
        self.repeated: list[tuple[float, float]] = []  # first and last time

    def _token(
        self, method: bytes, query: bytes, headers: Headers, body: bytes
    ) -> HttpResponse:
        form = parse_form(headers, body)
        token = form.get("refresh_token", "")
        if form.get("grant_type") != "refresh_token":
            return super()._token(method, query, headers, body)
        times = self._presented.setdefault(token, [])
        times.append(time.time())
        login = self.tokens._refresh_tokens.get(token, now=0.0)
        if len(times) > 1 and login is not None:
            if self._successor.get(token) in self._presented:
                self.used_twice.append(login.user.name)
            else:
                self.repeated.append((times[0], times[-1]))
                login.used_refresh_tokens.discard(token)
        response = super()._token(method, query, headers, body)
        if response[0] == 200:
            self.refreshes += 1
            self._successor[token] = json.loads(response[2])["refresh_token"]
        return response


class Control:
    """Starts and stops the provider's server."""

    def __init__(self, port: int, issuer: str, users: int, redirect: str) -> None:
        config = ProviderConfig(
            issuer=issuer,
            users=tuple(
                User(name=f"user-{number}", password="pw") for number in range(users)
            ),
            clients=(Client(redirect_uris=(redirect,)),),
            access_token_lifetime=LIFETIME,
            id_token_lifetime=LIFETIME,
            refresh_token_lifetime=LIFETIME,
        )
        self._provider = CountingProvider(config)
        self._port = port
        self._server = serve(self._provider, port=port)

    def handle(self, do: str, value: float = 0.0) -> dict[str, Any]:
        """Perform a command."""
        provider = self._provider
        match do:
            case "kill":
                self._server.close()
            case "start":
                self._server = serve(provider, port=self._port)
            case "rotate":
                provider.rotate_keys(keep_old=bool(value))
            case "clock":
                provider.config.clock_offset = value
        return {
            "refreshes": provider.refreshes,
            "used_twice": provider.used_twice,
            "repeated": provider.repeated,
        }


async def main() -> None:
    """Start with the first command; obey the others until the input ends."""
    control = Control(**json.loads(await asyncio.to_thread(input)))
    print("{}", flush=True)
    await serve_commands(control.handle)


if __name__ == "__main__":
    asyncio.run(main())
