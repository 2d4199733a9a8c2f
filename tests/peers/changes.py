"""The intended differences as changes of oauth2-proxy's responses.

Each function returns the fields that differ, and an empty dict if it does not apply.
"""

from __future__ import annotations

import html
import urllib.parse
from dataclasses import dataclass
from typing import Any, TypeAlias

from .cases import FORWARDED, RETURNS, Case
from .configurations import Configuration
from .observed import Observed

Change: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two responses to one request, of oauth2-proxy and of authproxy.

    ``expected`` is oauth2-proxy's response with the changes of earlier rows.
    """

    configuration: Configuration
    case: Case
    expected: Observed
    actual: Observed

    @property
    def options(self) -> dict[str, Any]:
        """The options of the configuration."""
        return self.configuration.options

    @property
    def host(self) -> str:
        """The host that authproxy reads from the request line or from Host."""
        parts = urllib.parse.urlsplit(self.case.target)
        own = self.configuration.host if self.case.host else "localhost"
        return parts.netloc or own


def dropped_cookies(comparison: Comparison) -> Change:
    prefix = f"cookie: {comparison.configuration.cookie}=…"
    lines = [line for line in comparison.expected.upstream if line != prefix]
    lines = [line.replace(f"; {prefix[8:]}", "") for line in lines]
    return (
        {"upstream": tuple(lines)}
        if tuple(lines) != comparison.expected.upstream
        else {}
    )


def identity_spoofs(comparison: Comparison) -> Change:
    """Header fields of the client that can name a user are stripped."""
    for option in ("skip_auth_strip_headers", "strip_identity_headers"):
        if comparison.options.get(option) is False:
            return {}
    names = ("x-forwarded-", "x_forwarded_", "x-auth-request-")
    kept = tuple(
        line
        for line in comparison.expected.upstream
        if not (line.startswith(names) and line.endswith(": spoofed"))
    )
    return {"upstream": kept} if kept != comparison.expected.upstream else {}


def trusts_tests(configuration: Configuration) -> bool:
    """Return whether the address of the tests is a trusted proxy."""
    given = configuration.options.get("trusted_proxy_ips", ["127.0.0.1"])
    return bool(configuration.options.get("reverse_proxy")) and "127.0.0.1" in given


def origin_headers(comparison: Comparison) -> Change:
    """Host and scheme are always forwarded, and trusted only of trusted proxies."""
    if not comparison.expected.upstream or not comparison.actual.upstream:
        return {}
    trusted = comparison.case.headers if trusts_tests(comparison.configuration) else {}
    host = trusted.get("x-forwarded-host", comparison.host)
    proto = trusted.get("x-forwarded-proto", "http")
    names = {"x-forwarded-host": host, "x-forwarded-proto": proto}
    if not trusted:
        names["x-forwarded-for"] = "127.0.0.1"
    dropped = {*names, *(() if trusted else (*FORWARDED, "x-real-ip"))}
    lines = [
        line
        for line in comparison.expected.upstream
        if line.partition(": ")[0] not in dropped
    ]
    lines += [f"{name}: {value}" for name, value in names.items()]
    return {"upstream": (*lines[:2], *sorted(lines[2:]))}


def _identity_names(options: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Return the identity headers that the options enable: of requests, of responses."""
    request, response = set[str](), set[str]()
    if options.get("pass_basic_auth", True) or options.get("pass_user_headers", True):
        request = {"groups", "user", "preferred-username", "email"}
        if options.get("prefer_email_to_user"):
            request -= {"email"}
    if options.get("pass_access_token"):
        request |= {"access-token"}
    if options.get("set_xauthrequest"):
        response = {"groups", "user", "preferred-username", "email"}
        response |= request & {"access-token"}
    return (
        {f"x-forwarded-{name}" for name in request},
        {f"x-auth-request-{name}" for name in response},
    )


