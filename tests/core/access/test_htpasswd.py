"""Users of an htpasswd file: Basic credentials and the sign-in form."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any
from urllib.parse import urlencode

import bcrypt
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from authproxy_core import BusyError, Forward, Offload, Respond, Secret, SettingsError
from authproxy_core.access.attempts import (
    MAX_ATTEMPTS_PER_CLIENT,
    WINDOW,
    AttemptMemory,
)
from authproxy_core.access.htpasswd import (
    VERIFIED_TTL,
    Htpasswd,
)
from authproxy_core.request.authorization import Basic
from authproxy_core.settings.auth_bypass import AuthBypassSettings
from authproxy_core.settings.credentials import CredentialSettings, is_hash
from authproxy_core.settings.root import PageSettings, UpstreamSettings, check
from support.harness import (
    START,
    Clock,
    Harness,
    header,
    headers,
    provider_settings,
    settings,
)


def sha(password: str) -> Secret:
    digest = hashlib.sha1(password.encode()).digest()
    return Secret(b"{SHA}" + base64.b64encode(digest))


def crypt(password: str, version: bytes = b"$2y$") -> Secret:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))
    return Secret(version + hashed[4:])


USERS = {"ann": crypt("pw-ann"), "sam": sha("pw-sam"), "zoë": crypt("pä:ss")}
FAST = {"sam": sha("pw-sam")}


def table_of(users: Any) -> Htpasswd:
    """A table of *users* with a memory of its own."""
    random = Harness().random
    memory = AttemptMemory(random(32))
    return Htpasswd(users, clock=Clock(), random_bytes=random, attempts=memory)


def local(users: Any = USERS, **changes: Any) -> Harness:
    """A harness with an htpasswd file of *users*."""
    names = set(CredentialSettings.__struct_fields__)
    given = {name: changes.pop(name) for name in [*changes] if name in names}
    credentials = CredentialSettings(**({"users": users} | given))
    return Harness(settings(**({"credentials": credentials} | changes)))


def basic(user: str, password: str) -> tuple[bytes, bytes]:
    pair = base64.b64encode(f"{user}:{password}".encode())
    return (b"authorization", b"Basic " + pair)


def ask(harness: Harness, user: str, password: str, **changes: Any) -> Respond:
    field = basic(user, password)
    return harness.get("/oauth2/auth", field, **({"jar": {}} | changes))


def submit(harness: Harness, *fields: Any, **form: str) -> Respond:
    """Send the sign-in form as a browser does."""
    harness.body = urlencode(form).encode()
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    return harness.get("/oauth2/sign_in", kind, *fields, method=b"POST")


# -- Basic credentials


@pytest.mark.parametrize(
    ("user", "password", "status"),
    [
        ("ann", "pw-ann", 202),
        ("sam", "pw-sam", 202),
        ("zoë", "pä:ss", 202),
        ("ann", "pw-sam", 401),
        ("sam", "", 401),
        ("Ann", "pw-ann", 401),
        ("eve", "pw-ann", 401),
        ("", "", 401),
    ],
)
def test_basic_credentials_verified(user: str, password: str, status: int) -> None:
    response = ask(local(user_groups=("crew",)), user, password)
    assert response.status == status
    assert not headers(response, b"set-cookie")
    if status == 202:
        assert header(response, b"gap-auth") == user.encode()
        assert header(response, b"x-auth-request-user") == user.encode()
        assert header(response, b"x-auth-request-email") == b""  # AZ37
        assert header(response, b"x-auth-request-groups") == b"crew"


@pytest.mark.parametrize(
    ("target", "status"),
    [("/oauth2/auth", 401), ("/oauth2/userinfo", 401), ("/page", 403), ("/open", 404)],
)
def test_basic_rejected_password_is_an_event_of_the_response(
    target: str, status: int
) -> None:
    """Its line in the auth log has the client's address, which fail2ban needs."""
    bypass = AuthBypassSettings(skip_auth_routes=("^/open$",))
    harness = local(auth_bypass=bypass)
    harness.events.clear()
    response = harness.get(target, basic("eve" * 30, "pw"), jar={})
    assert response.status == status
    [event] = [event for event in response.events if event.kind == "login_failed"]
    assert (event.reason, event.user) == ("password", ("eve" * 30)[:64])
    challenged = b'Basic realm="authproxy", charset="UTF-8"'
    expected = [challenged] if status == 401 else []
    assert headers(response, b"www-authenticate") == expected
    assert harness.events == []
    request = harness.request(target, basic("eve", "pw"), jar={})
    assert harness.run(harness.proxy.identify(request)) is None
    assert [event.kind for event in harness.events] == ["login_failed"]


