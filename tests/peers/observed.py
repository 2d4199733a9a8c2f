"""What is compared of an answer: what a gateway, a browser or an upstream acts upon."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from support.http import Reply

# Names of the answer's own or the connection's business, and of what is compared apart.
NOT_COMPARED = frozenset(
    {
        "accept-ranges",
        "connection",
        "content-length",
        "content-security-policy",
        "content-type",
        "cross-origin-opener-policy",
        "cross-origin-resource-policy",
        "date",
        "expires",
        "last-modified",
        "location",
        "permissions-policy",
        "referrer-policy",
        "set-cookie",
        "transfer-encoding",
        "vary",
        "x-content-type-options",
        "x-frame-options",
        "cache-control",
        "x-accel-expires",
    }
)
# Random by their nature: only whether they are there is compared.
RANDOM = ("state", "nonce", "code_challenge", "code")
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
RD = re.compile(r'name="rd"[^>]*value="([^"]*)"')
LINK = re.compile(r'href="[^"]*/(?:start|sign_in)\?([^"]*)"')
# What an upstream is told and acts upon.
TOLD = (
    "gap-auth",
    "gap-signature",
    "authorization",
    "cookie",
    "host",
    "content-type",
    "x-mixed",
    "x-groups",
)


@dataclass(frozen=True)
class Observed:
    """An answer, without what differs from one run to the next."""

    status: int
    location: str
    cookies: tuple[str, ...]
    headers: tuple[str, ...]
    caching: tuple[str, ...]
    kind: str
    body: str
    upstream: tuple[str, ...]


def observe(reply: Reply, *, cookie: str, whole: bool = False) -> Observed:
    """What *reply* amounts to; *cookie* is the session cookie's name.

    With *whole* pages are compared word by word.
    """
    kind = reply.header("content-type").partition(";")[0]
    upstream: tuple[str, ...] = ()
    body = ""
    # A redirect's body is nobody's business: browsers don't show it.
    if reply.header("location"):
        kind = ""
    elif kind == "text/html":
        body = _whole(reply) if whole else _page(reply)
    elif kind == "application/json" and b'"target"' in reply.body:
        upstream = _told(json.loads(reply.body), cookie)
    else:
        body = _plain(kind, reply)
    return Observed(
        status=reply.status,
        location=_location(reply.header("location")),
        cookies=tuple(
            sorted({_cookie(line, cookie) for line in reply.all("set-cookie")})
        ),
        headers=_headers(reply),
        caching=tuple(reply.all("cache-control") + reply.all("x-accel-expires")),
        kind=kind,
        body=body,
        upstream=upstream,
    )


def differences(theirs: Observed, ours: Observed) -> dict[str, tuple[Any, Any]]:
    """Field by field, where the two differ."""
    return {
        name: (getattr(theirs, name), getattr(ours, name))
        for name in Observed.__dataclass_fields__
        if getattr(theirs, name) != getattr(ours, name)
    }


def _location(location: str) -> str:
    parts = urllib.parse.urlsplit(location)
    if not parts.path.endswith("/authorize"):
        return TOKEN.sub("TOKEN", location)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    fixed = sorted((name, "*" if name in RANDOM else value) for name, value in query)
    return parts._replace(query=urllib.parse.urlencode(fixed)).geturl()


def _cookie(line: str, session: str) -> str:
    """Name, whether it has a value, and the attributes as they stand."""
    pair, _, attributes = line.partition("; ")
    name, _, value = pair.partition("=")
    if "_csrf" in name:  # a slot's or a state's own part of the name is random
        name = f"{session}…csrf"
    # A second may begin between the session's time and the cookie's.
    attributes = re.sub(r"(?<=Max-Age=)\d+9\b", _next, attributes)
    return f"{name}={'…' if value else ''}; {attributes}"


def _next(match: re.Match[str]) -> str:
    return str(int(match[0]) + 1)


def _headers(reply: Reply) -> tuple[str, ...]:
    """What else the answer says, joined by name, with tokens made alike."""
    values: dict[str, list[str]] = {}
    for name, value in reply.headers:
        if name.lower() not in NOT_COMPARED:
            values.setdefault(name.lower(), []).append(TOKEN.sub("TOKEN", value))
    return tuple(sorted(f"{name}: {','.join(found)}" for name, found in values.items()))


def _told(received: dict[str, Any], cookie: str) -> tuple[str, ...]:
    """What the upstream was told, by name."""
    values: dict[str, list[str]] = {}
    for name, value in received["headers"]:
        if name in TOLD or name.startswith(("x-forwarded", "x_forwarded", "x-auth")):
            if name == "cookie":
                value = re.sub(rf"{re.escape(cookie)}\w*=[^;]*", f"{cookie}=…", value)
            if name == "gap-signature":  # of tokens, and of what only one of them sends
                value = value.partition(" ")[0]
            values.setdefault(name, []).append(TOKEN.sub("TOKEN", value))
    told = sorted(f"{name}: {','.join(found)}" for name, found in values.items())
    line = f"{received['method']} {received['target']}"
    return (line, f"body: {received['body']}", *told)


def _page(reply: Reply) -> str:
    """Pages are each one's own: where they lead, and whether they ask for a password."""
    found = {html.unescape(value) for value in RD.findall(reply.text)}
    for query in LINK.findall(reply.text):
        found |= {*urllib.parse.parse_qs(html.unescape(query)).get("rd", ["/"])}
    password = 'type="password"' in reply.text
    return f"to {sorted(found)}" + (", password" if password else "")


def _whole(reply: Reply) -> str:
    return REQUEST_ID.sub("ID", reply.text)


def _plain(kind: str, reply: Reply) -> str:
    if kind == "application/json" and reply.body:
        return json.dumps(json.loads(reply.body), sort_keys=True)
    return reply.text
