"""Test harness for the core: no network, a manual clock, a development provider.

`Harness` is a proxy, an identity provider and a browser's cookie jar. `run_scripted`
runs a flow against a script of effects and their results. `UNUSABLE_KEYS` and
`OAuthError` are those of the development provider.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from authproxy_core import (
    AuthProxy,
    ClaimSource,
    CookieSettings,
    Decision,
    Event,
    Fetch,
    HeaderRule,
    LoadAll,
    Lock,
    Members,
    Offload,
    Outcome,
    ProviderSettings,
    ReadBody,
    Request,
    Respond,
    Secret,
    Settings,
    Sleep,
    decide_sync,
)
from authproxy_core.messages import Header
from authproxy_devprovider.config import UNUSABLE_KEYS as UNUSABLE_KEYS
from authproxy_devprovider.config import Client, ProviderConfig, User
from authproxy_devprovider.protocol import OAuthError as OAuthError
from authproxy_devprovider.provider import DevProvider
from authproxy_devprovider.signing import SigningKeys, generate_keys

ISSUER = "https://idp.example.com/realms/main"
HOST = b"app.example.com"
START = 1_790_000_000.0
SECRET = Secret(b"0123456789abcdef0123456789abcdef")

ALICE = User(
    name="alice",
    password="pw",
    full_name="Alice Example",
    groups=("admins", "staff"),
    roles=("admin",),
    client_roles={"app": ("reader",)},
)
CLIENT = Client(redirect_uris=("https://app.example.com/oauth2/callback",))
BOB = User(name="bob", password="pw", groups=("staff",))


def rule(name: str, claim: str, prefix: str = "") -> HeaderRule:
    """Return a header rule for a claim."""
    return HeaderRule(name, (ClaimSource(claim, prefix),))


RESPONSE_RULES = (
    rule("X-Auth-Request-User", "user"),
    rule("X-Auth-Request-Email", "email"),
    rule("X-Auth-Request-Preferred-Username", "preferred_username"),
    rule("X-Auth-Request-Groups", "groups"),
    rule("Authorization", "id_token", "Bearer "),
)


class Clock:
    """A manual clock in seconds since the epoch."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def provider_settings(**changes: Any) -> ProviderSettings:
    """Return settings of the development provider as Keycloak."""
    values: dict[str, Any] = {
        "id": "keycloak",
        "type": "keycloak-oidc",
        "name": "Keycloak",
        "client_id": "authproxy",
        "client_secret": Secret(b"demo-client-secret"),
        "issuer": ISSUER,
    }
    return ProviderSettings(**(values | changes))


def settings(
    *,
    cookie: dict[str, Any] | None = None,
    provider: dict[str, Any] | None = None,
    **changes: Any,
) -> Settings:
    """Return valid settings with *changes*."""
    values: dict[str, Any] = {
        "cookie": CookieSettings(**({"secrets": (SECRET,)} | (cookie or {}))),
        "providers": (provider_settings(**(provider or {})),),
        "email_domains": ("*",),
        "inject_response_headers": RESPONSE_RULES,
    }
    return Settings(**(values | changes))


