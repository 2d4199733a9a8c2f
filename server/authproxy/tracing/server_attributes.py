"""Attributes of a request's span, named by OpenTelemetry's conventions for HTTP.

Left out: the query, because it may contain codes and tokens; all fields but User-Agent;
the user.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from authproxy_core.errors import RequestError
from authproxy_core.request.original import TrustedProxies
from authproxy_core.settings.root import Settings

from ..logs.formatter import ClientResolver, RequestRecord
from ..logs.redact import clip
from .limits import MAX_ATTRIBUTE_LENGTH

Attributes = dict[str, str | int]

# Other methods become _OTHER, so that clients cannot add values.
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
OTHER_METHOD = "_OTHER"
# nginx escapes the question mark of auth_request, so a query may follow "%3F".
QUERY = re.compile(rb"\?|%3f", re.IGNORECASE)
PROTOCOLS = ("1.0", "1.1", "2")


class ServerAttributes:
    """Makes attributes from the data of the request log.

    *endpoints* are the paths of authproxy itself, the only ones that names contain.
    """

    def __init__(self, core: Settings, endpoints: Collection[bytes]) -> None:
        self._resolver = ClientResolver(core)
        self._trust = TrustedProxies(core)
        self._behind_proxy = core.reverse_proxy
        self._endpoints = endpoints

    def name(self, record: RequestRecord) -> str:
        """Return the name of the span: the method, and the path of an endpoint."""
        method = record.request.method.decode()
        if method not in METHODS:
            method = "HTTP"
        route = self._route(record)
        return f"{method} {route}" if route else method

    def of(self, record: RequestRecord) -> Attributes:
        """Return the attributes of the ended request."""
        request, head = record.request, record.head
        method = request.method.decode()
        known = method in METHODS
        address, port = self._server(record)
        agent = head.fields.get(b"user-agent", b"").decode(errors="replace")
        found: dict[str, str | int] = {
            "http.request.method": method if known else OTHER_METHOD,
            "http.request.method_original": "" if known else method,
            "http.response.status_code": record.status,
            "http.route": self._route(record),
            "network.peer.address": request.peer,
            "network.protocol.version": PROTOCOLS[head.minor],
            "client.address": self._client(record),
            "server.address": address,
            "server.port": port,
            "url.path": clip(
                _path(request.target).decode(errors="replace"), MAX_ATTRIBUTE_LENGTH
            ),
            "url.scheme": self._scheme(record),
            "user_agent.original": clip(agent, MAX_ATTRIBUTE_LENGTH),
            "authproxy.request_id": request.id,
            "authproxy.reason": record.reason,
            "authproxy.upstream": record.upstream,
            "authproxy.verdict": record.verdict,
        }
        return {name: value for name, value in found.items() if value}

    def _route(self, record: RequestRecord) -> str:
        path = _path(record.request.target)
        return path.decode() if path in self._endpoints and not record.upstream else ""

    def _client(self, record: RequestRecord) -> str:
        if not self._behind_proxy:
            return record.request.peer
        return self._resolver.client(record).strip("@")

    def _server(self, record: RequestRecord) -> tuple[str, int]:
        host = self._resolver.host(record).encode(errors="replace").decode()
        name, _, port = host.rpartition(":")
        if not (name and port.isdecimal()):
            name, port = host, "0"
        return name.strip("-"), int(port)

    def _scheme(self, record: RequestRecord) -> str:
        if self._behind_proxy:
            try:
                return self._trust.original(record.request).scheme
            except RequestError:
                pass  # the response was 400
        return "https" if record.request.secure else "http"


def _path(target: bytes) -> bytes:
    return QUERY.split(target, maxsplit=1)[0]
