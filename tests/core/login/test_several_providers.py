"""Several providers: chosen at login, stored in the session, bound to hosts."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authproxy_core import (
    PageSettings,
    ProviderSettings,
    Respond,
    Secret,
    SessionSettings,
)
from authproxy_core.errors import FetchError
from authproxy_core.providers.hosts import HostBinding
from authproxy_core.settings.credentials import HTPASSWD
from support.endpoints import (
    ISSUER,
    SUBJECT,
    Endpoints,
    discovery,
    form,
    jwks,
    status,
)
from support.fleet import Fleet
from support.harness import header, provider_settings, settings

STAFF = {
    "id": "staff",
    "type": "oidc",
    "name": "Staff <login>",
    "client_id": "web",
    "client_secret": Secret("hush"),
    "issuer": ISSUER,
}
PARTNERS = {
    "id": "partners",
    "type": "facebook",
    "client_id": "app",
    "client_secret": Secret("hush"),
}
CLAIMS = {
    "iss": ISSUER,
    "email": "alice@example.com",
    "email_verified": True,
    "groups": ["staff"],
    "preferred_username": "alice",
}


def endpoints(
    staff: dict[str, Any] | None = None,
    partners: dict[str, Any] | None = None,
    *,
    core: dict[str, Any] | None = None,
    **more: Any,
) -> Endpoints:
    idp = Endpoints(
        "oidc",
        {
            f"GET {ISSUER}/.well-known/openid-configuration": discovery(),
            f"GET {ISSUER}/jwks": jwks(),
            "POST https://graph.facebook.com/v2.5/oauth/access_token": {
                "access_token": "facebook-1"
            },
            "GET https://graph.facebook.com/v2.5/me": {"email": "bob@example.com"},
            **more.pop("responses", {}),
        },
        claims=CLAIMS,
        core={
            "providers": (
                ProviderSettings(**(STAFF | (staff or {}))),
                ProviderSettings(**(PARTNERS | (partners or {}))),
            ),
            **(core or {}),
        },
        **more,
    )
    idp.responses[f"POST {ISSUER}/token"] = idp.tokens()
    return idp


def page(idp: Endpoints, target: str = "/oauth2/sign_in?rd=/deep", **more: Any) -> str:
    return idp.harness.get(target, **more).body.decode()


def host_field(host: str) -> tuple[bytes, bytes]:
    return (b"host", host.encode())


def log_in(idp: Endpoints, host: str, provider: str = "") -> Respond:
    """Log in on *host*; return the response to the callback."""
    response = idp.harness.get(
        f"/oauth2/start?rd=/&provider={provider}", host_field(host)
    )
    location = header(response, b"location").decode()
    params = dict(parse_qsl(urlsplit(location).query))
    idp.nonce = params.get("nonce")
    path = urlsplit(params["redirect_uri"]).path
    target = f"{path}?code=code-1&state={params['state']}"
    return idp.harness.get(target, host_field(host))


def check(idp: Endpoints, host: str) -> Respond:
    return idp.harness.get("/oauth2/auth", host_field(host))


def test_sign_in_page_has_button_per_provider() -> None:
    text = page(endpoints())
    assert "Sign in with Staff &lt;login&gt;" in text
    assert "Sign in with Facebook" in text
    assert 'href="/oauth2/start?rd=%2Fdeep&amp;provider=staff"' in text
    assert 'href="/oauth2/start?rd=%2Fdeep&amp;provider=partners"' in text


def test_custom_template_lists_providers() -> None:
    template = "{{.ProviderName}}{{range .Providers}}|{{.Name}} {{.Start}}{{end}}|{{.Redirect}}"
    pages = PageSettings(sign_in_template=template)
    text = page(endpoints(core={"pages": pages}))
    assert text == (
        "Staff &lt;login&gt;"
        "|Staff &lt;login&gt; /oauth2/start?rd=%2Fdeep&amp;provider=staff"
        "|Facebook /oauth2/start?rd=%2Fdeep&amp;provider=partners|/deep"
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("&provider=partners", "www.facebook.com"),
        ("&provider=staff", "idp.example.com"),
        ("&provider=unknown", "idp.example.com"),
        ("", "idp.example.com"),
    ],
)
def test_start_redirects_to_requested_provider(asked: str, expected: str) -> None:
    idp = endpoints()
    idp.start_login(f"/oauth2/start?rd=/{asked}")
    assert urlsplit(idp.location).netloc == expected


def test_session_belongs_to_its_provider() -> None:
    idp = endpoints(cookie={"refresh": 60.0})
    assert idp.finish(idp.start_login("/oauth2/start?provider=partners")).status == 302
    assert idp.identity()[1] == "bob@example.com"
    assert [form(fetch)["client_id"] for fetch in idp.requests("token")] == ["app"]
    idp.asked.clear()
    assert idp.later(61).status == 202
    assert {urlsplit(fetch.url).netloc for fetch in idp.asked} == {"graph.facebook.com"}
    assert idp.finish(idp.start_login("/oauth2/start?provider=staff")).status == 302
    assert idp.identity()[:2] == (SUBJECT, "alice@example.com")
    idp.asked.clear()
    assert idp.later(61).status == 202
    assert {urlsplit(fetch.url).netloc for fetch in idp.asked} == {"idp.example.com"}


def test_allowed_groups_apply_per_provider() -> None:
    idp = endpoints({"allowed_groups": ("other",)})
    assert idp.finish(idp.start_login("/oauth2/start?provider=staff")).status == 403
    assert idp.finish(idp.start_login("/oauth2/start?provider=partners")).status == 302
    assert idp.auth_check().status == 202


def test_lg25_callback_of_other_provider_rejected() -> None:
    idp = endpoints()
    params = idp.start_login("/oauth2/start?provider=staff")
    response = idp.finish(params, iss="https://www.facebook.com")
    assert response.status == 403
    assert response.events[0].reason == "callback_issuer"
    assert idp.requests("token") == []


def test_each_provider_has_its_own_callback() -> None:
    idp = endpoints()
    for provider, path in (
        ("staff", "/oauth2/callback"),
        ("partners", "/oauth2/callback/partners"),
    ):
        params = idp.start_login(f"/oauth2/start?provider={provider}")
        assert params["redirect_uri"] == f"https://app.example.com{path}"
        assert idp.finish(params).status == 302
        [fetch] = idp.requests("token")
        assert form(fetch)["redirect_uri"] == params["redirect_uri"]
        idp.asked.clear()
    params = idp.start_login("/oauth2/start?provider=staff")
    target = f"/oauth2/callback/staff?code=code-1&state={params['state']}"
    assert idp.harness.get(target).status == 302


@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("partners", "/oauth2/callback"),
        ("partners", "/oauth2/callback/staff"),
        ("staff", "/oauth2/callback/partners"),
    ],
)
@pytest.mark.parametrize("query", ["code=code-1", "error=access_denied"])
def test_lg25_login_on_callback_of_other_provider_rejected(
    provider: str, path: str, query: str
) -> None:
    """Mix-up without ``iss``: the honest provider's code comes back for the other."""
    idp = endpoints()
    params = idp.start_login(f"/oauth2/start?provider={provider}")
    response = idp.harness.get(f"{path}?{query}&state={params['state']}")
    assert response.status == 403
    assert response.events[0].reason == "callback_issuer"
    assert idp.requests("token") == []
    assert idp.auth_check().status == 401
    assert idp.finish(params).status == 403  # the login state is used


