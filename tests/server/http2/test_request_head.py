"""Heads of HTTP/2 requests: valid in HTTP/1.1, too, or rejected."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy.http.request_head import MAX_COOKIES, HeadError, RequestHead
from authproxy.http2.field_kinds import make_entry
from authproxy.http2.request_head import build_request_head
from authproxy.server_settings import Limits
from authproxy_core.messages import Header

START = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"a"),
    (b":path", b"/"),
]


def build(
    fields: list[Header], limits: Limits | None = None, *, ended: bool = True
) -> RequestHead:
    entries = [make_entry(*field) for field in fields]
    return build_request_head(entries, limits or Limits(), ended=ended)


def replaced(name: bytes, *values: bytes) -> list[Header]:
    """Return the pseudo-header fields with *values* for *name*."""
    rest = [field for field in START if field[0] != name]
    return [*((name, value) for value in values), *rest]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [b":method", b":path", b":authority", b"host", b"cookie", b"x", b"te"]
            )
            | st.binary(max_size=8),
            st.sampled_from([b"GET", b"/", b"/x", b"a.example.com"])
            | st.binary(max_size=12),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_request_head_any_fields_valid_or_rejected(
    fields: list[Header], ended: bool
) -> None:
    try:
        head = build([(b":scheme", b"https"), *fields], ended=ended)
    except HeadError:
        return
    assert head.target.startswith(b"/")
    assert head.host
    names = [name for name, _ in head.headers]
    assert names.count(b"host") == 1
    assert names.count(b"cookie") <= 1
    assert not any(b"\n" in value or b"\r" in value for _, value in head.headers)
    assert head.fields == dict(head.headers)


@pytest.mark.parametrize(
    "fields",
    [
        *[[one for one in START if one[0] != name] for name, _ in START[:2]],
        replaced(b":path"),
        replaced(b":path", b"/", b"/"),
        [*START[:3], (b"x", b"1"), START[3]],  # RFC 9113 §8.3: pseudo-header first
        [*START[:3], (b"cookie", b"1"), START[3]],
        [*START, (b":status", b"200")],
        [*START, (b":protocol", b"websocket")],
        replaced(b":scheme", b"file"),
        replaced(b":authority", b"user@a"),
        replaced(b":authority", b""),
        replaced(b":path", b""),
        [*START, (b"host", b"b")],
        [*START, (b"host", b"a"), (b"host", b"a")],
        [*START, (b"X-Upper", b"1")],
        [*START, (b"", b"1")],
        [*START, (b"x", b" 1")],
        [*START, (b"x", b"1\t")],
        [*START, (b"x", b"a\0b")],
        [*START, (b"x", b"a\r\nb: c")],
        *[
            [*START, (name, b"x")]
            for name in (
                b"connection",
                b"keep-alive",
                b"proxy-connection",
                b"transfer-encoding",
                b"upgrade",
            )
        ],
        [*START, (b"te", b"gzip")],
        [*START, (b"content-length", b"5")],  # without a body
        [*START, (b"content-length", b"+0")],
    ],
)
def test_request_head_malformed_rejected(fields: list[Header]) -> None:
    with pytest.raises(HeadError) as rejected:
        build(fields)
    assert rejected.value.status == 400


def test_request_head_fields_are_taken() -> None:
    fields = [
        (b"te", b"trailers"),
        (b"content-length", b"7"),
        (b"expect", b"100-Continue"),
    ]
    cookies = [(b"cookie", b"a=1"), (b"x", b""), (b"cookie", b"b=2")]
    head = build([*START, *fields, *cookies], ended=False)
    assert (head.method, head.target, head.host, head.minor) == (b"GET", b"/", "a", 2)
    assert head.fields[b"cookie"] == b"a=1; b=2"
    assert head.fields[b"x"] == b""
    assert (head.length, head.expects_continue) == (7, True)
    assert build(START, ended=False).length is None
    assert build(START).length == 0
    assert build([*replaced(b":authority"), (b"host", b"b")]).host == "b"
    with pytest.raises(HeadError, match="neither"):
        build(replaced(b":authority"))


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", "/ä?ü".encode(), b"/%C3%A4?%C3%BC"),
        (b"OPTIONS", b"*", b"*"),
        (b"FOO", b"/", b"/"),
        (b"GET", b"*", None),
        (b"GET", b"http://a/", None),
        (b"GET", b"/\xe4", None),
        (b"GET", b"/a#b", None),
    ],
)
def test_request_head_unusual_target(
    method: bytes, target: bytes, expected: bytes | None
) -> None:
    fields = [(b":method", method), (b":path", target), *START[1:3]]
    if expected is not None:
        assert build(fields).target == expected
        return
    with pytest.raises(HeadError) as rejected:
        build(fields)
    assert rejected.value.status == 400


def test_request_head_empty_cookies_add_no_separators() -> None:
    """The joined value would end with a space, which is no part of a value."""
    for values, joined in (
        ((b"", b""), b""),
        ((b"a=1", b"", b"b=2", b""), b"a=1; b=2"),
    ):
        head = build([*START, *((b"cookie", value) for value in values)])
        assert head.fields[b"cookie"] == joined


def test_request_head_with_too_many_cookies_rejected() -> None:
    """In one field or in several."""
    half = b"; ".join([b"a=1"] * (MAX_COOKIES // 2))
    cookies = [(b"cookie", half)] * 2
    assert len(build([*START, *cookies]).fields[b"cookie"]) > 2 * len(half)
    with pytest.raises(HeadError) as rejected:
        build([*START, *cookies, (b"cookie", b"b=2")])
    assert rejected.value.status == 431


@pytest.mark.parametrize("more", [0, 1])
def test_request_head_limits(more: int) -> None:
    limits = Limits(head_bytes=2048, header_count=20, target_bytes=512)
    size = sum(len(name) + len(value) + 32 for name, value in START)
    for fields, refusal in (
        ([*START[:3], (b":path", b"/" + b"a" * (511 + more))], 414),
        ([*START, *((b"x-%d" % n, b"1") for n in range(20 + more))], 431),
        ([*START, (b"x", b"a" * (2048 - size - 33 + more))], 431),
    ):
        if not more:
            assert build(fields, limits).host == "a"
            continue
        with pytest.raises(HeadError) as refused:
            build(fields, limits)
        assert refused.value.status == refusal
