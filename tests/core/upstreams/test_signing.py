"""Request signatures: covered parts and format."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest

from authproxy_core import Forward, ReadBody, Respond, UpstreamSettings
from authproxy_core.drive import drive_sync
from authproxy_core.messages import Header, first_header
from authproxy_core.settings.root import Secret, SettingsError
from support.harness import Harness, settings

APP = UpstreamSettings(id="app", uri="http://10.0.0.9:8080/")


def signing_harness(**changes: Any) -> Harness:
    changes = {"upstreams": (APP,), "signature_key": Secret("sha256:key"), **changes}
    harness = Harness(settings(**changes))
    harness.log_in()
    return harness


def forward(harness: Harness, target: str, *headers: Header, **changes: Any) -> Forward:
    decision = harness.send(target, *headers, **changes)
    assert isinstance(decision, Forward)
    return decision


def test_signature_covers_method_headers_target_and_body() -> None:
    harness = signing_harness(inject_request_headers=())
    harness.body = b"a=1"
    decision = forward(
        harness,
        "/a%20b?x=%20&y",
        (b"content-length", b"3"),
        (b"content-type", b"text/plain"),
        (b"cookie", b"other=1"),
        (b"gap-signature", b"forged"),
        (b"gap-auth", b"forged"),
        method=b"POST",
    )
    expected = (
        b"POST\n3\n\ntext/plain\n\n\n\n\n\n\nother=1\nalice@example.com\n"
        b"/a b?x=%20&y\na=1"
    )
    digest = hmac.new(b"key", expected, hashlib.sha256).digest()
    assert first_header(decision.headers, b"gap-signature") == (
        b"sha256 " + base64.b64encode(digest)
    )
    assert first_header(decision.headers, b"gap-auth") == b"alice@example.com"


def test_signed_request_keeps_body() -> None:
    harness = signing_harness()
    seen = []

    def perform(effect: Any) -> bytes:
        seen.append(effect)
        return b""

    request = harness.request("/")
    outcome = harness.proxy.handle(request)
    assert not isinstance(outcome, Respond | Forward)
    drive_sync(outcome, perform)
    [read] = seen
    assert isinstance(read, ReadBody)
    assert (read.limit, read.keep) == (1 << 20, True)


def test_signature_covers_length_of_chunked_body() -> None:
    harness = signing_harness(inject_request_headers=())
    harness.body = b"a=1"
    signatures = {
        first_header(forward(harness, "/", *fields).headers, b"gap-signature")
        for fields in ((), ((b"content-length", b"3"),))
    }
    assert len(signatures) == 1


def test_signing_leaves_other_responses() -> None:
    harness = signing_harness()
    harness.jar.clear()
    assert harness.get("/").status == 403


@pytest.mark.parametrize(
    ("key", "good"),
    [("sha1:k", True), ("md5:k", True), ("", True), ("sha1", False), ("sha1:", False),
     ("sha3:k", False), ("sha1:a:b", False), (":k", False)],
)  # fmt: skip
def test_signature_key_validation(key: str, good: bool) -> None:
    if good:
        Harness(settings(signature_key=Secret(key)))
        return
    with pytest.raises(SettingsError) as caught:
        Harness(settings(signature_key=Secret(key)))
    [problem] = caught.value.problems
    assert problem.startswith("signature_key: got a secret (not shown), expected")
