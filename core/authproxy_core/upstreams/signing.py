"""Signed requests for upstreams: the header Gap-Signature (deprecated in oauth2-proxy).

An upstream that shares the key can tell that a request came by way of this proxy, and
that nobody changed its method, target, body or what it says about the user.
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
MAX_BODY_BYTES = (
    1 << 20
)  # bytes of a body that is signed; it is held in memory for that
# What is signed, in this order; an absent field counts as an empty one.
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
    """*handler*, whose forwards are signed when *settings* have a key."""
    key = settings.signature_key
    return Signer(key).wrap(handler) if key else handler


class Signer:
    """Signs what is forwarded; *key* is ``algorithm:key``, which settings check."""

    def __init__(self, key: Secret) -> None:
        name, _, secret = key.value.partition(b":")
        self._name = name.decode()
        self._key = secret

    def wrap(self, handler: Handler) -> Handler:
        """*handler*, whose forwards are signed."""

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
        """The value of Gap-Signature; *target* and *headers* are as sent upstream.

        The path is that of *target*, the query as it came.
        """
        if body and not header_values(headers, b"content-length"):
            # It came in chunks; its size is known now, and is what the driver sends.
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
