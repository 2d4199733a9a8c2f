"""A provider for whole servers, and clients that log in without its page."""

from __future__ import annotations

import http.client
from types import TracebackType
from urllib.parse import urlsplit

from authproxy_devprovider.config import Client, ProviderConfig, User
from authproxy_devprovider.provider import DevProvider, serve
from support import workers
from support.http import Cookies
from support.ports import LOOPBACK, free_port
from support.processes import Process

USERS = tuple(User(name=name, password="pw") for name in ("alice", "bob"))


class Provider:
    """The development provider for one or more servers with fixed ports."""

    def __init__(self, servers: int = 1) -> None:
        self.ports = [free_port() for _ in range(servers)]
        client = Client(
            redirect_uris=tuple(
                f"http://{LOOPBACK}:{port}/oauth2/callback" for port in self.ports
            )
        )
        self.idp = DevProvider(ProviderConfig(users=USERS, clients=(client,)))
        self._client = client
        self._running = serve(self.idp, LOOPBACK)

    def __enter__(self) -> Provider:
        self.url = self._running.__enter__().url
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def options(self, number: int = 0) -> dict[str, object]:
        """Return the options of a server that uses the provider."""
        return {
            "oidc_issuer_url": self.url,
            "client_id": self._client.id,
            "client_secret": self._client.secret,
            "skip_oidc_discovery": None,
            "login_url": None,
            "redeem_url": None,
            "oidc_jwks_url": None,
            "cookie_secure": False,
            "http_address": f"{LOOPBACK}:{self.ports[number]}",
        }

    def browser(self, number: int = 0) -> Browser:
        """Return a client of one of the servers."""
        return Browser(self, self.ports[number])


class Answer:
    """Status, fields and body of a response."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def cookies(self) -> list[str]:
        """The values of the Set-Cookie fields."""
        return self.headers.get_all("set-cookie") or []


class Browser:
    """A cookie jar, and requests that each open a connection."""

    def __init__(self, provider: Provider, port: int) -> None:
        self.provider = provider
        self.port = port
        self.jar = Cookies()

    def get(self, target: str, *, port: int = 0) -> Answer:
        """Return the response of the server, or of another one at *port*."""
        url = f"http://{LOOPBACK}:{port or self.port}{target}"
        connection = http.client.HTTPConnection(LOOPBACK, port or self.port, timeout=60)
        try:
            headers = {}
            if cookies := self.jar.sent_to(url):
                headers["Cookie"] = cookies
            connection.request("GET", target, headers=headers)
            response = Answer(connection.getresponse())
        finally:
            connection.close()
        self.jar.take(url, response.cookies)
        return response

    def log_in(self, user: str = "alice") -> Answer:
        """Log in; return the response of the callback."""
        started = self.get("/oauth2/start?rd=/")
        assert started.status == 302, (started.status, started.body)
        back = urlsplit(self.provider.idp.log_in(started.headers["location"], user))
        response = self.get(f"{back.path}?{back.query}")
        assert response.status == 302, (response.status, response.body)
        return response

    def check(self, *, port: int = 0) -> int:
        """Return the status of an auth check."""
        return self.get("/oauth2/auth", port=port).status

    def check_each_worker(
        self, server: Process, target: str = "/oauth2/auth"
    ) -> set[int]:
        """Return the statuses of all workers of *server* for the same cookies."""
        cookies = self.jar.sent_to(f"http://{LOOPBACK}:{self.port}{target}")
        return workers.statuses(server, self.port, cookies, target=target)