def _with_empty(lines: tuple[str, ...], names: set[str]) -> tuple[str, ...]:
    missing = names - {line.partition(": ")[0] for line in lines}
    return tuple(sorted((*lines, *(f"{name}: " for name in missing))))


def empty_identity(comparison: Comparison) -> Change:
    """Missing claims, or all claims without a session, are sent as empty headers."""
    if comparison.configuration.alpha:
        return {}
    request, response = _identity_names(comparison.options)
    change: Change = {}
    lines, headers = comparison.expected.upstream, comparison.expected.headers
    if lines:
        names = request - {"authorization"}  # no empty credentials
        change["upstream"] = (*lines[:2], *_with_empty(lines[2:], names))
    auth = (
        comparison.case.target.startswith("{P}/auth")
        and comparison.expected.status == 202
    )
    if lines or auth or any(line.startswith("gap-auth") for line in headers):
        change["headers"] = _with_empty(headers, response)
    return change


def challenges(comparison: Comparison) -> Change:
    """Rejected credentials are answered with a challenge."""
    added = [
        line
        for line in comparison.actual.headers
        if line.startswith("www-authenticate: ")
    ]
    if not added or comparison.actual.status not in (401, 403):
        return {}
    return {"headers": tuple(sorted((*comparison.expected.headers, *added)))}


def caching(comparison: Comparison) -> Change:
    if comparison.actual.upstream or "no-store" not in "".join(
        comparison.actual.caching
    ):
        return {}
    if comparison.expected.caching == comparison.actual.caching:
        return {}
    return {"caching": comparison.actual.caching}


FORBIDDEN: Change = {
    "status": 403,
    "headers": (),
    "kind": "text/plain",
    "body": "Forbidden\n",
}


def constraints(comparison: Comparison) -> Change:
    names = ("auth, empty groups", "auth, after a semicolon")
    if comparison.case.name not in names or comparison.expected.status != 202:
        return {}
    return FORBIDDEN if comparison.case.method != "HEAD" else {**FORBIDDEN, "body": ""}


def _clears_forbidden(comparison: Comparison) -> bool:
    """Return whether authproxy also clears the session of a user without access."""
    return comparison.options.get("forbidden_session") == "clear"


def kept_session(comparison: Comparison) -> Change:
    """GET of the sign-in page does not end a valid session."""
    page = comparison.case.target.startswith("{P}/sign_in")
    if (
        not page
        or comparison.case.credentials != "user"
        or _clears_forbidden(comparison)
    ):
        return {}
    kept = tuple(line for line in comparison.expected.cookies if "=; " not in line)
    return {"cookies": kept} if kept != comparison.expected.cookies else {}


def cleared_session(comparison: Comparison) -> Change:
    """Sign-out clears the cookie even if the request does not contain it."""
    if (
        not comparison.case.target.startswith("{P}/sign_out")
        or comparison.expected.cookies
    ):
        return {}
    if comparison.expected.status != 302:
        return {}
    [cleared] = comparison.actual.cookies
    assert cleared.startswith(f"{comparison.configuration.cookie}=; ")
    return {"cookies": (cleared,)}


def upstream_host(comparison: Comparison) -> Change:
    """The Host is that of a trusted X-Forwarded-Host."""
    host = comparison.case.headers.get("x-forwarded-host")
    lines = comparison.expected.upstream
    line = f"host: {comparison.configuration.host}"
    if not host or not trusts_tests(comparison.configuration) or line not in lines:
        return {}
    return {"upstream": tuple(f"host: {host}" if one == line else one for one in lines)}


def kept_denied(comparison: Comparison) -> Change:
    """A signed-in user without access gets 403 and keeps the session."""
    if not comparison.configuration.relaxed or comparison.case.credentials != "user":
        return {}
    if _clears_forbidden(comparison):
        return {}
    cleared = f"{comparison.configuration.cookie}=; "
    if not any(line.startswith(cleared) for line in comparison.expected.cookies):
        return {}
    if comparison.case.target.startswith(("{P}/sign_in", "{P}/sign_out")):
        return {}
    change: Change = {"cookies": ()}
    if comparison.expected.status == 401:
        body = "Forbidden\n" if comparison.expected.body else ""
        change |= {"status": 403, "body": body}
    return change


