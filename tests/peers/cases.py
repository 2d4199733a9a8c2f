"""The requests that both programs receive in every configuration.

``{P}`` in a target stands for `proxy_prefix`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, TypeAlias

HOST = "app.example.com"
# The credentials of a request.
Credentials: TypeAlias = Literal[
    "none", "user", "broken cookie", "bearer", "bad bearer", "basic", "bad basic"
]
ALL_CREDENTIALS: tuple[Credentials, ...] = (
    "none",
    "user",
    "broken cookie",
    "bearer",
    "bad bearer",
    "basic",
    "bad basic",
)
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"accept": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
FORWARDED = {
    "x-forwarded-method": "GET",
    "x-forwarded-proto": "https",
    "x-forwarded-host": "other.example.com",
    "x-forwarded-uri": "/deep?x=1",
    "x-forwarded-for": "203.0.113.9",
}
BROKEN = "bm90LWEtc2Vzc2lvbg==|1700000000|bm90LWEtc2lnbmF0dXJl"
BAD_BEARER = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJldmUifQ.c2lnbmF0dXJl"


def basic(user: str, password: str) -> str:
    """The Basic credentials of *user*."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True)
class Case:
    """A request; ``cookies`` are sent in addition to those of ``credentials``.

    ``host`` is False for a request without Host.
    """

    name: str
    target: str
    method: str = "GET"
    credentials: Credentials = "none"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    cookies: str = ""
    protocol: str = "HTTP/1.1"
    host: bool = True


def _credentials() -> Iterator[Case]:
    """Common requests with each kind of credentials."""
    for name, target, headers in (
        ("auth", "{P}/auth", {}),
        ("userinfo", "{P}/userinfo", {}),
        ("page", "/deep?x=1", BROWSER),
        ("json", "/deep?x=1", JSON),
        ("sign in", "{P}/sign_in", BROWSER),
        ("public", "/public/a", BROWSER),
    ):
        for credentials in ALL_CREDENTIALS:
            yield Case(f"{name}, {credentials}", target, "GET", credentials, headers)


def _methods() -> Iterator[Case]:
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        yield Case(f"auth, {method}", "{P}/auth", method, "user")
        yield Case(f"page, {method}, none", "/deep", method, headers=BROWSER)
        yield Case(f"page, {method}, user", "/deep", method, "user")
    for method in ("HEAD", "POST"):
        yield Case(f"start, {method}", "{P}/start?rd=/deep", method)
        yield Case(f"sign in, {method}", "{P}/sign_in", method, headers=BROWSER)
        yield Case(f"sign out, {method}", "{P}/sign_out", method, "user")
        yield Case(f"userinfo, {method}", "{P}/userinfo", method, "user")
        yield Case(f"ping, {method}", "/ping", method)


def _constraints() -> Iterator[Case]:
    for name, query in {
        "group": "allowed_groups=admin",
        "one of the groups": "allowed_groups=x,staff",
        "groups twice": "allowed_groups=x&allowed_groups=staff",
        "no such group": "allowed_groups=unknown",
        "empty groups": "allowed_groups=",
        "group in other case": "allowed_groups=Admin",
        "email": "allowed_emails=alice@example.com,bob@example.com",
        "other email": "allowed_emails=a@b.c",
        "domain": "allowed_email_domains=example.com",
        "subdomain": "allowed_email_domains=.com",
        "other domain": "allowed_email_domains=b.c",
        "all domains": "allowed_email_domains=*",
        "group and other domain": "allowed_groups=staff&allowed_email_domains=b.c",
        "after a semicolon": "x=1;allowed_groups=unknown",
        "with a bad escape": "allowed_groups=staff&x=%zz",
    }.items():
        yield Case(f"auth, {name}", f"{{P}}/auth?{query}", credentials="user")
    yield Case("auth, group, none", "{P}/auth?allowed_groups=admin")
    yield Case(
        "page, no such group", "/deep?allowed_groups=unknown", credentials="user"
    )
    yield Case(
        "userinfo, group", "{P}/userinfo?allowed_groups=unknown", credentials="user"
    )


def _forwarded() -> Iterator[Case]:
    for name, headers in {
        "all": FORWARDED,
        "proto": {"x-forwarded-proto": "https"},
        "host": {"x-forwarded-host": "other.example.com"},
        "uri": {"x-forwarded-uri": "/public/x"},
        "real ip": {"x-real-ip": "203.0.113.7"},
        "user ip": {"x-proxyuser-ip": "203.0.113.7"},
    }.items():
        yield Case(
            f"auth, forwarded {name}", "{P}/auth", credentials="user", headers=headers
        )
        yield Case(f"auth, forwarded {name}, none", "{P}/auth", headers=headers)
        yield Case(f"start, forwarded {name}", "{P}/start", headers=headers)
        yield Case(f"page, forwarded {name}", "/deep", headers={**BROWSER, **headers})
        yield Case(f"page, forwarded {name}, user", "/deep", "GET", "user", headers)