def test_callback_of_unknown_provider_is_no_endpoint() -> None:
    idp = endpoints()
    params = idp.start_login("/oauth2/start?provider=staff")
    target = f"/oauth2/callback/unknown?code=code-1&state={params['state']}"
    response = idp.harness.get(target)
    assert (response.status, response.events) == (403, ())  # the sign-in page
    assert idp.requests("token") == []


@pytest.mark.parametrize(
    ("core", "url"),
    [
        (
            {"redirect_url": "https://auth.example.com/cb"},
            "https://auth.example.com/cb/partners",
        ),
        (
            {"redirect_url": "https://auth.example.com/cb/?a=b/"},
            "https://auth.example.com/cb/partners?a=b/",
        ),
        (
            {"redirect_url": "https://auth.example.com"},
            "https://auth.example.com/oauth2/callback/partners",
        ),
        ({"redirect_url": "/cb"}, "https://app.example.com/cb/partners"),
        ({"relative_redirect_url": True}, "/oauth2/callback/partners"),
        ({"relative_redirect_url": True, "redirect_url": "/cb"}, "/cb/partners"),
        (
            {"proxy_prefix": "/auth"},
            "https://app.example.com/auth/callback/partners",
        ),
    ],
)
def test_callback_url_of_further_provider(core: dict[str, Any], url: str) -> None:
    idp = endpoints(core=core)
    prefix = core.get("proxy_prefix", "/oauth2")
    params = idp.start_login(f"{prefix}/start?provider=partners")
    assert params["redirect_uri"] == url


@pytest.mark.parametrize(
    ("provider_id", "paths"),
    [
        ("facebook=app", ("facebook=app", "facebook%3Dapp")),
        ("a b/c?", ("a%20b%2Fc%3F",)),
    ],
)
def test_callback_path_of_escaped_provider_id(
    provider_id: str, paths: tuple[str, ...]
) -> None:
    idp = endpoints(partners={"id": provider_id})
    for path in paths:
        params = idp.start_login(f"/oauth2/start?provider={quote(provider_id)}")
        assert params["redirect_uri"].endswith(f"/oauth2/callback/{paths[0]}")
        target = f"/oauth2/callback/{path}?code=code-1&state={params['state']}"
        assert idp.harness.get(target).status == 302