def login_request(comparison: Comparison) -> Change:
    """The authorization request has a nonce and PKCE."""
    parts = urllib.parse.urlsplit(comparison.expected.location)
    if not parts.path.endswith("/authorize"):
        return {}
    pairs = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    if "code_challenge" not in pairs:
        pairs |= {"code_challenge": "*", "code_challenge_method": "S256"}
    if not comparison.options.get("insecure_oidc_skip_nonce"):
        pairs["nonce"] = "*"
    query = urllib.parse.urlencode(sorted(pairs.items()))
    location = parts._replace(query=query).geturl()
    return {} if location == comparison.expected.location else {"location": location}


def semicolons(comparison: Comparison) -> Change:
    """Semicolons and malformed parts of a query are accepted."""
    targets = ("{P}/start?a=1;rd=/deep", "/deep?a=1;b=2", "/deep?x=%zz")
    if comparison.case.target not in targets or comparison.expected.upstream:
        return {}
    actual = comparison.actual
    assert actual.status in (302, comparison.expected.status)
    fields = ("status", "location", "cookies", "kind", "body")
    return {field: getattr(actual, field) for field in fields}


def callback_statuses(comparison: Comparison) -> Change:
    if (
        comparison.case.name == "callback, bad query"
        and comparison.expected.status != 308
    ):
        return {"status": 400, "kind": "text/plain", "body": "Bad Request\n"}
    if (
        comparison.case.target.startswith("{P}/callback")
        and comparison.expected.status == 500
    ):
        body = comparison.expected.body
        if comparison.configuration.whole:
            body = body.replace("500 Internal Server Error", "403 Forbidden")
        return {"status": 403, "body": body}
    return {}


def placeholders(comparison: Comparison) -> Change:
    """``{id_token}`` is replaced only in configured URLs."""
    if comparison.case.name != "sign out with a placeholder":
        return {}
    location = comparison.expected.location
    # oauth2-proxy replaces the placeholder only with a session.
    for value in ("TOKEN", "{id_token}"):
        location = location.replace(value, "")
    return {} if location == comparison.expected.location else {"location": location}


def https_targets(comparison: Comparison) -> Change:
    """The HTTPS redirect uses the path of a trusted X-Forwarded-Uri."""
    uri = comparison.case.headers.get("x-forwarded-uri")
    if comparison.expected.status != 308 or not uri:
        return {}
    return {"location": f"https://{comparison.configuration.host}{uri}"}


def websocket(comparison: Comparison) -> Change:
    if comparison.case.name != "page, websocket" or comparison.expected.status not in (
        302,
        403,
    ):
        return {}
    return {
        "status": 401,
        "location": "",
        "kind": "application/json",
        "body": "{}",
        "cookies": (),
    }


TARGETS = {
    "/%2Fevil.example": "/",
    "/\tx": "/",
    "/a//b": "/a//b",
    "/a/../b": "/a/../b",
    "/ok?next=https://evil.example/": "/ok?next=https://evil.example/",
    "https://app.example.com/x": "/x",
    "http://app.example.com/x": "/x",
}
BY_CASE = {f"sign {way} to {rd!r}": rd for rd in RETURNS for way in ("in", "out")}


def redirect_targets(comparison: Comparison) -> Change:
    target = TARGETS.get(BY_CASE.get(comparison.case.name, ""))
    if target is None or comparison.expected.status == 308:
        return {}
    if comparison.case.name.startswith("sign out"):
        return {"location": target}
    if comparison.expected.location:  # a redirect to the provider, not a page
        return {}
    if comparison.configuration.whole:
        assert f"|{html.escape(target)}|" in comparison.actual.body
        return {"body": comparison.actual.body}
    password = ", password" if comparison.expected.body.endswith(", password") else ""
    return {"body": f"to {[target]}{password}"}