RETURNS = (
    "/deep?x=1",
    "/deep#part",
    "",
    "deep",
    "//evil.example",
    "/\\evil.example",
    "/%2Fevil.example",
    "/a//b",
    "/a/../b",
    "/ok?next=https://evil.example/",
    "https://evil.example/",
    "https://app.example.com/x",
    "http://app.example.com/x",
    "https://sub.example.org/x",
    "https://example.org/",
    "https://evil.example:8443/x",
    "https://a.wild.test:99/",
    "javascript:alert(1)",
    "{P}/sign_in",
    "/\tx",
)


def _returns() -> Iterator[Case]:
    """Redirect targets of logins, pages and sign-outs."""
    for rd in RETURNS:
        quoted = rd.replace("%", "%25").replace("#", "%23").replace("&", "%26")
        quoted = quoted.replace("\\", "%5C").replace("\t", "%09").replace("?", "%3F")
        target = f"{{P}}/sign_in?rd={quoted}"
        yield Case(f"sign in to {rd!r}", target, headers=BROWSER)
        yield Case(
            f"sign out to {rd!r}", f"{{P}}/sign_out?rd={quoted}", credentials="user"
        )
    header = {"x-auth-request-redirect": "/from-header"}
    yield Case("sign in to a header", "{P}/sign_in", headers={**BROWSER, **header})
    yield Case("start to a header", "{P}/start", headers=header)
    yield Case("rd twice", "{P}/sign_in?rd=/a&rd=/b", headers=BROWSER)
    form = {**BROWSER, **FORM}
    yield Case("rd in a form", "{P}/sign_in", "POST", headers=form, body="rd=/deep")
    yield Case("sign out by a form", "{P}/sign_out", "POST", "user", FORM, "rd=/bye")
    placeholder = "{P}/sign_out?rd=/bye%3Fhint%3D%7Bid_token%7D"
    yield Case("sign out with a placeholder", placeholder, credentials="user")
    yield Case("sign out, none", "{P}/sign_out")
    yield Case("start", "{P}/start?rd=/deep")
    yield Case("start, user", "{P}/start?rd=/deep", credentials="user")
    yield Case("start with a semicolon", "{P}/start?a=1;rd=/deep")
    yield Case("start with parameters", "{P}/start?prompt=none&login_hint=x")


def _passwords() -> Iterator[Case]:
    for name, body in {
        "right": "username=carol&password=secret&rd=/deep",
        "bcrypt": "username=dave&password=secret",
        "wrong": "username=carol&password=wrong",
        "unknown": "username=eve&password=secret",
        "empty": "username=&password=secret",
        "half": "username=carol",
    }.items():
        yield Case(
            f"password, {name}", "{P}/sign_in", "POST", "none", {**BROWSER, **FORM},
            body,
        )  # fmt: skip


def _callbacks() -> Iterator[Case]:
    for name, query in {
        "nothing": "",
        "unknown state": "?code=x&state=y%3A/deep",
        "no code": "?state=y%3A/deep",
        "error": "?error=access_denied&state=y:/",
        "error with text": "?error=server_error&error_description=a%25b&state=y:/",
        "bad state": "?code=x&state=%00",
        "bad query": "?code=%zz",
    }.items():
        yield Case(f"callback, {name}", f"{{P}}/callback{query}", headers=BROWSER)
    yield Case("callback, POST", "{P}/callback", "POST", headers=FORM, body="code=x")


def _paths() -> Iterator[Case]:
    """Unknown endpoints, unusual paths and public paths."""
    for target in (
        "/", "/ping", "/ready", "/robots.txt", "/alive", "/isready", "/ping/",
        "/liveness_check", "/open", "/api/v1", "/public", "/app", "/app/x", "/favicon.ico",
        "{P}", "{P}/", "{P}/auth/", "{P}/unknown", "{P}/static/", "{P}/%61uth",
        "{P}/static/css/bulma.min.css", "{P}/static/none",
    ):  # fmt: skip
        yield Case(f"path {target}, none", target, headers=BROWSER)
        yield Case(f"path {target}, user", target, credentials="user")
    for target in (
        "/a//b", "/a/../b", "/a/./b", "/a%2F%2Fb", "/%2e%2e/x", "/deep/..;/x", "/public/../deep",
        "/a%2Fb//c", "/a/b%2Fc/../d", "/a%2fb", "/a/%2E%2E/b%2Fc",
        "/deep?a=1;b=2", "/deep?x=%zz", "/public/%2e%2e/deep", "/files/a.txt", "/files/",
        "/files/none", "/deep", "/deep/down/under?z=1&a=2",
    ):  # fmt: skip
        yield Case(f"odd {target}, none", target, headers=BROWSER)
        yield Case(f"odd {target}, user", target, credentials="user")
    probe = {"user-agent": "probe/1"}
    google = {"user-agent": "GoogleHC/1.0"}
    for path in ("/ping", "/alive", "/liveness_check"):
        yield Case(f"probe of {path}", path, headers=probe)
        yield Case(f"Google's check of {path}", path, headers=google)


