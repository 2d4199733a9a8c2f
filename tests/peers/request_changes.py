"""The intended differences in how requests are read and forwarded, as changes.

Each function returns the fields of oauth2-proxy's response that differ, and an empty
dict if it does not apply.
"""

from __future__ import annotations

import re
import string
import urllib.parse

from .cases import HOST
from .changes import Change, Comparison
from .observed import Observed

REJECTED_METHODS = {"TRACE": 405, "CONNECT": 405, "get": 400}
SECURITY_HEADERS = (
    "content-security-policy: ",
    "cross-origin-opener-policy: ",
    "referrer-policy: ",
    "x-content-type-options: ",
    "x-frame-options: ",
)
# Escapes in URLs, HTML and JavaScript, and the escaped characters.
ESCAPES = re.compile(
    r"&[#\w]+;|\\u\w{4}|%(?:25)*[0-9A-Fa-f]{2}|[^\w/?]|[^\x00-\x7f]", re.ASCII
)
# An encoded slash or percent sign, overlong or full-width characters, dots and spaces.
AMBIGUOUS = re.compile(r"%2f|%25|%c0|%ff|%ef|/\.\.\.|\.%20")
MALFORMED = re.compile(r"^$|^[^/]|^//|[# ]|%zz")
LITERAL = ("target, raw UTF-8", "target, forbidden characters", "odd /public/..\\")
ASCII = string.ascii_letters + string.digits + string.punctuation + " "


def _as_authproxy(comparison: Comparison) -> Change:
    return {
        field: getattr(comparison.actual, field)
        for field in Observed.__dataclass_fields__
    }


def methods(comparison: Comparison) -> Change:
    """TRACE, CONNECT and methods in lower case are rejected."""
    status = REJECTED_METHODS.get(comparison.case.method)
    if status is None:
        return {}
    assert comparison.actual.status == status
    assert not comparison.actual.upstream
    return _as_authproxy(comparison)


def security_headers(comparison: Comparison) -> Change:
    """Responses that are not the application's have security headers."""
    actual, expected = comparison.actual, comparison.expected
    if actual.upstream:
        return {}
    added = [
        line
        for line in actual.headers
        if line.startswith(SECURITY_HEADERS) and line not in expected.headers
    ]
    return {"headers": tuple(sorted((*expected.headers, *added)))} if added else {}


def login_cookie_names(comparison: Comparison) -> Change:
    """Each login has a cookie of its own; its name contains an ID."""
    name = comparison.configuration.cookie
    cookies = (
        line.replace(f"{name}_csrf=", f"{name}_ID_csrf=")
        for line in comparison.expected.cookies
    )
    return {"cookies": tuple(cookies)}


def compression(comparison: Comparison) -> Change:
    """The upstream is asked for gzip only if the client asks."""
    if "accept-encoding" in comparison.case.headers:
        return {}
    lines = comparison.expected.upstream
    kept = tuple(line for line in lines if line != "accept-encoding: gzip")
    return {"upstream": kept} if kept != lines else {}


def encoded(text: str) -> str:
    """Return *text* with percent-encoded bytes beyond ASCII, given as Latin-1."""
    return urllib.parse.quote(text, safe=ASCII, encoding="latin-1")


def _without_escapes(text: str) -> str:
    return ESCAPES.sub("", text)


def request_lines(comparison: Comparison) -> Change:
    """Targets are read as ASCII in origin-form."""
    case, expected, actual = comparison.case, comparison.expected, comparison.actual
    if case.target == f"http://{HOST}" and expected.status == 301:
        return _as_authproxy(comparison)
    if case.target == "/deep?" and "rewriteTarget" in comparison.configuration.alpha:
        return {"upstream": tuple(one.removesuffix("?") for one in expected.upstream)}
    if expected.upstream:
        line, *rest = expected.upstream
        line = encoded(re.sub(" http://[^/]+", " ", line))
        if not case.host:
            rest = [re.sub("^host: .*", "host: localhost", one) for one in rest]
        return {"upstream": (line, *rest)}
    change: Change = {}
    if not case.host:
        location = expected.location.replace("https:///", "https://localhost/")
        change["location"] = location.replace("%2F%2F%2F", "%2F%2Flocalhost%2F")
    elif case.name.startswith(LITERAL):
        for field in ("location", "body"):
            one, other = getattr(expected, field), getattr(actual, field)
            if _without_escapes(one) == _without_escapes(other):
                change[field] = other
    return change


def redirect_links(comparison: Comparison) -> Change:
    """All redirects have a body with a link."""
    if comparison.actual.body != "a link to it" or comparison.expected.body:
        return {}
    return {"kind": "text/html", "body": "a link to it"}


def _original(comparison: Comparison) -> str:
    """Return the target that a gateway names, or that of the request itself."""
    case = comparison.case
    return case.headers.get("x-forwarded-uri", case.target).lower()


def ambiguous_paths(comparison: Comparison) -> Change:
    """No bypass rule applies to a path that programs may read in different ways."""
    denied = comparison.actual.status in (401, 403)
    allowed = comparison.expected.upstream or comparison.expected.status == 202
    if not denied or not allowed or not AMBIGUOUS.search(_original(comparison)):
        return {}
    assert {"skip_auth_regex", "skip_auth_routes"} & comparison.options.keys()
    return _as_authproxy(comparison)


def malformed_targets(comparison: Comparison) -> Change:
    """A target or a forwarded URI that is not in origin-form gets 400."""
    if not MALFORMED.search(_original(comparison)) or comparison.actual.status != 400:
        return {}
    return _as_authproxy(comparison)


ADDRESSES_OTHERWISE_READ = {
    "X-Forwarded-For: '[10.9.9.9]'": 202,
    "X-Forwarded-For: '10.9.9.9:'": 401,
    "X-Forwarded-For: '10.9.9.9:abc'": 401,
    "X-Real-IP: '10.9.9.9, 203.0.113.9'": 401,
    "X-Real-IP: '10.9.9.9\\r\\nX-Real-IP: 203.0.113.9'": 401,
}


def client_addresses(comparison: Comparison) -> Change:
    """An address has brackets or a port of digits, and a header with one value one."""
    status = ADDRESSES_OTHERWISE_READ.get(comparison.case.name)
    if status is None or comparison.expected.status == status:
        return {}
    if "192.0.2.0/24" in comparison.options["trusted_proxy_ips"][:1]:
        return {}  # the peer is not trusted, so the header does not count
    assert comparison.actual.status == status
    return _as_authproxy(comparison)


def cookie_domains(comparison: Comparison) -> Change:
    """Domains are compared by labels; a host outside all of them gets none."""
    host = comparison.case.headers.get("Host", "").partition(":")[0].lower()
    domains = comparison.options.get("cookie_domains", [])
    if not host or len(domains) < 2:
        return {}
    matching = [one for one in domains if f".{host}".endswith(one)]
    domain = f" Domain={matching[0][1:]};" if matching else ""
    cookies = (
        re.sub(r" Domain=[^;]+;", domain, line) for line in comparison.expected.cookies
    )
    return {"cookies": tuple(cookies)}


def long_targets(comparison: Comparison) -> Change:
    """A target that a login cannot keep is answered with 414."""
    if len(comparison.case.target) <= 16 << 10:
        return {}
    if comparison.actual.status == 414:
        return _as_authproxy(comparison)
    return {"body": re.sub(r"^to \['/.*'\]", "to ['/']", comparison.expected.body)}