def test_basic_rejected_password_of_forwarded_request_is_an_event() -> None:
    bypass = AuthBypassSettings(skip_auth_routes=("^/open$",))
    app = UpstreamSettings(id="app", uri="http://127.0.0.1:1/")
    harness = local(auth_bypass=bypass, upstreams=(app,))
    request = harness.request("/open", basic("ann", "no"), jar={})
    decision = harness.decide(harness.proxy.handle(request))
    assert isinstance(decision, Forward)
    assert [event.reason for event in decision.events] == ["password"]


def test_basic_rejected_password_with_auth_bypass_event_once() -> None:
    bypass = AuthBypassSettings(trusted_ips=("192.0.2.7",))
    response = ask(local(auth_bypass=bypass), "ann", "no")
    assert response.status == 202
    assert [event.kind for event in response.events] == ["login_failed"]
    assert not headers(response, b"www-authenticate")


@pytest.mark.parametrize("version", [b"$2a$", b"$2b$", b"$2x$", b"$2y$"])
def test_lg46_bcrypt_versions_accepted(version: bytes) -> None:
    harness = local({"a": crypt("x" * 72, version)})
    assert ask(harness, "a", "x" * 72).status == 202
    assert ask(harness, "a", "x" * 200).status == 202  # bcrypt ignores the rest
    assert ask(harness, "a", "x" * 2000).status == 401
    assert ask(harness, "a", "x\0y").status == 401


def test_htpasswd_email_rules_apply_to_email_users_only() -> None:
    groups = {"allowed_groups": ("crew",)}
    assert ask(local(provider=groups), "ann", "pw-ann").status == 403
    inside = local(provider=groups, user_groups=("crew",))
    assert ask(inside, "ann", "pw-ann").status == 202
    # Email rules do not apply to user names, unless email_is_user is set.
    domains = local({"ann": USERS["ann"]}, email_domains=("example.com",))
    assert ask(domains, "ann", "pw-ann").status == 202
    made = local(email_is_user=True, email_domains=("example.com",))
    assert ask(made, "ann", "pw-ann").status == 403
    address = local({"a@example.com": crypt("x")}, email_is_user=True)
    response = ask(address, "a@example.com", "x")
    assert header(response, b"x-auth-request-email") == b"a@example.com"


def test_htpasswd_without_email_domains_allows_file_users_only() -> None:
    harness = local(email_domains=())
    assert ask(harness, "ann", "pw-ann").status == 202
    assert harness.log_in().status == 403


def test_htpasswd_verified_password_cached() -> None:
    harness = local()
    field = basic("ann", "pw-ann")
    request = harness.request("/oauth2/auth", field, jar={})
    flow = harness.proxy.check(request)
    assert type(next(flow)) is Offload  # type: ignore[call-overload]
    assert ask(harness, "ann", "pw-ann").status == 202
    again = harness.proxy.check(request)
    assert type(again) is Respond
    assert again.reusable
    credentials = harness.proxy._credentials
    assert credentials is not None
    kept = repr(credentials._verified._young)
    assert "pw-ann" not in kept
    assert base64.b64encode(b"ann:pw-ann").decode() not in kept
    harness.clock.now += VERIFIED_TTL + 1
    assert type(harness.proxy.check(request)) is not Respond


def test_htpasswd_changed_password_takes_effect() -> None:
    harness = local()
    assert ask(harness, "ann", "pw-ann").status == 202
    harness.proxy = harness.proxy.with_settings(local({"ann": crypt("new")}).settings)
    assert ask(harness, "ann", "pw-ann").status == 401
    assert ask(harness, "ann", "new").status == 202


