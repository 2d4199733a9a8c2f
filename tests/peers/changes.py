"""What the intended differences make of the original's answers."""

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
class Seen:
    """Two answers to one request; ``theirs`` has the changes of earlier entries."""

    configuration: Configuration
    case: Case
    theirs: Observed
    ours: Observed

    @property
    def options(self) -> dict[str, Any]:
        """The options of the configuration."""
        return self.configuration.options


def own_cookies(seen: Seen) -> Change:
    prefix = f"cookie: {seen.configuration.cookie}=…"
    lines = [line for line in seen.theirs.upstream if line != prefix]
    lines = [line.replace(f"; {prefix[8:]}", "") for line in lines]
    return {"upstream": tuple(lines)} if tuple(lines) != seen.theirs.upstream else {}


def identity_spoofs(seen: Seen) -> Change:
    """All names that could name a user are taken from the client's fields."""
    for option in ("skip_auth_strip_headers", "strip_identity_headers"):
        if seen.options.get(option) is False:
            return {}
    names = ("x-forwarded-", "x_forwarded_", "x-auth-request-")
    kept = tuple(
        line
        for line in seen.theirs.upstream
        if not (line.startswith(names) and line.endswith(": spoofed"))
    )
    return {"upstream": kept} if kept != seen.theirs.upstream else {}


def trusted(configuration: Configuration) -> bool:
    """Whether the tests' own address is one whose X-Forwarded-* we believe."""
    given = configuration.options.get("trusted_proxy_ips", ["127.0.0.1"])
    return bool(configuration.options.get("reverse_proxy")) and "127.0.0.1" in given


def origin_headers(seen: Seen) -> Change:
    """The upstream is always told host and scheme, and by trusted proxies alone."""
    if not seen.theirs.upstream or not seen.ours.upstream:
        return {}
    believed = seen.case.headers if trusted(seen.configuration) else {}
    host = believed.get("x-forwarded-host", seen.configuration.host)
    proto = believed.get("x-forwarded-proto", "http")
    names = {"x-forwarded-host": host, "x-forwarded-proto": proto}
    if not believed:
        names["x-forwarded-for"] = "127.0.0.1"
    dropped = {*names, *((FORWARDED if not believed else {}).keys())}
    lines = [
        line for line in seen.theirs.upstream if line.partition(": ")[0] not in dropped
    ]
    lines += [f"{name}: {value}" for name, value in names.items()]
    return {"upstream": (*lines[:2], *sorted(lines[2:]))}


