"""Messages: field lookups, immutability, errors, merged response headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from authproxy_core.errors import (
    AuthProxyError,
    ProviderError,
    SettingsError,
    TokenError,
)
from authproxy_core.messages import (
    Event,
    Forward,
    Header,
    Headers,
    Request,
    Respond,
    Response,
    ServeFile,
    Upstream,
    first_header,
    header_values,
    single_header,
)

HEADERS: Headers = ((b"host", b"a"), (b"cookie", b"x=1"), (b"cookie", b"y=2"))


def test_header_values_in_order() -> None:
    assert header_values(HEADERS, b"cookie") == [b"x=1", b"y=2"]
    assert header_values(HEADERS, b"accept") == []


def test_first_header_returns_first_or_none() -> None:
    assert first_header(HEADERS, b"cookie") == b"x=1"
    assert first_header(HEADERS, b"accept") is None


def test_single_header_repeated_field_returns_none() -> None:
    assert single_header(HEADERS, b"host") == b"a"
    assert single_header(HEADERS, b"cookie") is None
    assert single_header(HEADERS, b"accept") is None


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Request(b"GET", b"/", (), "127.0.0.1"), "target"),
        (lambda: Response(200), "status"),
        (lambda: Respond(202), "headers"),
        (lambda: Event("logged_in"), "kind"),
        (lambda: ServeFile("/srv", "/x"), "path"),
        (lambda: Upstream("a", "http", "a", 80), "host"),
        (
            lambda: Forward(Upstream("a", "http", "a", 80), b"GET", b"/", ()),
            "headers",
        ),
    ],
)
def test_messages_are_immutable(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(make(), field, None)


def test_errors_have_distinct_codes() -> None:
    def below(kind: type[AuthProxyError]) -> list[type[AuthProxyError]]:
        return [kind, *(kin for child in kind.__subclasses__() for kin in below(child))]

    kinds = [
        kind for kind in below(AuthProxyError) if kind.__module__.endswith("errors")
    ]
    assert all(400 <= kind.status_hint < 600 for kind in kinds)
    own = [kind.code for kind in kinds if "code" in vars(kind)]
    assert len(own) == len(set(own)) > 8


def test_errors_have_reasons() -> None:
    token = TokenError("expired", reason="expired", hint="check the clocks")
    provider = ProviderError("no", reason="invalid_grant")
    settings = SettingsError(("a: missing", "b: missing"))
    assert (token.reason, token.hint) == ("expired", "check the clocks")
    assert (provider.reason, provider.hint) == ("invalid_grant", "")
    assert settings.problems == ("a: missing", "b: missing")
    assert str(settings) == "a: missing\nb: missing"


def test_merge_response_headers_added_first_and_cookies_last() -> None:
    user, cookie = (b"gap-auth", b"alice"), (b"set-cookie", b"a=1")
    theirs = ((b"gap-auth", b"eve"), (b"set-cookie", b"a=2"))
    upstream = Upstream("app", "http", "h", 80)

    def answered(*ours: Header) -> Headers:
        forward = Forward(upstream, b"GET", b"/", (), ours)
        return forward.merge_response_headers(theirs)

    assert answered() == theirs
    assert answered(user) == (user, *theirs)
    assert answered(user, cookie) == (user, *theirs, cookie)
