"""What is compared of an answer: what a gateway or a browser acts upon."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from support.http import Reply

IDENTITY = (
    "gap-auth",
    "x-auth-request-user",
    "x-auth-request-email",
    "x-auth-request-preferred-username",
    "x-auth-request-groups",
)
# Random by their nature: only whether they are there is compared.
RANDOM = ("state", "nonce", "code_challenge")


@dataclass(frozen=True)
class Observed:
    """An answer, without what differs from one run to the next."""

    status: int
    location: str
    cookies: tuple[str, ...]
    identity: tuple[str, ...]
    bearer: bool
    caching: tuple[str, ...]
    kind: str
    body: str


def observe(reply: Reply) -> Observed:
    """What *reply* amounts to."""
    # A redirect's body is nobody's business: browsers don't show it.
    kind = reply.header("content-type").partition(";")[0]
    kind = "" if reply.location else kind
    return Observed(
        status=reply.status,
        location=_location(reply.header("location")),
        cookies=tuple(sorted({_cookie(line) for line in reply.all("set-cookie")})),
        identity=tuple(f"{name}: {reply.header(name)}" for name in IDENTITY),
        bearer=reply.header("authorization").startswith("Bearer ey"),
        caching=tuple(reply.all("cache-control") + reply.all("x-accel-expires")),
        kind=kind,
        body=_body(kind, reply),
    )


def differences(theirs: Observed, ours: Observed) -> dict[str, tuple[object, object]]:
    """Field by field, where the two differ."""
    return {
        name: (getattr(theirs, name), getattr(ours, name))
        for name in Observed.__dataclass_fields__
        if getattr(theirs, name) != getattr(ours, name)
    }


def _location(location: str) -> str:
    parts = urllib.parse.urlsplit(location)
    query = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    fixed = sorted((name, "*" if name in RANDOM else value) for name, value in query)
    return parts._replace(query=urllib.parse.urlencode(fixed)).geturl()


def _cookie(line: str) -> str:
    """Name, whether it has a value, and the attributes as they stand."""
    pair, _, attributes = line.partition("; ")
    name, _, value = pair.partition("=")
    # A slot's or a state's own part of the name is random.
    name = re.sub(r"(?<=_oauth2_proxy_)[\w-]+(?=_csrf)|_csrf_\w+", "", name)
    return f"{name}={'…' if value else ''}; {attributes}"


def _body(kind: str, reply: Reply) -> str:
    """Pages are each one's own."""
    if kind == "text/html" or reply.location:
        return ""
    return reply.text
