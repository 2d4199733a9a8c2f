"""Trailers that are forwarded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.trailers import FORBIDDEN_NAMES, MAX_TRAILERS, forwardable_trailers


@pytest.mark.parametrize("name", [b"grpc-status", b"server-timing", b"content-digest"])
def test_forwardable_trailers_harmless_name_kept(name: bytes) -> None:
    assert forwardable_trailers([(name, b"1")]) == ((name, b"1"),)


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-user",
        b"x_forwarded_user",
        b"x.auth-request-groups",
        b"transfer-encoding",
        b"transfer_encoding",
        b"content-length",
        b"authorization",
        b"set-cookie",
        b"host",
        b"remote_user",
        b"Upper",
        b"a b",
        b":status",
    ],
)
def test_forwardable_trailers_identity_or_framing_name_removed(name: bytes) -> None:
    assert forwardable_trailers([(name, b"1")]) == ()


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12))))
def test_forwardable_trailers_any_input_has_no_control_characters(
    fields: list[tuple[bytes, bytes]],
) -> None:
    for name, value in forwardable_trailers([*fields, (b"ok", b"1")] * 20):
        assert name not in FORBIDDEN_NAMES
        assert not set(name) & set(b"\r\n: ")
        assert not set(value) & set(b"\r\n\0")


def test_forwardable_trailers_number_is_limited() -> None:
    assert len(forwardable_trailers([(b"a", b"1")] * 1000)) == MAX_TRAILERS