def test_htpasswd_unknown_user_costs_as_much() -> None:
    """The number and the cost of hash verifications are the same."""
    costly = {"ann": Secret(bcrypt.hashpw(b"x", bcrypt.gensalt(8))), "sam": sha("x")}
    table = table_of(costly)

    def taken(user: str) -> float:
        flow = table.verify(Basic(user, b"wrong"), user)
        effect: Any = next(flow)
        began = time.thread_time()
        assert effect.function() is False
        return time.thread_time() - began

    known = min(taken("ann") for _ in range(3))
    for user in ("eve", "sam"):
        assert min(taken(user) for _ in range(3)) > known / 2
    fast = table_of(FAST)
    for user in ("sam", "eve"):
        with pytest.raises(StopIteration) as end:
            next(fast.verify(Basic(user, b"wrong"), user))
        assert end.value.value is False
    empty = table_of({})
    with pytest.raises(StopIteration) as end:
        next(empty.verify(Basic("eve", b"wrong"), "x"))
    assert end.value.value is False


def test_htpasswd_damaged_hash_matches_no_password() -> None:
    damaged = {"ann": Secret(b"$2b$04$" + b"~" * 53)}
    table = table_of(damaged)
    effect: Any = next(table.verify(Basic("ann", b"x"), "x"))
    assert effect.function() is False


def test_bearer_and_basic_both_accepted() -> None:
    both = local(jwt_bearer_tokens=True)
    assert ask(both, "ann", "pw-ann").status == 202
    field = (b"authorization", b"Bearer " + both.token().encode())
    assert both.get("/oauth2/auth", field, jar={}).user == "service@example.com"
    strict = local(jwt_bearer_tokens=True, bearer_login_fallback=False)
    assert ask(strict, "ann", "pw-ann").status == 403  # as in oauth2-proxy


# -- attempts


def test_htpasswd_attempts_limited_per_client() -> None:
    harness = local()
    for _ in range(MAX_ATTEMPTS_PER_CLIENT):
        assert ask(harness, "ann", "wrong").status == 401
    response = ask(harness, "sam", "pw-sam")
    assert response.status == 401  # now even the correct password is rejected
    assert response.events[-1].reason == "too_many_tries"
    assert ask(harness, "sam", "pw-sam", peer="192.0.2.9").status == 202
    harness.clock.now += WINDOW
    assert ask(harness, "sam", "pw-sam").status == 202


def test_htpasswd_cached_password_needs_no_attempt() -> None:
    harness = local()
    assert ask(harness, "sam", "pw-sam").status == 202
    for _ in range(MAX_ATTEMPTS_PER_CLIENT + 1):
        assert ask(harness, "sam", "wrong").status == 401
    assert ask(harness, "sam", "pw-sam").status == 202


def test_htpasswd_concurrent_attempts_counted() -> None:
    table = table_of(USERS)
    flows = [
        table.verify(Basic("ann", b"x"), "c") for _ in range(MAX_ATTEMPTS_PER_CLIENT)
    ]
    effects: Any = [next(flow) for flow in flows]
    assert all(type(effect) is Offload for effect in effects)
    with pytest.raises(StopIteration) as end:
        next(table.verify(Basic("ann", b"pw-ann"), "c"))
    assert end.value.value is None


# -- the form


def test_sign_in_page_contains_password_form() -> None:
    harness = local()
    page = harness.get("/oauth2/sign_in?rd=/deep?x=1")
    assert page.status == 200
    assert b'<form class="actions" method="post" action="/oauth2/sign_in">' in page.body
    assert b'name="rd" value="/deep?x=1"' in page.body
    assert b"Sign in with Keycloak" in page.body
    # Otherwise browsers would not send the origin of the form.
    assert headers(page, b"referrer-policy") == [b"same-origin"]
    for other in (local(display_form=False), Harness()):
        page = other.get("/oauth2/sign_in")
        assert b"<form" not in page.body
        assert headers(page, b"referrer-policy") == [b"no-referrer"]
    assert b"<form" in harness.get("/page", jar={}).body


