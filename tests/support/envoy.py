"""A simulation of Envoy with its ext_authz filter.

Envoy has no package that the tests could install. This gateway does what Envoy's
``http_service`` does with ``deploy/envoy.yaml``, after the header_mutation filter:

- The check has the method, Host and path of the request, with ``path_prefix`` before
  the path. It has only the headers in ``allowed_headers``, Authorization, and no body.
- 200 allows the request. The headers in ``allowed_upstream_headers`` replace those of
  the client, and those in ``allowed_client_headers_on_success`` are added to the
  application's response.
- Any other response goes to the client.
- The client's X-Forwarded-Proto and X-Forwarded-For are replaced at the edge; other
  X-Forwarded-* fields are kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from support.certificates import Certificate
from support.http import Reply
from support.ports import LOOPBACK
from support.traefik import Pairs, Traefik, _forward, _send, _without


class Envoy(Traefik):
    """The simulated gateway with the filters in *file*."""

    def __init__(
        self, auth_port: int, app_port: int, certificate: Certificate, file: Path
    ) -> None:
        super().__init__(auth_port, app_port, certificate)
        filters = {
            one["name"].rpartition(".")[2]: one["typed_config"]
            for one in yaml.safe_load(file.read_text())["http_filters"]
        }
        config = filters["ext_authz"]
        mutations = filters["header_mutation"]["mutations"]["request_mutations"]
        self._removed = [one["remove"] for one in mutations]
        service = config["http_service"]
        response = service["authorization_response"]
        self._prefix = service["path_prefix"]
        self._request_headers = _Patterns(config["allowed_headers"])
        self._upstream_headers = _Patterns(response["allowed_upstream_headers"])
        self._client_headers = _Patterns(response["allowed_client_headers_on_success"])

    def answer(self, method: str, target: str, headers: Pairs, body: bytes) -> Reply:
        """Return the response to a request with the headers of `at_entry`."""
        if target.startswith("/oauth2/"):
            return _forward(self.auth_port, method, target, headers, body)
        headers = _without(headers, *self._removed)
        checked = [
            pair
            for pair in headers
            if pair[0].lower() in ("host", "authorization")
            or pair[0] in self._request_headers
        ]
        check = _send(self.auth_port, method, self._prefix + target, checked)
        if check.status != 200:
            return check
        identity = [pair for pair in check.headers if pair[0] in self._upstream_headers]
        sent = _without(headers, *(name for name, _ in identity)) + identity
        reply = _forward(self.app_port, method, target, sent, body)
        added = tuple(pair for pair in check.headers if pair[0] in self._client_headers)
        return Reply(reply.url, reply.status, (*reply.headers, *added), reply.body)

    def at_entry(self, headers: Pairs) -> Pairs:
        """Return the headers of a client after Envoy's edge processing."""
        kept = _without(headers, "x-forwarded-proto", "x-forwarded-for", "x-real-ip")
        return [*kept, ("x-forwarded-proto", "https"), ("x-forwarded-for", LOOPBACK)]


class _Patterns:
    """Envoy's string matchers for header names."""

    def __init__(self, config: dict[str, Any]) -> None:
        texts = [
            re.escape(one["exact"])
            if "exact" in one
            else re.escape(one["prefix"]) + ".*"
            for one in config["patterns"]
        ]
        self._pattern = re.compile("|".join(texts), re.IGNORECASE)

    def __contains__(self, name: str) -> bool:
        return self._pattern.fullmatch(name) is not None