def _identity_names(options: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The identity headers that the options send: upstream, and in answers."""
    told, said = set[str](), set[str]()
    if options.get("pass_basic_auth", True) or options.get("pass_user_headers", True):
        told = {"groups", "user", "preferred-username", "email"}
        if options.get("prefer_email_to_user"):
            told -= {"email"}
    if options.get("pass_access_token"):
        told |= {"access-token"}
    if options.get("set_xauthrequest"):
        said = {"groups", "user", "preferred-username", "email"}
        said |= told & {"access-token"}
    return (
        {f"x-forwarded-{name}" for name in told},
        {f"x-auth-request-{name}" for name in said},
    )


def _with_empty(lines: tuple[str, ...], names: set[str]) -> tuple[str, ...]:
    missing = names - {line.partition(": ")[0] for line in lines}
    return tuple(sorted((*lines, *(f"{name}: " for name in missing))))


def empty_identity(seen: Seen) -> Change:
    """What is not known of a user, or nobody is known of, is said as empty."""
    if seen.configuration.alpha:
        return {}
    told, said = _identity_names(seen.options)
    change: Change = {}
    lines, headers = seen.theirs.upstream, seen.theirs.headers
    if lines:
        change["upstream"] = (*lines[:2], *_with_empty(lines[2:], told))
    auth = seen.case.target.startswith("{P}/auth") and seen.theirs.status == 202
    if lines or auth or any(line.startswith("gap-auth") for line in headers):
        change["headers"] = _with_empty(headers, said)
    return change


def caching(seen: Seen) -> Change:
    if seen.ours.upstream or "no-store" not in "".join(seen.ours.caching):
        return {}
    if seen.theirs.caching == seen.ours.caching:
        return {}
    return {"caching": seen.ours.caching}


FORBIDDEN: Change = {
    "status": 403,
    "headers": (),
    "kind": "text/plain",
    "body": "Forbidden\n",
}


def constraints(seen: Seen) -> Change:
    names = ("auth, empty groups", "auth, behind a semicolon")
    if seen.case.name not in names or seen.theirs.status != 202:
        return {}
    return FORBIDDEN if seen.case.method != "HEAD" else {**FORBIDDEN, "body": ""}


def _ends_sessions(seen: Seen) -> bool:
    """Whether a session that may not come in ends in ours, too."""
    return seen.options.get("forbidden_session") == "clear"


def kept_session(seen: Seen) -> Change:
    """A sign-in page that is only looked at leaves a good session alone."""
    page = seen.case.target.startswith("{P}/sign_in")
    if not page or seen.case.who != "user" or _ends_sessions(seen):
        return {}
    kept = tuple(line for line in seen.theirs.cookies if "=; " not in line)
    return {"cookies": kept} if kept != seen.theirs.cookies else {}


def cleared_session(seen: Seen) -> Change:
    """Signing out clears the cookie even when the request didn't show it."""
    if not seen.case.target.startswith("{P}/sign_out") or seen.theirs.cookies:
        return {}
    if seen.theirs.status != 302:
        return {}
    [cleared] = seen.ours.cookies
    assert cleared.startswith(f"{seen.configuration.cookie}=; ")
    return {"cookies": (cleared,)}


def upstream_host(seen: Seen) -> Change:
    """The Host that the browser sees, when a trusted proxy says it."""
    host = seen.case.headers.get("x-forwarded-host")
    told = seen.theirs.upstream
    line = f"host: {seen.configuration.host}"
    if not host or not trusted(seen.configuration) or line not in told:
        return {}
    return {"upstream": tuple(f"host: {host}" if one == line else one for one in told)}


def kept_denied(seen: Seen) -> Change:
    """Who is logged in and may not come in gets 403, and stays logged in."""
    if not seen.configuration.relaxed or seen.case.who != "user":
        return {}
    if _ends_sessions(seen):
        return {}
    cleared = f"{seen.configuration.cookie}=; "
    if not any(line.startswith(cleared) for line in seen.theirs.cookies):
        return {}
    if seen.case.target.startswith(("{P}/sign_in", "{P}/sign_out")):
        return {}
    change: Change = {"cookies": ()}
    if seen.theirs.status == 401:
        body = "Forbidden\n" if seen.theirs.body else ""
        change |= {"status": 403, "body": body}
    return change


def login_request(seen: Seen) -> Change:
    """Nonce and PKCE are on."""
    parts = urllib.parse.urlsplit(seen.theirs.location)
    if not parts.path.endswith("/authorize"):
        return {}
    pairs = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
    if "code_challenge" not in pairs:
        pairs |= {"code_challenge": "*", "code_challenge_method": "S256"}
    if not seen.options.get("insecure_oidc_skip_nonce"):
        pairs["nonce"] = "*"
    query = urllib.parse.urlencode(sorted(pairs.items()))
    location = parts._replace(query=query).geturl()
    return {} if location == seen.theirs.location else {"location": location}


def semicolons(seen: Seen) -> Change:
    """A query is looked at as far as needed, and a semicolon is a letter like others."""
    targets = ("{P}/start?a=1;rd=/deep", "/deep?a=1;b=2", "/deep?x=%zz")
    if seen.case.target not in targets or seen.theirs.upstream:
        return {}
    ours = seen.ours
    assert ours.status in (302, seen.theirs.status)
    fields = ("status", "location", "cookies", "kind", "body")
    return {field: getattr(ours, field) for field in fields}


def callback_statuses(seen: Seen) -> Change:
    if seen.case.name == "callback, bad query" and seen.theirs.status != 308:
        return {"status": 400, "kind": "text/plain", "body": "Bad Request\n"}
    if seen.case.target.startswith("{P}/callback") and seen.theirs.status == 500:
        body = seen.theirs.body
        if seen.configuration.whole:
            body = body.replace("500 Internal Server Error", "403 Forbidden")
        return {"status": 403, "body": body}
    return {}


def placeholders(seen: Seen) -> Change:
    """A token is filled into addresses that were configured, and into no others."""
    if seen.case.name != "sign out with a placeholder":
        return {}
    location = seen.theirs.location
    for said in ("TOKEN", "{id_token}"):  # without a session it stays as it is
        location = location.replace(said, "")
    return {} if location == seen.theirs.location else {"location": location}


def https_targets(seen: Seen) -> Change:
    """The way to https leads to the address that a trusted proxy says."""
    uri = seen.case.headers.get("x-forwarded-uri")
    if seen.theirs.status != 308 or not uri:
        return {}
    return {"location": f"https://{seen.configuration.host}{uri}"}


def websocket(seen: Seen) -> Change:
    if seen.case.name != "page, websocket" or seen.theirs.status not in (302, 403):
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


def redirect_targets(seen: Seen) -> Change:
    ours = TARGETS.get(BY_CASE.get(seen.case.name, ""))
    if ours is None or seen.theirs.status == 308:
        return {}
    if seen.case.name.startswith("sign out"):
        return {"location": ours}
    if seen.theirs.location:  # no page, but on to the provider
        return {}
    if seen.configuration.whole:
        assert f"|{html.escape(ours)}|" in seen.ours.body
        return {"body": seen.ours.body}
    password = ", password" if seen.theirs.body.endswith(", password") else ""
    return {"body": f"to {[ours]}{password}"}


def clean_paths(seen: Seen) -> Change:
    """The redirect to a clean path comes after the login."""
    if seen.theirs.status != 301 or not seen.case.name.startswith("odd "):
        return {}
    ours = seen.ours
    if seen.ours.status == 301:
        return {"headers": ours.headers, "cookies": ours.cookies}
    assert ours.status in (302, 308, 401, 403, 502)
    return {
        field: getattr(ours, field)
        for field in ("status", "location", "cookies", "headers", "kind", "body")
    }


def ambiguous_paths(seen: Seen) -> Change:
    """A path that others may read as another one is skipped by no rule for paths."""
    if seen.case.name != "odd /deep/..;/x, nobody" or not seen.theirs.upstream:
        return {}
    if "trusted_ips" in seen.options:  # these rules don't look at paths
        return {}
    assert seen.ours.status == 403
    fields = ("status", "cookies", "headers", "kind", "body", "upstream")
    return {field: getattr(seen.ours, field) for field in fields}


def unseen_cookies(seen: Seen) -> Change:
    """A cookie of the store that the request does not show is not cleared."""
    if "session_store_type" not in seen.options or seen.case.who == "user":
        return {}
    if seen.case.who == "broken cookie" or "sign_out" in seen.case.target:
        return {}
    cleared = f"{seen.configuration.cookie}=; "
    kept = tuple(line for line in seen.theirs.cookies if not line.startswith(cleared))
    return {"cookies": kept} if kept != seen.theirs.cookies else {}


def static(seen: Seen) -> Change:
    """No list of what is there, and nothing but two stylesheets is."""
    if not seen.case.target.startswith("{P}/static/") or seen.ours.status == 308:
        return {}
    if seen.case.target == "{P}/static/css/bulma.min.css":
        assert (seen.ours.status, seen.ours.kind) == (200, "text/css")
    else:
        assert seen.ours.status == 404
    return {field: getattr(seen.ours, field) for field in Observed.__dataclass_fields__}


def sentences(seen: Seen) -> Change:
    body = seen.theirs.body
    for theirs, ours in (
        ("Authenticate using example.com", "Use your example.com account."),
        (
            "Authenticate using one of the following domains: example.com, example.org",
            "Use an account from one of these domains: example.com, example.org.",
        ),
    ):
        body = body.replace(theirs, ours)
    return {} if body == seen.theirs.body else {"body": body}