def test_custom_template_receives_password_form_field() -> None:
    pages = PageSettings(
        sign_in_template="{{if .CustomLogin}}form{{end}}{{.StatusCode}}"
    )
    harness = local(pages=pages)
    page = harness.get("/oauth2/sign_in")
    assert page.body == b"form200"
    assert headers(page, b"referrer-policy") == [b"same-origin"]
    assert submit(harness, username="ann", password="x").body == b"form401"


@pytest.mark.parametrize("format", ["authproxy", "oauth2-proxy"])
def test_password_form_logs_in(format: str) -> None:
    harness = local(
        cookie={"format": format}, user_groups=("crew",), email_is_user=True
    )
    response = submit(harness, username="ann", password="pw-ann", rd="/deep?x=1")
    assert (response.status, header(response, b"location")) == (302, b"/deep?x=1")
    assert [event.kind for event in response.events] == ["logged_in"]
    check = harness.get("/oauth2/auth")
    assert check.status == 202
    assert header(check, b"x-auth-request-user") == b"ann"
    assert header(check, b"x-auth-request-email") == b""
    assert header(check, b"x-auth-request-groups") == b"crew"
    document = orjson.loads(harness.get("/oauth2/userinfo").body)
    assert document == {"user": "ann", "email": "", "groups": ["crew"]}
    harness.proxy = harness.new_proxy(harness.settings)
    assert harness.get("/oauth2/auth").status == 202
    assert harness.get("/oauth2/sign_out").status == 302
    assert not harness.jar


def test_htpasswd_session_ends_when_user_is_removed() -> None:
    harness = local(cookie={"refresh": 60.0})
    submit(harness, username="ann", password="pw-ann")
    harness.clock.now += 3600
    assert harness.get("/oauth2/auth").status == 202
    harness.proxy = harness.proxy.with_settings(local(FAST).settings)
    assert harness.get("/oauth2/auth").status == 403
    harness.proxy = harness.new_proxy(settings())  # without an htpasswd file
    assert harness.get("/oauth2/auth").status == 401


def test_htpasswd_does_not_authorize_provider_sessions() -> None:
    harness = local(email_domains=("other.example",))
    login = Harness(settings())
    login.log_in()
    harness.jar = login.jar
    assert harness.get("/oauth2/auth").status == 403


@pytest.mark.parametrize(
    ("form", "status", "message"),
    [
        ({}, 400, b"Enter your username."),
        ({"username": "", "password": "x"}, 400, b"Enter your username."),
        ({"username": "ann"}, 401, b"Incorrect username or"),
        ({"username": "ann", "password": "no"}, 401, b"Incorrect username or"),
        ({"username": "eve", "password": "no"}, 401, b"Incorrect username or"),
        ({"username": "a\nb", "password": "no"}, 401, b"Incorrect username or"),
        ({"username": "a" * 5000, "password": "x"}, 401, b"Incorrect username or"),
    ],
)
def test_password_form_error_messages(form: Any, status: int, message: bytes) -> None:
    harness = local()
    response = submit(harness, **form, rd="/deep")
    assert response.status == status
    assert message in response.body
    assert b'value="/deep"' in response.body
    assert not headers(response, b"set-cookie")
    assert b"eve" not in response.body


def test_password_form_same_page_for_unknown_user_and_wrong_password() -> None:
    harness = local()
    one = submit(harness, username="ann", password="no")
    assert one.body == submit(harness, username="eve", password="no").body
    for _ in range(MAX_ATTEMPTS_PER_CLIENT):
        response = submit(harness, username="eve", password="no")
    assert response.status == 429
    assert b"Too many sign-in attempts" in response.body
    assert response.events[0].reason == "too_many_tries"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (((b"sec-fetch-site", b"same-origin"),), 302),
        (((b"sec-fetch-site", b"none"),), 302),
        (((b"origin", b"https://app.example.com"),), 302),
        ((), 302),  # not a browser
        (((b"sec-fetch-site", b"cross-site"),), 403),  # LG44
        (((b"sec-fetch-site", b"same-site"),), 403),
        (((b"origin", b"https://evil.example"),), 403),
        (((b"origin", b"https://app.example.com.evil.example"),), 403),
        (((b"origin", b"null"),), 403),
        (((b"origin", b"\xff"),), 403),
        (((b"origin", b"https://[x"),), 403),
        (
            (
                (b"sec-fetch-site", b"cross-site"),
                (b"origin", b"https://app.example.com"),
            ),
            403,
        ),
    ],
)
def test_lg44_cross_site_password_form_rejected(fields: Any, status: int) -> None:
    response = submit(local(), *fields, username="ann", password="pw-ann")
    assert response.status == status
    assert bool(headers(response, b"set-cookie")) == (status == 302)
    assert (b"sent from another site" in response.body) == (status == 403)