def test_unavailable_provider_affects_its_logins_only() -> None:
    unavailable = {
        f"GET {ISSUER}/.well-known/openid-configuration": FetchError("refused"),
    }
    idp = endpoints(responses=unavailable, ready=False)
    assert not idp.harness.proxy.ready
    response = idp.harness.get("/oauth2/start?provider=staff")
    assert response.status == 503
    assert b"is currently unavailable" in response.body
    assert idp.finish(idp.start_login("/oauth2/start?provider=partners")).status == 302
    assert idp.auth_check().status == 202
    assert page(idp).count("Sign in with") == 2
    idp.responses[f"GET {ISSUER}/.well-known/openid-configuration"] = discovery()
    idp.harness.clock.now += 60
    assert idp.finish(idp.start_login("/oauth2/start?provider=staff")).status == 302


def test_lost_login_with_several_providers_does_not_restart() -> None:
    navigates = ((b"accept", b"text/html"), (b"sec-fetch-mode", b"navigate"))
    idp = endpoints()
    params = idp.start_login("/oauth2/start?provider=partners")
    idp.harness.jar.clear()
    path = urlsplit(params["redirect_uri"]).path
    target = f"{path}?code=code-1&state={params['state']}"
    assert idp.harness.get(target, *navigates).status == 403
    idp = host_bound_endpoints()  # one provider per host
    response = idp.harness.get("/oauth2/start", host_field(B))
    params = dict(parse_qsl(urlsplit(header(response, b"location").decode()).query))
    idp.harness.jar.clear()
    path = urlsplit(params["redirect_uri"]).path
    target = f"{path}?code=code-1&state={params['state']}"
    again = idp.harness.get(target, host_field(B), *navigates)
    assert header(again, b"location").startswith(b"https://www.facebook.com/")


# -- providers bound to hosts

A, B, OTHER = "a.example.com", "b.example.com", "other.example.com"


def host_bound_endpoints(**more: Any) -> Endpoints:
    return endpoints({"hosts": (A,)}, {"hosts": (B,)}, **more)


def test_host_offers_its_bound_provider() -> None:
    idp = endpoints(None, {"hosts": ("B.Example.com",)})
    for host in (B, f"{B}:8443"):
        text = idp.harness.get("/oauth2/sign_in", host_field(host)).body.decode()
        assert text.count("Sign in with") == 1
        assert "Facebook" in text
    text = idp.harness.get("/oauth2/sign_in", host_field(OTHER)).body.decode()
    assert text.count("Sign in with") == 1
    assert "Staff" in text


def test_session_valid_only_where_provider_offered() -> None:
    idp = host_bound_endpoints(cookie={"refresh": 60.0})
    assert log_in(idp, A).status == 302
    assert check(idp, A).status == 202
    assert check(idp, B).status == 401
    assert check(idp, OTHER).status == 401
    # The cookie is valid on the other host, so it is not cleared.
    assert not [one for one in check(idp, B).headers if one[0] == b"set-cookie"]
    assert idp.harness.get("/oauth2/userinfo", host_field(B)).status == 401
    assert idp.harness.get("/app", host_field(B)).status == 403  # the sign-in page
    # A fresh session on its host needs no flow.
    assert isinstance(
        idp.harness.proxy.handle(idp.harness.request("/app", host_field(A))), Respond
    )
    request = idp.harness.request("/", host_field(B))
    assert idp.harness.proxy.identify(request) is None
    request = idp.harness.request("/", host_field(A))
    assert idp.harness.proxy.identify(request) is not None
    idp.asked.clear()
    idp.harness.clock.now += 61
    assert check(idp, B).status == 401
    assert idp.asked == []
    assert check(idp, A).status == 202
    assert idp.asked


def test_stored_session_valid_only_where_provider_offered() -> None:
    staff = provider_settings(hosts=("app.example.com",))
    given_ = settings(
        providers=(staff, ProviderSettings(**PARTNERS)),
        sessions=SessionSettings(shared=True, backend="store"),
    )
    fleet = Fleet(given_)
    assert fleet[0].log_in().status == 302
    assert (
        fleet[1].get("/oauth2/auth", host_field(B)).status == 401
    )  # loaded, then rejected
    assert fleet[1].get("/oauth2/auth").status == 202
    assert fleet[1].get("/oauth2/auth", host_field(B)).status == 401


