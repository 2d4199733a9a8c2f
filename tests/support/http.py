"""A small HTTP client that behaves like a browser without scripts.

It stores cookies, follows redirects only on request, accepts every certificate, and
connects to a loopback port for host names such as ``app.example.com``.
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

TIMEOUT = 60.0  # seconds for one response
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Reply:
    """A response; header names keep their spelling."""

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Return the first value of the header *name*, "" if it is absent."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        """Return all values of the header *name*, in order."""
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
        """The redirect target as an absolute URL; "" without a redirect."""
        target = self.header("location")
        return urllib.parse.urljoin(self.url, target) if target else ""

    @property
    def query(self) -> dict[str, str]:
        """The query parameters of `location`."""
        return parameters(self.location)


def parameters(url: str) -> dict[str, str]:
    """Return the query parameters of *url*; the last value of duplicates."""
    parts = urllib.parse.urlsplit(url)
    return dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))


def form_action(page: Reply, form_id: str = "") -> str:
    """Return the absolute action URL of the form *form_id*, or of the first form."""
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
        """Store the Set-Cookie values of a response from *url*."""
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
        """Return the Cookie header for *url*, "" for none; longer paths first."""
        parts = urllib.parse.urlsplit(url)
        host, path = parts.hostname or "", parts.path or "/"
        matching = [
            (cookie_path, f"{name}={value}")
            for (domain, cookie_path, name), value in self._values.items()
            if (host == domain or (f".{host}".endswith(domain) and domain[0] == "."))
            and f"{path}/".startswith(cookie_path.rstrip("/") + "/")
        ]
        matching.sort(key=lambda found: -len(found[0]))
        return "; ".join(pair for _, pair in matching)

    def named(self, prefix: str) -> dict[str, str]:
        """Return names and values of the cookies whose names start with *prefix*."""
        return {
            name: value
            for (_, _, name), value in self._values.items()
            if name.startswith(prefix)
        }

    def forget(self, prefix: str) -> None:
        """Delete the cookies whose names start with *prefix*."""
        self._values = {
            key: value
            for key, value in self._values.items()
            if not key[2].startswith(prefix)
        }


class Client:
    """Sends requests; *resolve* maps host names to loopback ports."""

    def __init__(
        self,
        resolve: Mapping[str, int] | None = None,
        cookies: Cookies | None = None,
    ) -> None:
        self.resolve = dict(resolve or {})
        self.cookies = cookies or Cookies()

    def get(self, url: str, **headers: str) -> Reply:
        """Send GET; ``x_real_ip="…"`` is sent as ``x-real-ip``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("GET", url, named.items())

    def submit(self, url: str, fields: Mapping[str, str]) -> Reply:
        """Send a form by POST."""
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
        """Send one request; return the response without following redirects."""
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
        """Follow redirects; stop before a location that starts with *until*."""
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
    """Send exactly these headers, and Content-Length for a body; read the response."""
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        content = response.read()
        headers = tuple(response.getheaders())
        return Reply(url or target, response.status, headers, content)
    finally:
        connection.close()
