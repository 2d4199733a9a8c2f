"""Both programs running with one configuration, and connections to them."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from authproxy_devprovider.provider import DevProvider
from support.http import Client, Cookies, Reply
from support.keycloak import CLIENT_ID, CLIENT_SECRET
from support.peers import AUTHPROXY, COOKIE_SECRET, OAUTH2_PROXY, SOURCES, command
from support.ports import LOOPBACK, free_port
from support.processes import Process, ProgramFailedError, listens
from support.program import toml

from .bearer import id_token
from .cases import BAD_BEARER, BROKEN, Case, basic
from .configurations import Configuration

MAX_STARTS = 3  # because another program may take the port
TIMEOUT = 20.0  # seconds for one response


@dataclass
class Peer:
    """One of the programs with a signed-in user and a persistent connection."""

    name: str
    configuration: Configuration
    process: Process
    port: int
    bearer: str
    cookies: Cookies = field(default_factory=Cookies)
    login: tuple[Reply, ...] = ()

    def __post_init__(self) -> None:
        self._socket: socket.socket | None = None

    def log_in(self, provider: DevProvider) -> None:
        """Log in the configuration's user; ``login`` takes the two responses."""
        self.login = self.log_in_with(provider, "/deep", self.cookies)

    def log_in_with(
        self,
        provider: DevProvider,
        rd: str,
        cookies: Cookies | None = None,
        user: str = "",
    ) -> tuple[Reply, Reply]:
        """Log in with *rd*; return the responses of the start and of the callback."""
        host = self.configuration.host
        origin = f"http://{host}"
        client = Client({host: self.port}, cookies)
        query = urllib.parse.urlencode({"rd": rd})
        started = client.get(f"{origin}{self.configuration.prefix}/start?{query}")
        if not started.location.startswith(provider.config.issuer):
            return started, started  # https only: no login over http
        callback = provider.log_in(started.location, user or self.configuration.user)
        parts = urllib.parse.urlsplit(callback)
        return started, client.get(f"{origin}{parts.path}?{parts.query}")

    def send(self, case: Case) -> Reply:
        """Return the response to *case*; the user's cookies do not change."""
        target = case.target.replace("{P}", self.configuration.prefix)
        host = {"Host": self.configuration.host} if case.host else {}
        headers = {**host, **case.headers, **self._credentials(case)}
        if case.body:
            headers["Content-Length"] = str(len(case.body.encode()))
        return self._exchange(case, target, headers)

    def _credentials(self, case: Case) -> dict[str, str]:
        cookies = [case.cookies] if case.cookies else []
        authorization = ""
        match case.credentials:
            case "user":
                origin = f"https://{self.configuration.host}/"
                cookies.append(self.cookies.sent_to(origin))
            case "broken cookie":
                cookies.append(f"{self.configuration.cookie}={BROKEN}")
            case "bearer":
                authorization = f"Bearer {self.bearer}"
            case "bad bearer":
                authorization = BAD_BEARER
            case "basic":
                authorization = basic("carol", "secret")
            case "bad basic":
                authorization = basic("carol", "wrong")
        fields = {"Cookie": "; ".join(filter(None, cookies))} if any(cookies) else {}
        return {**fields, **({"Authorization": authorization} if authorization else {})}

    def _exchange(self, case: Case, target: str, headers: Mapping[str, str]) -> Reply:
        """Send the bytes of *case*; status 0 if the connection closes without one."""
        lines = [f"{case.method} {target} {case.protocol}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        data = "".join(f"{line}\r\n" for line in [*lines, ""]).encode()
        if self._socket is None:
            self._socket = socket.create_connection((LOOPBACK, self.port), TIMEOUT)
        response = http.client.HTTPResponse(self._socket, method=case.method)
        try:
            self._socket.sendall(data + case.body.encode())
            response.begin()
            content = response.read()
        except (http.client.HTTPException, ConnectionError):
            self.disconnect()
            return Reply(target, 0, (), b"")
        if response.will_close:
            self.disconnect()
        url = f"http://{self.configuration.host}{target}"
        return Reply(url, response.status, tuple(response.getheaders()), content)

    def disconnect(self) -> None:
        """Close the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Close the connection and stop the program."""
        self.disconnect()
        self.process.stop()


class Peers:
    """Starts both programs; *values* are those of the placeholders ``{echo}`` etc."""

    def __init__(self, provider: DevProvider, values: Mapping[str, str]) -> None:
        self._provider = provider
        self._values = {**values, "{issuer}": provider.config.issuer}
        self._bearer = id_token(provider)

    @contextmanager
    def running(
        self, configuration: Configuration, folder: Path
    ) -> Iterator[tuple[Peer, Peer]]:
        """oauth2-proxy and authproxy, each with the configuration's signed-in user."""
        cookies: dict[str, Cookies] = {}
        if configuration.relaxed:
            options = {**configuration.options, **configuration.relaxed}
            relaxed = replace(configuration, options=options, relaxed={})
            with self.running(relaxed, folder / "relaxed") as earlier:
                cookies = {peer.name: peer.cookies for peer in earlier}
        with ExitStack() as stack:
            peers = self._start_both(configuration, folder, stack)
            for peer in peers:
                if cookies:
                    peer.cookies = cookies[peer.name]
                else:
                    peer.log_in(self._provider)
            yield peers[0], peers[1]

    def _start_both(
        self, configuration: Configuration, folder: Path, stack: ExitStack
    ) -> list[Peer]:
        """Start both and wait until they listen; retry if a port is in use."""
        for attempt in range(MAX_STARTS):
            directory = folder / str(attempt)
            peers = [
                self._start(name, configuration, directory / name)
                for name in (OAUTH2_PROXY, AUTHPROXY)
            ]
            try:
                for peer in peers:
                    peer.process.wait_until(partial(listens, peer.port), 30.0)
            except ProgramFailedError as error:
                for peer in peers:
                    peer.close()
                if "in use" not in str(error) or attempt + 1 == MAX_STARTS:
                    raise
            else:
                for peer in peers:
                    stack.callback(peer.close)
                return peers
        raise AssertionError("unreachable")

    def _start(self, name: str, configuration: Configuration, folder: Path) -> Peer:
        program = command(name)
        assert program, f"{name} is not installed"
        folder.mkdir(parents=True)
        port = free_port()
        values = {
            **self._values,
            "{folder}": str(folder),
            "{port}": str(port),
            "{tls}": str(free_port()),
        }
        for file, content in configuration.files.items():
            (folder / file).write_text(content)
        config = folder / "proxy.cfg"
        config.write_text(
            _with_values(toml(configuration.values(extended=name == AUTHPROXY)), values)
        )
        arguments: list[str | Path] = ["--config", config, *configuration.flags]
        if configuration.alpha:
            alpha = folder / "alpha.yaml"
            alpha.write_text(_with_values(configuration.alpha, values))
            arguments += ["--alpha-config", alpha]
        process = Process(
            name,
            [*program, *arguments],
            folder=folder,
            environment=_environment(name, configuration, port, self._provider),
        )
        return Peer(name, configuration, process, port, self._bearer)


def _environment(
    name: str, configuration: Configuration, port: int, provider: DevProvider
) -> dict[str, str]:
    values: dict[str, Any] = {
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "COOKIE_SECRET": COOKIE_SECRET,
        "OIDC_ISSUER_URL": provider.config.issuer,
        "HTTP_ADDRESS": f"{LOOPBACK}:{port}",
        "WORKERS": "1",
    }
    environment = {f"OAUTH2_PROXY_{key}": value for key, value in values.items()}
    if name == AUTHPROXY:
        environment["PYTHONPATH"] = SOURCES
    return {**environment, **configuration.environment}


def _with_values(text: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