@pytest.mark.parametrize(
    "rd", ["//evil.example", "https://evil.example", "/oauth2/start"]
)
def test_or_password_form_rejects_foreign_redirect_target(rd: str) -> None:
    response = submit(local(), username="ann", password="pw-ann", rd=rd)
    assert header(response, b"location") == b"/"


def test_lg08_empty_post_does_not_log_in() -> None:
    harness = local()
    assert harness.get("/oauth2/sign_in", method=b"POST").status == 400
    # Other POST requests are not from the form.
    direct = local(skip_provider_button=True)
    assert direct.get("/oauth2/sign_in", method=b"POST").status == 302
    assert submit(direct, username="ann", password="no").status == 401
    assert Harness().get("/oauth2/sign_in", method=b"POST").status == 200


def test_ck26_invalid_cookie_cleared_by_rejected_form() -> None:
    harness = local()
    harness.jar = {b"_oauth2_proxy": b"broken"}
    response = submit(harness, username="ann", password="no")
    assert b"Max-Age=0" in header(response, b"set-cookie")


def test_ck23_password_login_replaces_session() -> None:
    harness = local()
    submit(harness, username="ann", password="pw-ann")
    before = harness.jar[b"_oauth2_proxy"]
    harness.clock.now += 1
    submit(harness, username="ann", password="pw-ann")
    assert harness.jar[b"_oauth2_proxy"] != before


# -- settings


def test_htpasswd_invalid_hash_reported() -> None:
    users = {"a": Secret(b"plain"), "b": sha("x")}
    with pytest.raises(SettingsError) as caught:
        check(settings(credentials=CredentialSettings(users=users)))
    [problem] = caught.value.problems
    assert problem == "htpasswd_file: the hash of 'a' is neither bcrypt nor {SHA}"
    taken = (provider_settings(id="htpasswd"),)
    with pytest.raises(SettingsError, match="reserved for the users"):
        check(settings(providers=taken, credentials=CredentialSettings(users=FAST)))


@pytest.mark.parametrize(
    "text",
    [b"", b"x", b"$apr1$x$y", b"{SHA}", b"{SHA}AAAA", b"$2b$04$short", b"$2b$99$" + b"a" * 53],
)  # fmt: skip
def test_is_hash_rejects_other_text(text: bytes) -> None:
    assert not is_hash(text)
    assert is_hash(sha("x").value)
    assert is_hash(crypt("x").value)


FORMS = local(FAST)


@hypothesis_settings(deadline=None)
@given(st.binary(max_size=80))
def test_password_form_arbitrary_body_never_logs_in(body: bytes) -> None:
    harness = FORMS
    harness.body = body
    harness.jar = {}
    kind = (b"content-type", b"application/x-www-form-urlencoded")
    response = harness.get("/oauth2/sign_in", kind, method=b"POST")
    assert response.status in (400, 401, 429)
    assert not harness.jar
    assert harness.clock.now == START


@pytest.mark.parametrize("target", ["/oauth2/auth", "/"])
def test_htpasswd_too_many_computations_get_503(target: str) -> None:
    harness = local()
    request = harness.request(target, basic("ann", "pw-ann"), jar={})
    flow: Any = harness.proxy.handle(request)
    assert next(flow).computation
    with pytest.raises(StopIteration) as stop:
        flow.throw(BusyError("more than 100 computations wait"))
    response = stop.value.value
    assert (response.status, response.verdict) == (503, "failed")
    assert header(response, b"retry-after") == b"1"