def clean_paths(comparison: Comparison) -> Change:
    """The redirect to a clean path follows the login."""
    if comparison.expected.status != 301 or not comparison.case.name.startswith("odd "):
        return {}
    actual = comparison.actual
    if actual.status == 301:
        assert "%25" not in actual.location
        return {"headers": actual.headers, "cookies": actual.cookies}
    assert actual.status in (302, 308, 400, 401, 403, 502)
    return {
        field: getattr(actual, field)
        for field in ("status", "location", "cookies", "headers", "kind", "body")
    }


def encoded_slashes(comparison: Comparison) -> Change:
    """The redirect to a clean path keeps an encoded slash as it is."""
    location = comparison.actual.location
    if comparison.actual.status != 301 or "%2F" not in location:
        return {}
    assert location == {"/a%2Fb//c": "/a%2Fb/c"}.get(comparison.case.target, "/b%2Fc")
    return {"location": location}


def html_unauthorized(comparison: Comparison) -> Change:
    """A browser's 401 at the auth endpoint has a link to the login."""
    expected, actual = comparison.expected, comparison.actual
    if expected.body != "Unauthorized\n" or actual.kind != "text/html":
        return {}
    assert actual.status == expected.status == 401
    return {"kind": actual.kind, "body": actual.body}


def rewritten_dots(comparison: Comparison) -> Change:
    """A rewritten path with a ``..`` segment gets 400."""
    if "/..;/" not in comparison.case.name or comparison.actual.status != 400:
        return {}
    assert comparison.configuration.alpha
    fields = ("status", "cookies", "headers", "kind", "body", "upstream")
    return {field: getattr(comparison.actual, field) for field in fields}


def plain_options(comparison: Comparison) -> Change:
    """An OPTIONS request that is no CORS preflight needs a login."""
    if (
        "skip_auth_preflight" not in comparison.options
        or comparison.case.method != "OPTIONS"
        or not comparison.expected.upstream
        or comparison.case.credentials == "user"
    ):
        return {}
    assert comparison.actual.status == 403
    fields = ("status", "cookies", "headers", "kind", "body", "upstream")
    return {field: getattr(comparison.actual, field) for field in fields}


def unseen_cookies(comparison: Comparison) -> Change:
    """The cookie of a stored session is cleared only if the request contains it."""
    if (
        "session_store_type" not in comparison.options
        or comparison.case.credentials == "user"
    ):
        return {}
    if (
        comparison.case.credentials == "broken cookie"
        or "sign_out" in comparison.case.target
    ):
        return {}
    cleared = f"{comparison.configuration.cookie}=; "
    kept = tuple(
        line for line in comparison.expected.cookies if not line.startswith(cleared)
    )
    return {"cookies": kept} if kept != comparison.expected.cookies else {}


def static(comparison: Comparison) -> Change:
    """There are two stylesheets and no directory listing."""
    if (
        not comparison.case.target.startswith("{P}/static/")
        or comparison.actual.status == 308
    ):
        return {}
    if comparison.case.target == "{P}/static/css/bulma.min.css":
        assert (comparison.actual.status, comparison.actual.kind) == (200, "text/css")
    else:
        assert comparison.actual.status == 404
    return {
        field: getattr(comparison.actual, field)
        for field in Observed.__dataclass_fields__
    }


def sentences(comparison: Comparison) -> Change:
    body = comparison.expected.body
    for text, replacement in (
        (": missing required Host header", "\n"),
        ("Authenticate using example.com", "Use your example.com account."),
        (
            "Authenticate using one of the following domains: example.com, example.org",
            "Use an account from one of these domains: example.com, example.org.",
        ),
    ):
        body = body.replace(text, replacement)
    return {} if body == comparison.expected.body else {"body": body}
