"""The compared parts of a response: what gateways, browsers and upstreams use."""

from __future__ import annotations

import html
import json
import re
import urllib.parse
from dataclasses import dataclass
from typing import Any

from support.http import Reply

# Fields of the connection or the representation, and fields that are compared apart.
NOT_COMPARED = frozenset(
    {
        "accept-ranges",
        "connection",
        "content-length",
        "content-type",
        "date",
        "expires",
        "last-modified",
        "location",
        "set-cookie",
        "transfer-encoding",
        "cache-control",
        "x-accel-expires",
    }
)
# Random values: only their presence is compared.
RANDOM = ("state", "nonce", "code_challenge", "code")
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
HREF = re.compile(r'href="([^"]*)"')
RD = re.compile(r'name="rd"[^>]*value="([^"]*)"')
LINK = re.compile(r'href="[^"]*/(?:start|sign_in|sign_out)\?([^"]*)"')
# Fields of a forwarded request that the connection or the framing determines.
NOT_FORWARDED = ("connection", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Observed:
    """A response without the values that differ between runs."""

    status: int
    location: str
    cookies: tuple[str, ...]
    headers: tuple[str, ...]
    caching: tuple[str, ...]
    kind: str
    body: str
    upstream: tuple[str, ...]


def observe(reply: Reply, *, cookie: str, whole: bool = False) -> Observed:
    """Return the compared parts of *reply*.

    *cookie* is the name of the session cookie. *whole* compares the text of pages.
    """
    kind = reply.header("content-type").partition(";")[0]
    upstream: tuple[str, ...] = ()
    body = ""
    if location := reply.header("location"):
        # Browsers do not show the body of a redirect; programs may read its link.
        links = [html.unescape(one) for one in HREF.findall(reply.text)]
        if urllib.parse.unquote(location) in map(urllib.parse.unquote, links):
            body = "a link to it"
        else:
            body = reply.text
        kind = kind if body else ""
    elif kind == "text/html":
        body = _page_text(reply) if whole else _page_summary(reply)
    elif kind == "application/json" and b'"target"' in reply.body:
        upstream = _forwarded_request(json.loads(reply.body), cookie)
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


def differences(one: Observed, other: Observed) -> dict[str, tuple[Any, Any]]:
    """Return the fields in which the two differ, with both values."""
    return {
        name: (getattr(one, name), getattr(other, name))
        for name in Observed.__dataclass_fields__
        if getattr(one, name) != getattr(other, name)
    }


def _location(location: str) -> str:
    parts = urllib.parse.urlsplit(location)
    if not parts.path.endswith("/authorize"):
        return TOKEN.sub("TOKEN", location)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    fixed = sorted((name, "*" if name in RANDOM else value) for name, value in query)
    return parts._replace(query=urllib.parse.urlencode(fixed)).geturl()


def _cookie(line: str, session: str) -> str:
    """Return the name, whether there is a value, and the attributes."""
    pair, _, attributes = line.partition("; ")
    name, _, value = pair.partition("=")
    # The ID of a login is random.
    name = re.sub(rf"^{re.escape(session)}_.+_csrf$", f"{session}_ID_csrf", name)
    # The session's time may be one second before the cookie's.
    attributes = re.sub(r"(?<=Max-Age=)\d+9\b", _increment, attributes)
    return f"{name}={'…' if value else ''}; {attributes}"


def _increment(match: re.Match[str]) -> str:
    return str(int(match[0]) + 1)


def _headers(reply: Reply) -> tuple[str, ...]:
    """Return the other header fields, joined by name, with tokens replaced."""
    values: dict[str, list[str]] = {}
    for name, value in reply.headers:
        if name.lower() not in NOT_COMPARED:
            values.setdefault(name.lower(), []).append(TOKEN.sub("TOKEN", value))
    return tuple(sorted(f"{name}: {','.join(items)}" for name, items in values.items()))


def _forwarded_request(received: dict[str, Any], cookie: str) -> tuple[str, ...]:
    """Return the compared parts of the request that reached the upstream."""
    values: dict[str, list[str]] = {}
    for name, value in received["headers"]:
        if name in NOT_FORWARDED:
            continue
        if name == "cookie":
            value = re.sub(rf"{re.escape(cookie)}\w*=[^;]*", f"{cookie}=…", value)
        if name == "gap-signature":
            # covers tokens and fields that only one program sends
            value = value.partition(" ")[0]
        values.setdefault(name, []).append(TOKEN.sub("TOKEN", value))
    fields = sorted(f"{name}: {','.join(items)}" for name, items in values.items())
    line = f"{received['method']} {received['target']}"
    return (line, f"body: {received['body']}", *fields)


def _page_summary(reply: Reply) -> str:
    """Return the redirect targets of a page, and whether it has a password field."""
    found = {html.unescape(value) for value in RD.findall(reply.text)}
    for query in LINK.findall(reply.text):
        found |= {*urllib.parse.parse_qs(html.unescape(query)).get("rd", ["/"])}
    password = 'type="password"' in reply.text
    return f"to {sorted(found)}" + (", password" if password else "")


def _page_text(reply: Reply) -> str:
    return REQUEST_ID.sub("ID", reply.text)


def _plain(kind: str, reply: Reply) -> str:
    if kind == "application/json" and reply.body:
        return json.dumps(json.loads(reply.body), sort_keys=True)
    return reply.text