def test_newer_session_of_other_host_is_not_used() -> None:
    """Of two cookies of one name, the one that is valid on the host counts."""
    sessions = SessionSettings(idle_timeout=3600.0)
    idp = host_bound_endpoints(core={"sessions": sessions})
    jar, name = idp.harness.jar, b"_oauth2_proxy"
    assert log_in(idp, B).status == 302
    partners = jar.pop(name)
    idp.harness.clock.now += 10
    assert log_in(idp, A).status == 302
    staff = jar.pop(name)
    idp.harness.clock.now += 400  # a request must touch the sessions
    for host, first, second, email in (
        (B, partners, staff, b"bob@example.com"),
        (A, staff, partners, b"alice@example.com"),
    ):
        both = (b"cookie", name + b"=" + first + b"; " + name + b"=" + second)
        response = idp.harness.get("/oauth2/auth", host_field(host), both, jar={})
        assert header(response, b"x-auth-request-email") == email


def test_id_token_sent_only_to_its_issuer() -> None:
    end = f"{ISSUER}/end"
    other = discovery("https://other.example.com", end_session_endpoint=end)
    idp = endpoints(
        None,
        {**STAFF, "id": "other", "issuer": "https://other.example.com"},
        responses={
            "GET https://other.example.com/.well-known/openid-configuration": other,
            "GET https://other.example.com/jwks": jwks(),
        },
        core={"whitelist_domains": ("idp.example.com",)},
    )
    assert idp.finish(idp.start_login("/oauth2/start?provider=staff")).status == 302
    response = idp.harness.get(f"/oauth2/sign_out?rd={end}?id_token_hint={{id_token}}")
    assert header(response, b"location") == f"{end}?id_token_hint=".encode()


def test_start_on_bound_host_ignores_other_provider() -> None:
    idp = host_bound_endpoints()
    assert log_in(idp, B, "staff").status == 302
    assert check(idp, B).status == 202
    assert check(idp, A).status == 401


def test_start_on_host_without_provider_shows_page() -> None:
    idp = host_bound_endpoints()
    assert (
        "Sign in with"
        not in idp.harness.get("/oauth2/sign_in", host_field(OTHER)).body.decode()
    )
    assert log_in(idp, B, "staff").status == 302
    for jar in ({}, idp.harness.jar):  # also with a session of another host
        response = idp.harness.get(
            "/oauth2/start?provider=staff", host_field(OTHER), jar=jar
        )
        assert response.status == 404
    assert b"There is no sign-in at this address" in response.body
    assert response.events[0].reason == "no_provider"


def test_provider_chosen_by_host_of_redirect_target() -> None:
    idp = host_bound_endpoints(
        core={
            "redirect_url": "https://auth.example.com/oauth2/callback",
            "whitelist_domains": (".example.com",),
            "skip_provider_button": True,
        }
    )
    response = idp.harness.get(
        f"/oauth2/start?rd=https://{B}/deep", host_field("auth.example.com")
    )
    assert header(response, b"location").startswith(b"https://www.facebook.com/")
    response = idp.harness.get(
        f"/oauth2/sign_in?rd=https://{A}/deep", host_field("auth.example.com")
    )
    assert header(response, b"location").startswith(ISSUER.encode())


def test_skip_provider_button_with_single_bound_provider() -> None:
    idp = host_bound_endpoints(core={"skip_provider_button": True})
    response = idp.harness.get("/app", host_field(B), (b"accept", b"text/html"))
    assert header(response, b"location").startswith(b"https://www.facebook.com/")


def test_session_without_provider_belongs_to_first() -> None:
    one = ProviderSettings(**STAFF, hosts=(A,))
    two = ProviderSettings(**PARTNERS)
    binding = HostBinding(settings(providers=(one, two)))
    assert binding.serves(A, "")
    assert not binding.serves(B, "")
    assert binding.offered_providers("[::1]") == ("partners",)
    # htpasswd sessions are valid on all hosts.
    assert binding.serves(A, HTPASSWD)
    assert binding.serves(B, HTPASSWD)


@given(st.text(), st.text())
def test_any_host_is_handled(host: str, asked: str) -> None:
    one = ProviderSettings(**STAFF, hosts=(A,))
    two = ProviderSettings(**PARTNERS, hosts=(B,))
    binding = HostBinding(settings(providers=(one, two)))
    chosen = binding.choose(host, asked)
    assert chosen in (None, "staff", "partners")
    assert chosen is None or binding.serves(host, chosen)


def test_login_reports_failure_of_chosen_provider() -> None:
    idp = endpoints(responses={"GET https://graph.facebook.com/v2.5/me": status(400)})
    response = idp.finish(idp.start_login("/oauth2/start?provider=partners"))
    assert response.events[0].reason == "validation"
