"""Both programs, running with one configuration, and connections to them."""

from __future__ import annotations

import http.client
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

TRIES = 3  # to start, while others take the ports
TIMEOUT = 20.0  # seconds for one answer


@dataclass
class Peer:
    """One of the programs, with a user logged in over a connection that stays."""

    name: str
    configuration: Configuration
    process: Process
    port: int
    bearer: str
    cookies: Cookies = field(default_factory=Cookies)
    login: tuple[Reply, ...] = ()

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(
            LOOPBACK, self.port, timeout=TIMEOUT
        )

    def log_in(self, provider: DevProvider) -> None:
        """Log the configuration's user in; the answers stay in ``login``."""
        self.login = self.logged_in(provider, "/deep", self.cookies)

    def logged_in(
        self, provider: DevProvider, rd: str, cookies: Cookies | None = None
    ) -> tuple[Reply, Reply]:
        """A login that begins with *rd*: the answers that begin and end it."""
        host = self.configuration.host
        origin = f"http://{host}"
        client = Client({host: self.port}, cookies)
        query = urllib.parse.urlencode({"rd": rd})
        started = client.get(f"{origin}{self.configuration.prefix}/start?{query}")
        if not started.location.startswith(provider.config.issuer):
            return started, started  # https only: nobody can log in
        callback = provider.log_in(started.location, self.configuration.user)
        parts = urllib.parse.urlsplit(callback)
        return started, client.get(f"{origin}{parts.path}?{parts.query}")

    def answer(self, case: Case) -> Reply:
        """What it says to *case*; the user's cookies stay as they are."""
        target = case.target.replace("{P}", self.configuration.prefix)
        headers = {"Host": self.configuration.host, **case.headers}
        headers |= self._credentials(case)
        body = case.body.encode()
        if body:
            headers["Content-Length"] = str(len(body))
        return self._exchange(case.method, target, headers, body)

    def _credentials(self, case: Case) -> dict[str, str]:
        cookies = [case.cookies] if case.cookies else []
        authorization = ""
        match case.who:
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
        found = {"Cookie": "; ".join(filter(None, cookies))} if any(cookies) else {}
        return {**found, **({"Authorization": authorization} if authorization else {})}

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """One exchange; a connection that is closed without an answer has status 0."""
        line = self._connection
        try:
            line.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                line.putheader(name, value)
            line.endheaders(body or None)
            answer = line.getresponse()
            read = answer.read()
        except (http.client.HTTPException, ConnectionError):
            line.close()
            return Reply(target, 0, (), b"")
        url = f"http://{self.configuration.host}{target}"
        return Reply(url, answer.status, tuple(answer.getheaders()), read)

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self.process.stop()


class Peers:
    """Starts both programs; *places* says what stands for ``{echo}`` and the like."""

    def __init__(self, provider: DevProvider, places: Mapping[str, str]) -> None:
        self._provider = provider
        self._places = {**places, "{issuer}": provider.config.issuer}
        self._bearer = id_token(provider)

    @contextmanager
    def started(
        self, configuration: Configuration, folder: Path
    ) -> Iterator[tuple[Peer, Peer]]:
        """oauth2-proxy and authproxy, each with the configuration's user logged in."""
        cookies: dict[str, Cookies] = {}
        if configuration.relaxed:
            options = {**configuration.options, **configuration.relaxed}
            relaxed = replace(configuration, options=options, relaxed={})
            with self.started(relaxed, folder / "relaxed") as earlier:
                cookies = {peer.name: peer.cookies for peer in earlier}
        with ExitStack() as stack:
            peers = self._both(configuration, folder, stack)
            for peer in peers:
                if cookies:
                    peer.cookies = cookies[peer.name]
                else:
                    peer.log_in(self._provider)
            yield peers[0], peers[1]

    def _both(
        self, configuration: Configuration, folder: Path, stack: ExitStack
    ) -> list[Peer]:
        """Both, listening; a port that somebody else took meanwhile is tried again."""
        for attempt in range(TRIES):
            place = folder / str(attempt)
            peers = [
                self._start(name, configuration, place / name)
                for name in (OAUTH2_PROXY, AUTHPROXY)
            ]
            try:
                for peer in peers:
                    peer.process.wait_until(partial(listens, peer.port), 30.0)
            except ProgramFailedError as error:
                for peer in peers:
                    peer.close()
                if "in use" not in str(error) or attempt + 1 == TRIES:
                    raise
            else:
                for peer in peers:
                    stack.callback(peer.close)
                return peers
        raise AssertionError("unreachable")

    def _start(self, name: str, configuration: Configuration, folder: Path) -> Peer:
        program = command(name)
        assert program, f"{name} isn't installed"
        folder.mkdir(parents=True)
        port = free_port()
        places = {
            **self._places,
            "{folder}": str(folder),
            "{port}": str(port),
            "{tls}": str(free_port()),
        }
        for file, content in configuration.files.items():
            (folder / file).write_text(content)
        config = folder / "proxy.cfg"
        config.write_text(
            _filled(toml(configuration.values(ours=name == AUTHPROXY)), places)
        )
        arguments: list[str | Path] = ["--config", config, *configuration.flags]
        if configuration.alpha:
            alpha = folder / "alpha.yaml"
            alpha.write_text(_filled(configuration.alpha, places))
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
    found = {f"OAUTH2_PROXY_{key}": value for key, value in values.items()}
    if name == AUTHPROXY:
        found["PYTHONPATH"] = SOURCES
    return {**found, **configuration.environment}


def _filled(text: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text
