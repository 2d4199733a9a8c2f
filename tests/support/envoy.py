"""A gateway that sends the requests which Envoy's ext_authz filter sends.

Envoy itself can't be installed here. What its ``http_service`` does is this, for the
configuration in ``deploy/envoy.yaml``, behind the header_mutation filter:

- The check has the method, the Host and the path of the request, the path behind
  ``path_prefix``; of its headers only those that ``allowed_headers`` names (and
  Authorization); no body.
- 200 lets the request pass, with the headers of the answer that
  ``allowed_upstream_headers`` names in place of the client's; those of
  ``allowed_client_headers_on_success`` are added to the application's answer.
- Every other answer goes to the client.
- At the edge the client's X-Forwarded-Proto and -For are replaced, other X-Forwarded-*
  are not.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from support.certificates import Certificate
from support.http import Reply
from support.ports import LOOPBACK
from support.traefik import Pairs, Traefik, _ask, _passed_on, _without


class Envoy(Traefik):
    """The gateway, configured by the filters in *file*."""

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
        answer = service["authorization_response"]
        self._prefix = service["path_prefix"]
        self._told = _Patterns(config["allowed_headers"])
        self._believed = _Patterns(answer["allowed_upstream_headers"])
        self._shown = _Patterns(answer["allowed_client_headers_on_success"])

    def answer(self, method: str, target: str, headers: Pairs, body: bytes) -> Reply:
        """What the client gets for a request whose headers are those of the entry."""
        if target.startswith("/oauth2/"):
            return _passed_on(self.auth_port, method, target, headers, body)
        headers = _without(headers, *self._removed)
        told = [
            pair
            for pair in headers
            if pair[0].lower() in ("host", "authorization") or pair[0] in self._told
        ]
        check = _ask(self.auth_port, method, self._prefix + target, told)
        if check.status != 200:
            return check
        believed = [pair for pair in check.headers if pair[0] in self._believed]
        sent = _without(headers, *(name for name, _ in believed)) + believed
        reply = _passed_on(self.app_port, method, target, sent, body)
        shown = tuple(pair for pair in check.headers if pair[0] in self._shown)
        return Reply(reply.url, reply.status, (*reply.headers, *shown), reply.body)

    def at_entry(self, headers: Pairs) -> Pairs:
        """What Envoy makes of a client's headers as they come."""
        kept = _without(headers, "x-forwarded-proto", "x-forwarded-for", "x-real-ip")
        return [*kept, ("x-forwarded-proto", "https"), ("x-forwarded-for", LOOPBACK)]


class _Patterns:
    """A list of Envoy's string matchers, for names of headers."""

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
