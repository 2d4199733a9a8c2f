"""A small HTTP client that behaves like a browser without scripts.

It keeps cookies, follows redirects only when told to, accepts every certificate, and
can send a name such as ``app.example.com`` to a port of the loopback interface.
"""

from __future__ import annotations

import html
import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from support.ports import LOOPBACK

TIMEOUT = 60.0  # seconds for one answer
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Reply:
    """An answer; header names keep the spelling they came in."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """The first value of the header *name*, "" when it isn't there."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        """Every value of the header *name*, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def location(self) -> str:
        """Where a redirect leads, as an absolute URL; "" when it is none."""
        target = self.header("location")
        return urllib.parse.urljoin(self.url, target) if target else ""

    @property
    def query(self) -> dict[str, str]:
        """The parameters of `location`."""
        return parameters(self.location)


def parameters(url: str) -> dict[str, str]:
    """The query of *url*; of a repeated parameter the last value."""
    parts = urllib.parse.urlsplit(url)
    return dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))


def form_action(page: Reply, form_id: str = "") -> str:
    """The absolute URL that the page's (first) form is sent to."""
    for tag in re.findall(r"<form\b[^>]*>", page.text, re.DOTALL):
        if form_id and f'id="{form_id}"' not in tag:
            continue
        action = re.search(r'action="([^"]*)"', tag)
        if action:
            return urllib.parse.urljoin(page.url, html.unescape(action[1]))
    raise AssertionError(f"no form in the page at {page.url}:\n{page.text[:2000]}")


class Cookies:
    """A cookie jar: host-only and domain cookies, paths, deletion (RFC 6265 §5)."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, str], str] = {}

    def take(self, url: str, set_cookies: Iterable[str]) -> None:
        """Store what an answer from *url* sets."""
        host = urllib.parse.urlsplit(url).hostname or ""
        for line in set_cookies:
            pair, *attributes = (part.strip() for part in line.split(";"))
            name, _, value = pair.partition("=")
            found = {
                key.lower(): text
                for key, _, text in (part.partition("=") for part in attributes)
            }
            domain = found.get("domain", "").lstrip(".")
            scope = f".{domain}" if domain else host
            key = (scope, found.get("path") or "/", name)
            if found.get("max-age") == "0" or "1970" in found.get("expires", ""):
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def sent_to(self, url: str) -> str:
        """The Cookie header for *url*, "" for none; longer paths come first."""
        parts = urllib.parse.urlsplit(url)
        host, path = parts.hostname or "", parts.path or "/"
        fitting = [
            (cookie_path, f"{name}={value}")
            for (domain, cookie_path, name), value in self._values.items()
            if (host == domain or (f".{host}".endswith(domain) and domain[0] == "."))
            and f"{path}/".startswith(cookie_path.rstrip("/") + "/")
        ]
        fitting.sort(key=lambda found: -len(found[0]))
        return "; ".join(pair for _, pair in fitting)

    def named(self, prefix: str) -> dict[str, str]:
        """Names and values of the cookies whose names begin with *prefix*."""
        return {
            name: value
            for (_, _, name), value in self._values.items()
            if name.startswith(prefix)
        }

    def forget(self, prefix: str) -> None:
        """Drop the cookies whose names begin with *prefix*."""
        self._values = {
            key: value
            for key, value in self._values.items()
            if not key[2].startswith(prefix)
        }


class Client:
    """Sends requests; ``resolve`` maps an origin's host name to a loopback port."""

    def __init__(
        self,
        resolve: Mapping[str, int] | None = None,
        cookies: Cookies | None = None,
    ) -> None:
        self.resolve = dict(resolve or {})
        self.cookies = cookies or Cookies()

    def get(self, url: str, **headers: str) -> Reply:
        """GET; ``x_real_ip="…"`` is sent as ``x-real-ip``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", url, named.items())

    def submit(self, url: str, fields: Mapping[str, str]) -> Reply:
        """POST a form."""
        body = urllib.parse.urlencode(fields).encode()
        kind = ("content-type", "application/x-www-form-urlencoded")
        return self.request("POST", url, [kind], body)

    def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> Reply:
        """One request, one answer, no redirect followed."""
        parts = urllib.parse.urlsplit(url)
        sent = [*headers]
        cookie = self.cookies.sent_to(url)
        if cookie:
            sent.append(("cookie", cookie))
        if not any(name.lower() == "host" for name, _ in sent):
            sent.append(("host", parts.netloc))
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        reply = exchange(self._connect(parts), method, target, sent, body, url)
        self.cookies.take(url, reply.all("set-cookie"))
        return reply

    def follow(self, reply: Reply, until: str = "", limit: int = 10) -> Reply:
        """Follow redirects; stop before a location that begins with *until*."""
        for _ in range(limit):
            if reply.status not in REDIRECTS:
                return reply
            if until and reply.location.startswith(until):
                return reply
            reply = self.get(reply.location)
        raise AssertionError(f"more than {limit} redirects, last to {reply.location}")

    def _connect(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if host in self.resolve:
            host, port = LOOPBACK, self.resolve[host]
        if parts.scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    url: str = "",
) -> Reply:
    """Send exactly these headers (and a length, for a body) and read the answer."""
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        read = answer.read()
        return Reply(url or target, answer.status, tuple(answer.getheaders()), read)
    finally:
        connection.close()
