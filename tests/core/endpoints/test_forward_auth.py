"""The forward-auth endpoint: 2xx, redirect to the login, 401, and return."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import FetchError, Respond, Settings
from authproxy_core.access.membership import (
    Constraints,
    parse_auth_constraints,
    parse_constraints,
)
from authproxy_core.errors import RequestError
from authproxy_core.pages.challenge import is_navigation
from authproxy_core.request.original import TrustedProxies
from support.harness import Harness, header, headers, provider_settings, settings

GATEWAY = "10.0.0.1"
UNTRUSTED = "203.0.113.9"
BROWSER = (
    (b"accept", b"text/html,application/xhtml+xml,*/*;q=0.8"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
)
TRAEFIK = (
    (b"host", b"authproxy:4180"),
    (b"x-forwarded-method", b"GET"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"app.example.com"),
    (b"x-forwarded-uri", b"/deep/page?x=1&y=https://other.example/#"[:-1]),
)
DEEP = "/deep/page?x=1&y=https://other.example/"


def behind(**changes: Any) -> Harness:
    """A harness behind a trusted gateway."""
    return Harness(settings(reverse_proxy=True, trusted_proxies=(GATEWAY,), **changes))


def ask(
    harness: Harness, *fields: Any, target: str = "/oauth2/forward_auth", **changes: Any
) -> Respond:
    """Return the response to an auth request with *fields*."""
    return harness.get(target, *fields, **{"peer": GATEWAY, **changes})


def location(response: Respond) -> str:
    return header(response, b"location").decode()


def rd_of(response: Respond) -> str:
    [rd] = parse_qs(urlsplit(location(response)).query)["rd"]
    return rd


@pytest.mark.parametrize("skip_button", [False, True])
def test_forward_auth_browser_behind_traefik_logs_in_and_returns(
    skip_button: bool,
) -> None:
    harness = behind(skip_provider_button=skip_button)
    response = ask(harness, *TRAEFIK, *BROWSER)
    assert response.status == 302
    if not skip_button:
        # Traefik resolves a relative URL against authproxy's address.
        assert location(response).startswith(
            "https://app.example.com/oauth2/sign_in?rd="
        )
        assert rd_of(response) == DEEP
        response = harness.get(f"/oauth2/start?{urlsplit(location(response)).query}")
    back = harness.finish_login(location(response))
    assert location(back) == DEEP
    passed = ask(harness, *TRAEFIK, *BROWSER)
    assert passed.status == 202
    assert header(passed, b"x-auth-request-email") == b"alice@example.com"
    assert passed.reusable or ask(harness, *TRAEFIK).reusable


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"accept", b"*/*"),),
        ((b"accept", b"application/json"),),
        ((b"accept", b"text/html;q=0, application/json"),),
        ((b"accept", b"text/html"), (b"x-requested-with", b"XMLHttpRequest")),
        ((b"accept", b"text/html"), (b"upgrade", b"websocket")),
        (*BROWSER[:1], (b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty")),
        (*BROWSER[:2], (b"sec-fetch-dest", b"image")),
        ((b"accept", b"application/json"), *BROWSER[1:]),
        (*BROWSER, (b"x-forwarded-method", b"POST")),
    ],
)
def test_forward_auth_api_request_gets_401_json(fields: Any) -> None:
    harness = behind()
    names = {name for name, _ in fields}
    gateway = [field for field in TRAEFIK if field[0] not in names]
    response = ask(harness, *gateway, *fields)
    assert response.status == 401
    assert header(response, b"content-type") == b"application/json"
    document = orjson.loads(response.body)
    assert document["error"] == "login_required"
    assert document["sign_in"].startswith("https://app.example.com/oauth2/sign_in?rd=")
    assert b"no-store" in header(response, b"cache-control")


@pytest.mark.parametrize(
    "fields",
    [
        BROWSER,
        BROWSER[1:],
        (*BROWSER[:2], (b"sec-fetch-dest", b"iframe")),
        BROWSER[:2],
        ((b"accept", b"application/xhtml+xml;q=0.1"),),
        ((b"accept", b"text/html;q=0.05"),),
    ],
)
def test_forward_auth_navigation_redirected_to_login(fields: Any) -> None:
    assert is_navigation(b"GET", fields)
    assert is_navigation(b"HEAD", fields)
    assert not is_navigation(b"POST", fields)
    assert ask(behind(), *TRAEFIK, *fields).status == 302


def test_forward_auth_force_json_errors_returns_401() -> None:
    harness = behind(force_json_errors=True)
    assert ask(harness, *TRAEFIK, *BROWSER).status == 401


@pytest.mark.parametrize("skip_button", [False, True])
def test_forward_auth_login_at_callback_host(skip_button: bool) -> None:
    harness = behind(
        redirect_url="https://auth.example.com/oauth2/callback",
        whitelist_domains=(".example.com",),
        skip_provider_button=skip_button,
    )
    response = ask(harness, *TRAEFIK, *BROWSER)
    page = "start" if skip_button else "sign_in"
    assert location(response).startswith(f"https://auth.example.com/oauth2/{page}?rd=")
    assert rd_of(response) == f"https://app.example.com{DEEP}"
    assert not headers(
        response, b"set-cookie"
    )  # a cookie would be set for the wrong host


def test_forward_auth_several_providers_redirect_to_sign_in_page() -> None:
    second = provider_settings(id="second", name="Second")
    harness = behind(providers=(provider_settings(), second))
    assert "/oauth2/sign_in?" in location(ask(harness, *TRAEFIK, *BROWSER))


def test_forward_auth_insecure_cookie_keeps_http() -> None:
    harness = behind(cookie={"secure": False})
    fields = [field for field in TRAEFIK if field[0] != b"x-forwarded-proto"]
    response = ask(harness, *fields, *BROWSER, secure=False)
    assert location(response).startswith("http://app.example.com/")


def test_forward_auth_invalid_session_cookie_cleared() -> None:
    harness = behind()
    for fields, status in ((BROWSER, 302), ((), 401)):
        jar = {b"_oauth2_proxy": b"broken"}
        response = ask(harness, *TRAEFIK, *fields, jar=jar)
        assert response.status == status
        [line] = headers(response, b"set-cookie")
        assert b"Max-Age=0" in line


@pytest.mark.parametrize("fields", [BROWSER, ()])
def test_forward_auth_forbidden_session_gets_403_and_is_kept(fields: Any) -> None:
    harness = behind()
    harness.log_in("bob")
    url = "/oauth2/forward_auth?allowed_groups=admins"
    response = ask(harness, *TRAEFIK, *fields, target=url)
    assert response.status == 403
    assert not headers(response, b"set-cookie")
    assert (b"Access denied" in response.body) == bool(fields)
    url = "/oauth2/forward_auth?allowed_groups=staff"
    assert ask(harness, *TRAEFIK, target=url).status == 202
    harness.proxy = harness.new_proxy(
        settings(provider={"allowed_groups": ("admins",)})
    )
    response = ask(harness, *TRAEFIK, *fields)
    assert (response.status, response.events[0].reason) == (403, "groups")


def test_forward_auth_stale_session_refreshed() -> None:
    harness = behind(cookie={"refresh": 60.0})
    harness.log_in()
    harness.clock.now += 100
    response = ask(harness, *TRAEFIK, *BROWSER)
    assert response.status == 202
    assert headers(response, b"set-cookie")
    harness.clock.now += 10**7
    assert ask(harness, *TRAEFIK, *BROWSER).status == 302


def test_forward_auth_failed_refresh_redirects_to_login() -> None:
    harness = behind(cookie={"refresh": 60.0})
    harness.log_in()
    harness.clock.now += 100
    refused = {"error": "invalid_grant"}
    harness.on_fetch = lambda effect: type(harness.idp.fetch(effect))(
        400, ((b"content-type", b"application/json"),), orjson.dumps(refused)
    )
    response = ask(harness, *TRAEFIK, *BROWSER)
    assert response.status == 302
    assert headers(response, b"set-cookie")


# -- original requests of other gateways


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        # Envoy appends the original path to its prefix and keeps the Host.
        ("/oauth2/forward_auth/deep?x=1", ((b"x-forwarded-proto", b"https"),)),
        # ingress-nginx and gateways modeled on it
        (
            "/oauth2/forward_auth",
            (
                (b"host", b"authproxy:4180"),
                (b"x-original-url", b"https://app.example.com/deep?x=1"),
                (b"x-original-method", b"GET"),
            ),
        ),
        ("/oauth2/forward_auth", ((b"x-original-url", b"/deep?x=1"),)),
        ("/oauth2/forward_auth", ((b"x-original-uri", b"/deep?x=1"),)),
        ("/oauth2/forward_auth", ((b"x-envoy-original-path", b"/deep?x=1"),)),
        (
            "/oauth2/forward_auth/deep?x=1",
            (
                (b"x-forwarded-uri", b"/deep?x=1"),
                (b"x-original-url", b"https://APP.example.com/deep?x=1"),
                (b"x-forwarded-host", b"app.example.com"),
            ),
        ),
    ],
)
def test_forward_auth_original_of_other_gateways(target: str, fields: Any) -> None:
    response = ask(behind(), *fields, *BROWSER, target=target)
    assert (
        location(response).lower().startswith("https://app.example.com/oauth2/sign_in")
    )
    assert rd_of(response) == "/deep?x=1"


@pytest.mark.parametrize(
    "query",
    [
        "Allowed_Groups=staff",
        "allowed_group=staff",
        "allowed-groups=staff",
        "alowed_groups=staff",
        "allowedEmailDomains=example.com",
        "allowed%5femail=x",
        "x=1;allowed_roles=x",
        "allow_groups",
        "allowed_groups=staff&ALLOWED_EMAILS=x",
    ],
)
def test_auth_check_misspelled_constraint_denied(query: str) -> None:
    harness = behind()
    harness.log_in("bob")
    for path in ("/oauth2/auth", "/oauth2/forward_auth"):
        answer = ask(harness, target=f"{path}?{query}")
        assert answer.status == 403
        [event] = answer.events
        assert event.reason == "query"
        assert event.detail.endswith(
            "allowed_groups, allowed_emails, allowed_email_domains"
        )
        for other in ("allowed_groups=staff", "rd=/x", "groups=x", "a", ""):
            assert ask(harness, target=f"{path}?{other}").status == 202


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("allowed_groups=admins,ops", "allowed_groups='admins,ops'"),
        ("allowed_groups=", "allowed_groups=''"),
        ("allowed_groups=staff&allowed_emails=a@x.y", "allowed_emails='a@x.y'"),
        ("allowed_email_domains=x.example", "allowed_email_domains='x.example'"),
        ("allowed_groups=" + "x" * 900, "allowed_groups='xxx"),
    ],
)
def test_auth_check_denied_by_constraint_names_user_and_constraint(
    query: str, named: str
) -> None:
    harness = behind()
    harness.log_in("bob")
    answer = ask(harness, target=f"/oauth2/auth?{query}")
    assert (answer.status, answer.verdict, answer.user) == (
        403,
        "denied",
        "bob@example.com",
    )
    [event] = answer.events
    assert (event.kind, event.user, event.reason) == (
        "denied",
        "bob@example.com",
        "query",
    )
    assert named in event.detail
    assert "user bob@example.com" in event.detail
    assert len(event.detail) < 400


def test_constraints_misspelled_ones_reported_for_auth_checks_only() -> None:
    query = b"allowed_group=staff"
    assert parse_auth_constraints(query).misspelled == ("allowed_group",)
    assert parse_constraints(query) == Constraints()
    long = b"owed" * 8_000  # each name is searched once, from its first "owed"
    assert parse_auth_constraints(long + b"=1").misspelled == ()
    assert parse_auth_constraints(long + b"_groups=1").misspelled


def test_az13_forward_auth_client_query_is_no_constraint() -> None:
    harness = behind()
    harness.log_in("bob")
    for query, status in (
        ("allowed_groups=admins", 202),
        ("allowed_groups=", 202),
        ("%zz", 202),
    ):
        target = f"/oauth2/forward_auth/x?{query}"
        assert ask(harness, target=target).status == status


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        (
            "/oauth2/forward_auth",
            ((b"x-forwarded-uri", b"/a"), (b"x-original-url", b"https://h/b")),
        ),
        (
            "/oauth2/forward_auth",
            ((b"x-forwarded-host", b"a"), (b"x-original-url", b"https://b/")),
        ),
        ("/oauth2/forward_auth/a", ((b"x-forwarded-uri", b"/b"),)),
        ("/oauth2/forward_auth/a", ((b"x-envoy-original-path", b"/b"),)),
        (
            "/oauth2/forward_auth/a",
            ((b"x-forwarded-method", b"GET"), (b"x-original-method", b"POST")),
        ),
        ("/oauth2/forward_auth", ((b"x-original-url", b"https://a@b/"),)),
        ("/oauth2/forward_auth", ((b"x-original-url", b"https://a?b"),)),
        ("/oauth2/forward_auth", ((b"x-original-url", b"ftp://a/"),)),
        ("/oauth2/forward_auth", ((b"x-forwarded-uri", b"/%zz"),)),
        ("/oauth2/forward_auth//evil.example/x", ()),
        ("/oauth2/forward_auth/\\evil.example", ()),
        ("/oauth2/forward_auth/%zz", ()),
    ],
)
def test_fh04_fh07_forward_auth_ambiguous_original_rejected(
    target: str, fields: Any
) -> None:
    harness = behind()
    response = ask(harness, *fields, *BROWSER, target=target)
    assert response.status == 400
    assert not headers(response, b"location")
    if "/forward_auth/" in target:  # a URI in the path counts for every peer
        harness.log_in()
        assert ask(harness, *fields, target=target).status == 400


def test_fh01_or34_forward_auth_untrusted_peer_ignored() -> None:
    harness = behind()
    fields = (
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-uri", b"/evil"),
        (b"x-original-url", b"https://evil.example/evil"),
        (b"x-envoy-original-path", b"/evil"),
    )
    response = ask(harness, *fields, *BROWSER, peer=UNTRUSTED)
    assert (
        location(response)
        == "https://app.example.com/oauth2/sign_in?rd=/oauth2/forward_auth"
    )
    harness.log_in()
    assert (
        ask(harness, *fields, peer=UNTRUSTED).status == 202
    )  # for the untrusted peer only


def test_forward_auth_login_does_not_return_to_endpoint() -> None:
    harness = behind(skip_provider_button=True)
    response = ask(harness, *BROWSER)
    assert location(harness.finish_login(location(response))) == "/"


# -- query escaped as part of the path


@pytest.mark.parametrize("endpoint", ["auth", "forward_auth"])
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("%3Fallowed_groups=admins", 202),
        ("%3fallowed_groups=nobody", 403),
        ("%3Fallowed_groups=nobody,role:admin", 202),
        ("%3Fallowed_groups=", 403),
        ("%3F", 202),
        ("%3Fallowed_groups=rol%2565%253aadmin", 202),  # nginx escaped "rol%65%3a…"
        ("%3Fallowed_groups=admins?allowed_groups=nobody", 400),
        ("%3Fallowed_groups=%25zz", 400),
    ],
)
def test_query_escaped_by_nginx_restored(
    endpoint: str, query: str, status: int
) -> None:
    harness = behind()
    harness.log_in()
    for _ in range(2):
        response = ask(harness, target=f"/oauth2/{endpoint}{query}")
        assert response.status == status
    assert ask(harness, target=f"/oauth2/{endpoint}{query}", jar={}).status in (
        400,
        401,
    )


@pytest.mark.parametrize(
    "path",
    ["/oauth2/auth%3", "/oauth2/auth%20x", "/oauth2/auth/x", "/oauth2/authx%3Fa"],
)
def test_sk26_similar_path_is_not_an_endpoint(path: str) -> None:
    harness = behind()
    harness.log_in()
    assert ask(harness, target=path).status in (400, 404)
    assert ask(harness, target=path, jar={}).status in (400, 403)


# -- arbitrary input


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"x-forwarded-uri",
                    b"x-forwarded-host",
                    b"x-forwarded-method",
                    b"x-forwarded-proto",
                    b"x-original-url",
                    b"x-original-uri",
                    b"x-envoy-original-path",
                    b"accept",
                    b"sec-fetch-mode",
                ]
            ),
            st.one_of(
                st.binary(max_size=40),
                st.sampled_from([b"/a", b"https://h/a", b"GET", b"navigate", b"h"]),
            ),
        ),
        max_size=5,
    ),
    st.sampled_from([GATEWAY, UNTRUSTED, ""]),
    st.one_of(st.just(b""), st.binary(max_size=30).map(lambda tail: b"/" + tail)),
)
def test_forward_auth_arbitrary_fields_never_allowed(
    fields: Any, peer: str, tail: bytes
) -> None:
    harness = WORLD
    response = harness.get(b"/oauth2/forward_auth" + tail, *fields, peer=peer, jar={})
    assert response.status in (302, 400, 401)
    for value in headers(response, b"location"):
        assert value.startswith(b"https://")
        assert all(0x20 < byte < 0x7F for byte in value)


WORLD = behind()


@given(st.binary(max_size=60), st.sampled_from([b"x-original-url", b"x-forwarded-uri"]))
def test_forward_auth_any_original_accepted_or_rejected(
    value: bytes, name: bytes
) -> None:
    trust = TrustedProxies(Settings(reverse_proxy=True))
    request = WORLD.request("/oauth2/forward_auth", (name, value), peer=GATEWAY)
    try:
        original = trust.original_for_auth(request)
    except RequestError:
        return
    assert original.uri.startswith(b"/")
    assert not original.uri.startswith((b"//", b"/\\"))


# -- startup


def test_login_waits_for_provider_metadata() -> None:
    harness = Harness(ready=False)
    began = harness.clock.now
    down = iter([True, True, False])
    fetch = harness.on_fetch

    def fetched(effect: Any) -> Any:
        if next(down, False):
            raise FetchError("connection refused")
        return fetch(effect)

    harness.on_fetch = fetched
    assert harness.get("/oauth2/start?rd=/x").status == 302
    assert harness.clock.now - began < 6.0


def test_login_waits_for_running_discovery() -> None:
    harness = Harness(ready=False)
    warm_up = harness.proxy.warm_up()
    next(warm_up)  # discovery is running
    flow = harness.proxy.handle(harness.request("/oauth2/start"))
    assert not isinstance(flow, Respond)
    effect: Any = next(flow)  # type: ignore[call-overload]
    assert type(effect).__name__ == "Sleep"
    harness.run(harness.proxy.warm_up())
    response = harness.decide(flow)
    assert response.status == 302  # type: ignore[union-attr]
    warm_up.close()
