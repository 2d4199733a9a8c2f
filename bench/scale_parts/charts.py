"""What is measured: an `AuthProxy` in this process, and requests of signed-in users."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

from authproxy.http.request_head import HeadReader
from authproxy.server_settings import Limits
from authproxy_core import (
    AuthProxy,
    ClaimSource,
    CookieSettings,
    Forward,
    HeaderRule,
    Outcome,
    ProviderSettings,
    Request,
    Respond,
    Secret,
    Session,
    Settings,
    UpstreamSettings,
    decide_sync,
)
from authproxy_core.sessions.codec import encode_session
from authproxy_core.sessions.sealing import Sealer
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.rules import AccessRule, Condition, RuleSettings

from .measure import Batch, Chart, Curve

SECRET = Secret(b"0123456789abcdef0123456789abcdef")
NAME = "_oauth2_proxy"
PEER, HOST = "127.0.0.1", b"app.example.com"
TOKEN = os.urandom(900).hex()  # about the size of a Keycloak session
SEALER = Sealer((SECRET,))
NUMBERS = (1, 10, 100, 1_000)
GROUP = "the-group"


def seal(number: int, provider: str = "p0", groups: tuple[str, ...] = ()) -> bytes:
    """Return the cookie of the user *number*."""
    now = time.time()
    session = Session(
        provider=provider,
        created_at=now,
        login_at=now,
        access_token=TOKEN,
        user=f"user-{number}",
        email=f"user-{number}@example.com",
        groups=(*groups, GROUP),
        nonce=b"%032d" % number,
    )
    value = SEALER.seal(
        f"session:{NAME}".encode(),
        encode_session(session),
        issued_at=now,
        nonce=os.urandom(12),
    )
    return NAME.encode() + b"=" + value


def proxy_of(providers: int = 1, **changes: Any) -> AuthProxy:
    """Return a proxy with *changes* of its settings."""
    values: dict[str, Any] = {
        "cookie": CookieSettings(secrets=(SECRET,)),
        "providers": tuple(
            ProviderSettings(
                id=f"p{number}",
                client_id="app",
                client_secret=Secret(b"secret"),
                issuer=f"https://idp-{number}.example.com",
            )
            for number in range(providers)
        ),
        "email_domains": ("*",),
        "reverse_proxy": True,
        "inject_response_headers": tuple(
            HeaderRule(f"X-Auth-Request-{name}", (ClaimSource(name.lower()),))
            for name in ("User", "Email", "Groups")
        ),
    }
    return AuthProxy(Settings(**(values | changes)))


def request(
    target: bytes, cookie: bytes = b"", host: bytes = HOST, *fields: tuple[bytes, bytes]
) -> Request:
    """Return a request as a driver would."""
    headers = [(b"host", host), (b"user-agent", b"bench"), *fields]
    if cookie:
        headers.append((b"cookie", cookie))
    return Request(b"GET", target, headers, PEER)


def no_effect(effect: object) -> Any:
    """Reject an effect: the measured requests need none."""
    raise AssertionError(effect)


def batch_of(
    proxy: AuthProxy, requests: Iterator[Request], expected: Callable[[Any], bool]
) -> Batch:
    """Return a batch that lets *proxy* decide *requests*; one decision is checked."""

    def prepare(number: int) -> Callable[[], None]:
        chosen = list(islice(requests, number))
        decision = decide_sync(proxy.handle(chosen[0]), no_effect)
        assert expected(decision), decision

        def run() -> None:
            handle = proxy.handle
            for one in chosen:
                decide_sync(handle(one), no_effect)

        return run

    return prepare


def is_allowed(outcome: Outcome) -> bool:
    """Return whether an auth check is allowed."""
    return isinstance(outcome, Respond) and outcome.verdict == "allowed"


def is_forwarded(outcome: Outcome) -> bool:
    """Return whether a request is forwarded to an upstream."""
    return isinstance(outcome, Forward)


def sessions(size: int) -> Batch:
    """Check *size* sessions in rotation.

    A rotation over more sessions than the cache holds finds none of them, so the last
    ones before the measurement are enough to fill it.
    """
    proxy = proxy_of()
    kept = min(size, 3_000)
    first = [request(b"/oauth2/auth", seal(number)) for number in range(kept)]
    for _ in range(2):  # a session is cached when it is seen for the second time
        for one in first:
            proxy.handle(one)
    if size == kept:
        rotation = (first[number % size] for number in count())
    else:
        rotation = (request(b"/oauth2/auth", seal(number)) for number in count(kept))
    return batch_of(proxy, rotation, is_allowed)


def checked(proxy: AuthProxy, size: int, path: bytes, host: bytes) -> Batch:
    """Check the URLs *path* and *host* with numbers below *size*, each URL once."""
    cookie = seal(1)
    for _ in range(2):
        proxy.handle(request(b"/oauth2/auth", cookie))
    requests = (
        request(
            b"/oauth2/auth",
            cookie,
            HOST,
            (b"x-forwarded-host", host % (number % size) if b"%" in host else host),
            (b"x-forwarded-method", b"GET"),
            (b"x-forwarded-uri", path % (number % size) + b"%d" % number),
        )
        for number in count()
    )
    return batch_of(proxy, requests, is_allowed)


def rules_by_path(size: int) -> Batch:
    """*size* rules, each for a path."""
    rules = tuple(
        AccessRule(paths=(f"/app-{number}/",), when=Condition(groups=(GROUP,)))
        for number in range(size)
    )
    access = RuleSettings(rules=rules, default="deny")
    return checked(proxy_of(access=access), size, b"/app-%d/", HOST)


def rules_by_pattern(size: int) -> Batch:
    """*size* rules, each with a regular expression."""
    rules = tuple(
        AccessRule(
            patterns=(f"/app-{number}/[a-z0-9]*$",), when=Condition(groups=(GROUP,))
        )
        for number in range(size)
    )
    access = RuleSettings(rules=rules, default="deny")
    return checked(proxy_of(access=access), size, b"/app-%d/", HOST)


def rules_by_host(size: int) -> Batch:
    """*size* rules, each for a host and its subdomains."""
    rules = tuple(
        AccessRule(
            when=Condition(
                hosts=(f"h{number}.example", f"*.h{number}.example"), groups=(GROUP,)
            )
        )
        for number in range(size)
    )
    access = RuleSettings(rules=rules, default="deny")
    return checked(proxy_of(access=access), size, b"/%d/", b"x.h%d.example")


def skip_rules(size: int) -> Batch:
    """*size* bypass rules, and requests without a session."""
    routes = tuple(f"GET=^/public-{number}/" for number in range(size))
    upstream = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1")
    proxy = proxy_of(
        auth_bypass=AuthBypassSettings(skip_auth_routes=routes), upstreams=(upstream,)
    )
    return proxied(proxy, lambda number: b"/public-%d/%d" % (number % size, number))


def trusted_ips(size: int) -> Batch:
    """*size* networks without a login, and a new client for each request."""
    networks = tuple(f"10.{number >> 8}.{number & 255}.0/24" for number in range(size))
    upstream = UpstreamSettings(id="app", path="/", uri="http://127.0.0.1:1")
    proxy = proxy_of(
        auth_bypass=AuthBypassSettings(trusted_ips=networks),
        upstreams=(upstream,),
        reverse_proxy=False,
    )
    requests = (
        Request(
            b"GET",
            b"/x",
            [(b"host", HOST)],
            f"10.{number % size >> 8}.{number % size & 255}.{number // size % 256}",
        )
        for number in count()
    )
    return batch_of(proxy, requests, is_forwarded)


def proxied(
    proxy: AuthProxy,
    target: Callable[[int], bytes],
    cookie: bytes = b"",
    host: Callable[[int], bytes] = lambda number: HOST,
) -> Batch:
    """Forward requests, each for its own *target*."""
    for _ in range(2 * bool(cookie)):
        proxy.handle(request(b"/oauth2/auth", cookie))
    requests = (request(target(number), cookie, host(number)) for number in count())
    return batch_of(proxy, requests, is_forwarded)


def upstreams_by_path(size: int) -> Batch:
    """*size* upstreams, each at a path."""
    upstreams = tuple(
        UpstreamSettings(
            id=str(number), path=f"/app-{number}/", uri="http://127.0.0.1:1"
        )
        for number in range(size)
    )
    return proxied(
        proxy_of(upstreams=upstreams),
        lambda number: b"/app-%d/%d" % (number % size, number),
        seal(1),
    )


def upstreams_by_host(size: int) -> Batch:
    """*size* upstreams at one path, each for a host."""
    upstreams = tuple(
        UpstreamSettings(
            id=str(number),
            path="/",
            uri="http://127.0.0.1:1",
            condition=Condition(hosts=(f"h{number}.example",)),
        )
        for number in range(size)
    )
    return proxied(
        proxy_of(upstreams=upstreams),
        lambda number: b"/%d" % number,
        seal(1),
        lambda number: b"h%d.example" % (number % size),
    )


def groups_of_user(size: int, target: bytes, **changes: Any) -> Batch:
    """A user in *size* groups."""
    proxy = proxy_of(**changes)
    cookie = seal(1, groups=tuple(f"group-{number:04d}" for number in range(size - 1)))
    for _ in range(2):
        proxy.handle(request(target, cookie))
    return batch_of(proxy, (request(target, cookie) for _ in count()), is_allowed)


def groups_checked(size: int) -> Batch:
    """A check that needs no group."""
    return groups_of_user(size, b"/oauth2/auth")


def groups_of_rule(size: int) -> Batch:
    """A check that an access rule restricts to a group."""
    rules = (AccessRule(paths=("/",), when=Condition(groups=(GROUP,))),)
    return groups_of_user(size, b"/oauth2/auth", access=RuleSettings(rules=rules))


def groups_of_query(size: int) -> Batch:
    """A check with a group in the query."""
    return groups_of_user(size, b"/oauth2/auth?allowed_groups=x," + GROUP.encode())


def providers_checked(size: int) -> Batch:
    """The check of a user of the last of *size* providers."""
    proxy = proxy_of(size)
    cookie = seal(1, f"p{size - 1}")
    for _ in range(2):
        proxy.handle(request(b"/oauth2/auth", cookie))
    return batch_of(
        proxy, (request(b"/oauth2/auth", cookie) for _ in count()), is_allowed
    )


def providers_anonymous(size: int) -> Batch:
    """The 401 of a check without a session."""
    return batch_of(
        proxy_of(size),
        (request(b"/oauth2/auth") for _ in count()),
        lambda outcome: outcome.status == 401,
    )


def header_bytes(size: int) -> Batch:
    """Parse and check a head of *size* bytes besides the session: other cookies."""
    proxy, reader = proxy_of(), HeadReader(Limits())
    names = range(size // 100)
    other = b"; ".join(b"cookie%02d=%s" % (number, b"v" * 89) for number in names)
    head = (
        b"GET /oauth2/auth HTTP/1.1\r\nHost: app.example.com\r\nCookie: "
        + b"; ".join(filter(None, (seal(1), other)))
        + b"\r\n\r\n"
    )

    def check() -> Outcome:
        parsed = reader.read_single(head)
        assert parsed is not None
        return proxy.handle(Request(parsed.method, parsed.target, parsed.headers, PEER))

    def prepare(number: int) -> Callable[[], None]:
        check()
        assert is_allowed(check())

        def run() -> None:
            for _ in range(number):
                check()

        return run

    return prepare


CHARTS = (
    Chart(
        "Sessions in rotation",
        "sessions",
        (10, 100, 1_000, 10_000, 100_000, 1_000_000),
        (Curve("check", sessions),),
    ),
    Chart(
        "Access rules",
        "rules, each URL new",
        NUMBERS,
        (
            Curve("by path", rules_by_path),
            Curve("by pattern", rules_by_pattern),
            Curve("by host", rules_by_host),
        ),
    ),
    Chart(
        "Requests without a login",
        "entries",
        NUMBERS,
        (Curve("skip_auth_routes", skip_rules), Curve("trusted_ips", trusted_ips)),
    ),
    Chart(
        "Upstreams",
        "upstreams",
        NUMBERS,
        (Curve("by path", upstreams_by_path), Curve("by host", upstreams_by_host)),
    ),
    Chart(
        "Groups of a user",
        "groups",
        NUMBERS,
        (
            Curve("check", groups_checked),
            Curve("access rule", groups_of_rule),
            Curve("allowed_groups", groups_of_query),
        ),
    ),
    Chart(
        "Providers",
        "providers",
        (1, 5, 10, 50),
        (Curve("check", providers_checked), Curve("401", providers_anonymous)),
    ),
    Chart(
        "Size of the head",
        "bytes besides the session",
        (500, 2_000, 8_000, 30_000),
        (Curve("parsed and checked", header_bytes),),
    ),
)