class Harness:
    """A proxy, a provider and a cookie jar; the clock only moves on request."""

    def __init__(
        self,
        given: Settings | None = None,
        *,
        ready: bool = True,
        new_keys: bool = False,
    ) -> None:
        """With *new_keys* the provider's signing keys differ from other harnesses'."""
        self.clock = Clock()
        self.random = random.Random(7).randbytes
        self.events: list[Event] = []
        self.config = ProviderConfig(
            issuer=ISSUER, users=(ALICE, BOB), clients=(CLIENT,)
        )
        self.idp = DevProvider(self.config, self.clock, self.random)
        if not new_keys:
            self.idp.tokens.keys = SigningKeys(_shared_keys())
        self.settings = given or settings()
        self.proxy = self.new_proxy(self.settings)
        self.jar: dict[bytes, bytes] = {}
        self.body = b""
        self.fetched: list[Fetch] = []
        self.locks: list[str] = []
        self.on_fetch: Callable[[Fetch], Any] = self.idp.fetch
        self.on_sleep: Callable[[Sleep], None] = lambda _: None
        if ready:
            self.run(self.proxy.warm_up())

    def new_proxy(self, given: Settings) -> AuthProxy:
        """Return a proxy with the same clock and randomness, as in another process."""
        return AuthProxy(
            given,
            clock=self.clock,
            random_bytes=self.random,
            on_event=self.events.append,
        )

    def perform(self, effect: Any) -> Any:
        """Perform an effect and return its result."""
        match effect:
            case Fetch():
                self.fetched.append(effect)
                return self.on_fetch(effect)
            case Sleep(seconds):
                self.clock.now += seconds
                self.on_sleep(effect)
            case ReadBody():
                return self.body
            case Offload(function):
                return function()
            case Lock(key):
                self.locks.append(key)
                return True
            case LoadAll(keys):
                return (None,) * len(keys)
            case Members():
                return ()
        return None

    def run(self, flow: Any) -> Any:
        """Run a flow; return its result."""
        return decide_sync(flow, self.perform)

    def request(
        self,
        target: str | bytes,
        *headers: Header,
        method: bytes = b"GET",
        peer: str = "192.0.2.7",
        secure: bool = True,
        jar: dict[bytes, bytes] | None = None,
    ) -> Request:
        """Return a request with the cookies of the jar."""
        cookies = self.jar if jar is None else jar
        fields: list[Header] = [*headers]
        if not any(name == b"host" for name, _ in headers):
            fields.insert(0, (b"host", HOST))
        if cookies:
            pairs = [name + b"=" + value for name, value in cookies.items()]
            fields.append((b"cookie", b"; ".join(pairs)))
        raw = target.encode() if isinstance(target, str) else target
        return Request(method, raw, tuple(fields), peer, secure, "request-1")

    def send(self, target: str | bytes, *headers: Header, **changes: Any) -> Decision:
        """Return the decision for a request; the jar stores its cookies."""
        return self.decide(self.proxy.handle(self.request(target, *headers, **changes)))

    def decide(self, outcome: Outcome) -> Decision:
        """Return the decision of an outcome; the jar stores its cookies."""
        decision = decide_sync(outcome, self.perform)
        if isinstance(decision, Respond):
            keep_cookies(self.jar, decision)
        return decision

    def get(self, target: str | bytes, *headers: Header, **changes: Any) -> Respond:
        """Return the response to a request that must not be forwarded."""
        decision = self.send(target, *headers, **changes)
        assert isinstance(decision, Respond)
        return decision

    def start_login(self, rd: str = "/", *headers: Header) -> str:
        """Start a login; return the authorization URL."""
        answer = self.get(f"/oauth2/start?rd={rd}", *headers)
        assert answer.status == 302, answer
        return header(answer, b"location").decode()

    def finish_login(self, authorization_url: str, user: str = "alice") -> Respond:
        """Log in at the provider; return the response of the callback."""
        url = self.idp.log_in(authorization_url, user)
        return self.get(target_of(url))

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a JWT of the provider with *claims*; None removes a claim."""
        now = int(self.clock.now)
        values = {
            "iss": ISSUER,
            "sub": "service-1",
            "aud": "authproxy",
            "azp": "authproxy",
            "iat": now,
            "exp": now + 300,
            "email": "service@example.com",
            "groups": ["staff"],
            "preferred_username": "service",
        } | claims
        kept = {name: value for name, value in values.items() if value is not None}
        return self.idp.tokens.keys.sign(kept, "RS256", header or {})

    def log_in(self, user: str = "alice", rd: str = "/") -> Respond:
        """Log in; return the response of the callback."""
        return self.finish_login(self.start_login(rd), user)


@cache
def _shared_keys() -> Mapping[str, Any]:
    """Return keys for all providers of a process; generating them is slow."""
    return generate_keys()


def target_of(url: str) -> str:
    """Return the request target of a URL."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def query_params(url: str) -> dict[str, str]:
    """Return the query parameters of *url*, each of which occurs once."""
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


def event_reasons(response: Respond) -> list[str]:
    """Return the reason codes of the events of *response*."""
    return [event.reason for event in response.events]


def keep_cookies(jar: dict[bytes, bytes], answer: Respond) -> None:
    """Apply the Set-Cookie fields of a response to the jar."""
    for name, value in answer.headers:
        if name != b"set-cookie":
            continue
        pair, _, attributes = value.partition(b";")
        cookie, _, text = pair.partition(b"=")
        if b"max-age=0" in attributes.lower().replace(b" ", b""):
            jar.pop(cookie, None)
        else:
            jar[cookie] = text


def header(answer: Respond, name: bytes) -> bytes:
    """Return the value of a field that occurs exactly once."""
    values = [value for field, value in answer.headers if field == name]
    assert len(values) == 1, (name, values)
    return values[0]


def headers(answer: Respond, name: bytes) -> list[bytes]:
    """Return all values of a field."""
    return [value for field, value in answer.headers if field == name]


def with_changes(given: Settings, **changes: Any) -> Settings:
    """Return *given* with *changes*."""
    return msgspec.structs.replace(given, **changes)


def run_scripted(flow: Generator[Any, Any, Any], *script: tuple[type, Any]) -> Any:
    """Run *flow* with scripted effects; return the result of the flow.

    Each effect must have the next scripted type and returns the scripted result. A
    result that is an exception is raised.
    """
    steps: Sequence[tuple[type, Any]] = script
    answer: Any = None
    for kind, next_answer in steps:
        effect = _step(flow, answer)
        assert type(effect) is kind, effect
        answer = next_answer
    try:
        effect = _step(flow, answer)
    except StopIteration as stop:
        return stop.value
    raise AssertionError(f"the script has ended, but the flow yields {effect!r}")


def _step(flow: Generator[Any, Any, Any], answer: Any) -> Any:
    if isinstance(answer, Exception):
        return flow.throw(answer)
    return flow.send(answer)
