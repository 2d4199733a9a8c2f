"""Request signatures for upstreams: the header Gap-Signature of oauth2-proxy.

An upstream with the shared key can verify that authproxy forwarded the request, and
that method, target, body and identity headers are unmodified. oauth2-proxy deprecates
the feature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from ..effects import Flow, Outcome, ReadBody
from ..encoding import header_text
from ..endpoints.middleware import Handler
from ..identity.headers import folded
from ..messages import Decision, Forward, Headers, Request, header_values
from ..pages.outcomes import resolve_outcome
from ..settings.root import Secret, Settings

SIGNATURE_FIELDS = (b"gap-auth", b"gap-signature")
MAX_BODY_BYTES = 1 << 20  # a signed body is buffered in memory
# Signed in this order; an absent field counts as empty.
SIGNED_FIELDS = (
    b"content-length",
    b"content-md5",
    b"content-type",
    b"date",
    b"authorization",
    b"x-forwarded-user",
    b"x-forwarded-email",
    b"x-forwarded-preferred-user",
    b"x-forwarded-access-token",
    b"cookie",
    b"gap-auth",
)


def with_signing(settings: Settings, handler: Handler) -> Handler:
    """Wrap *handler* to sign forwarded requests if a signature_key is set."""
    key = settings.signature_key
    return Signer(key).wrap(handler) if key else handler


class Signer:
    """Signs forwarded requests; *key* is ``algorithm:key``, validated by settings."""

    def __init__(self, key: Secret) -> None:
        name, _, secret = key.value.partition(b":")
        self._name = name.decode()
        self._key = secret

    def wrap(self, handler: Handler) -> Handler:
        """Return a handler that signs the forwarded requests of *handler*."""

        def handle(request: Request) -> Outcome:
            return self._sign(request, handler(request))

        return handle

    def _sign(self, request: Request, outcome: Outcome) -> Flow[Decision]:
        decision = yield from resolve_outcome(outcome)
        if not isinstance(decision, Forward):
            return decision
        body = yield from ReadBody(MAX_BODY_BYTES, keep=True)
        kept = [
            field
            for field in decision.headers
            if folded(field[0]) not in SIGNATURE_FIELDS
        ]
        headers = (*kept, (b"gap-auth", header_text(decision.user)))
        value = self.signature(request, decision.target, headers, body)
        return replace(decision, headers=(*headers, (b"gap-signature", value)))

    def signature(
        self, request: Request, target: bytes, headers: Headers, body: bytes
    ) -> bytes:
        """Return the value of Gap-Signature; *target* and *headers* are as sent upstream.

        The signed path is that of *target*, the signed query that of *request*.
        """
        if body and not header_values(headers, b"content-length"):
            # The client sent chunks; the driver sends the buffered body with a length.
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        path = target.partition(b"?")[0]
        _, mark, query = request.target.partition(b"?")
        lines = [
            request.method,
            *(b",".join(header_values(headers, name)) for name in SIGNED_FIELDS),
            unquote_to_bytes(path) + (mark + query if query else b""),
        ]
        message = b"".join(line + b"\n" for line in lines) + body
        digest = hmac.new(self._key, message, getattr(hashlib, self._name)).digest()
        return self._name.encode() + b" " + base64.b64encode(digest)