def _spoofed() -> Iterator[Case]:
    for name in (
        "X-Forwarded-User", "X_Forwarded_User", "X-Forwarded-Email", "X-Forwarded-Groups",
        "X-Forwarded-Access-Token", "X-Auth-Request-User", "Authorization", "X-Mixed",
    ):  # fmt: skip
        yield Case(
            f"spoofed {name}", "/deep", credentials="user", headers={name: "spoofed"}
        )
    for answer in (
        "X-Auth-Request-User=app", "Set-Cookie=a=1; Path=/", "Gap-Auth=app", "Server=app",
        "X-Static=app", "Cache-Control=max-age=60", "X-Frame-Options=DENY",
    ):  # fmt: skip
        headers = {"X-Answer-With": answer}
        name = f"response header {answer}"
        yield Case(name, "/deep", credentials="user", headers=headers)
    yield Case("foreign cookies", "/deep", credentials="user", cookies="a=1; b=2")
    yield Case("a body", "/deep", "POST", "user", FORM, "a=1")


def _negotiation() -> Iterator[Case]:
    for name, headers in {
        "no accept": {},
        "json with weight": {"accept": "application/json;q=0.9"},
        "html and json": {"accept": "text/html, application/json"},
        "ajax": {**BROWSER, "x-requested-with": "XMLHttpRequest"},
        "anything": {"accept": "*/*"},
    }.items():
        yield Case(f"page, {name}", "/deep", headers=headers)
        yield Case(f"auth, {name}", "{P}/auth", headers=headers)
    upgrade = {"connection": "Upgrade", "upgrade": "websocket"}
    yield Case("page, websocket", "/deep", headers={**upgrade, "accept": "*/*"})


def _request_lines() -> Iterator[Case]:
    """Unusual methods, forms of the target, versions and lengths."""
    for method in ("FOO", "PROPFIND", "TRACE", "CONNECT", "get"):
        yield Case(f"page, {method}", "/deep", method, "user")
        yield Case(f"auth, {method}", "{P}/auth", method, "user")
    for name, target in {
        "raw UTF-8": "/d\u00e9ep/\u4e2d?q=\u00fc",
        "escaped UTF-8": "/d%C3%A9ep?q=%C3%BC",
        "absolute form": f"http://{HOST}/deep?x=1",
        "absolute form, other host": "http://other.example.com/deep",
        "absolute form, no path": f"http://{HOST}",
        "plus": "/deep+x?y=a+b",
        "encoded slash": "/deep/a%2Fb?x=%2F",
        "escapes in lower case": "/deep/a%2fb%c3%a9",
        "unreserved characters": "/deep/%7Eu/~u/%2D;x@:!$&'()*,=",
        "forbidden characters": '/deep/"<>`{}|^?"<>`{}|^',
        "question marks": "/deep??x=1?&",
        "empty query": "/deep?",
        "2 kB": f"/deep?x={'a' * 2048}",
        "4 kB": f"/deep?x={'a' * 4096}",
        "8 kB": f"/deep?x={'a' * 8192}",
        "17 kB": f"/deep?x={'a' * 17408}",
    }.items():
        yield Case(f"target, {name}, none", target, headers=BROWSER)
        yield Case(f"target, {name}, user", target, credentials="user")
    users: tuple[Credentials, ...] = ("none", "user")
    for user in users:
        yield Case(f"OPTIONS *, {user}", "*", "OPTIONS", user)
        for version, host in (("1.0", True), ("1.0", False), ("1.1", False)):
            yield Case(
                f"HTTP/{version}{'' if host else ' without Host'}, {user}", "/deep",
                credentials=user, protocol=f"HTTP/{version}", host=host,
            )  # fmt: skip


def _sorted(cases: Iterator[Case]) -> tuple[Case, ...]:
    """Return *cases*; those that end a stored session of the user come last."""
    ends = ("{P}/sign_in", "{P}/sign_out")
    return tuple(
        sorted(
            cases,
            key=lambda case: (
                ends.index(case.target.partition("?")[0]) + 1
                if case.credentials == "user" and case.target.startswith(ends)
                else 0
            ),
        )
    )


CASES: tuple[Case, ...] = _sorted(
    chain(
        _credentials(),
        _methods(),
        _constraints(),
        _forwarded(),
        _returns(),
        _passwords(),
        _callbacks(),
        _paths(),
        _spoofed(),
        _negotiation(),
        _request_lines(),
    )
)
