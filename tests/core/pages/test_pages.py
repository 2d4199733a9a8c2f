"""Built-in and custom pages: content, escaping, headers."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from authproxy_core import Event, PageSettings, Request, Respond
from authproxy_core.pages.pages import Pages
from authproxy_core.templates import TemplateError
from support.harness import header, settings

ONE = (("kc", "Keycloak"),)
REQUEST = Request(b"GET", b"/", (), "192.0.2.7", id="id-1")


def pages(providers: Any = ONE, **changes: Any) -> Pages:
    texts = {
        key: changes.pop(key)
        for key in list(changes)
        if key in PageSettings.__struct_fields__
    }
    return Pages(settings(pages=PageSettings(**texts), **changes), providers)


def sign_in(built: Pages, redirect: str = "/", status: int = 200) -> str:
    return built.sign_in(REQUEST, status=status, redirect=redirect).body.decode()


def error(built: Pages, **changes: Any) -> Respond:
    return built.error(
        **({"request": REQUEST, "status": 500, "message": "it failed"} | changes)
    )


def test_sign_in_page_has_single_button() -> None:
    text = sign_in(pages(), "/deep?x=1&y=<")
    assert text.count("Sign in with Keycloak") == 1
    assert 'href="/oauth2/start?rd=%2Fdeep%3Fx%3D1%26y%3D%3C"' in text


def test_sign_in_page_has_button_per_provider() -> None:
    text = sign_in(pages((("a", "First"), ("b", "Second"))))
    assert "Sign in with First" in text
    assert "provider=b" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"email_domains": ("example.com",)}, "Use your example.com account."),
        ({"email_domains": ("a.com", "*")}, "from one of these domains: a.com, *"),
        ({"email_domains": ("<b>",)}, "Use your &lt;b> account."),
        ({"banner": "<b>Hello</b>"}, "<b>Hello</b>"),
        ({"banner": "-", "email_domains": ("example.com",)}, None),
        ({"authenticated_emails": frozenset(), "email_domains": ("x.com",)}, None),
    ],
)
def test_sign_in_page_banner(changes: dict[str, Any], expected: str | None) -> None:
    text = sign_in(pages(**changes))
    if expected is None:
        assert "account" not in text.split("<main>")[1]
    else:
        assert expected in text


def test_sign_in_page_logo_and_footer() -> None:
    assert "<svg" in sign_in(pages())
    assert "<svg" not in sign_in(pages(logo="-"))
    assert "<footer>" not in sign_in(pages(footer="-"))
    assert "<footer><i>f</i></footer>" in sign_in(pages(footer="<i>f</i>"))
    remote = pages(logo='<img src="https://logo.example/l.png" alt="Logo" />')
    response = remote.sign_in(REQUEST, status=200, redirect="/")
    assert b"img-src data: https:" in header(response, b"content-security-policy")


def test_error_page_has_message_and_request_id() -> None:
    response = error(pages(), redirect="/x", detail="secret detail")
    text = response.body.decode()
    assert "Internal Server Error" in text
    assert "it failed" in text
    assert "Request ID: <code>id-1</code>" in text
    assert 'href="/oauth2/sign_in?rd=%2Fx"' in text
    assert 'href="/x"' in text
    assert "secret detail" not in text


def test_error_page_detail_only_with_debug_option() -> None:
    built = pages(show_debug_on_error=True)
    assert b"a detail" in error(built, detail="a detail").body
    custom = pages(show_debug_on_error=True, error_template="<p>{{.Message}}</p>")
    assert error(custom, detail="a detail").body == b"<p>a detail</p>"
    assert error(custom).body == b"<p>it failed</p>"


def test_error_page_titles() -> None:
    assert b"<h1>Odd</h1>" in error(pages(), title="Odd").body
    assert b"<h1>Error</h1>" in error(pages(), status=599).body


def test_pages_keep_headers_and_events() -> None:
    event = Event("denied")
    response = error(pages(), headers=((b"x-a", b"1"),), events=(event,))
    assert header(response, b"x-a") == b"1"
    assert response.events == (event,)


@pytest.mark.parametrize(
    "rd",
    [
        '"><script>alert(1)</script>',
        "javascript:alert(1)",
        "';alert(1)//",
        "{{7*7}}",
        "</script><script>",
        "/x\ud800",
    ],
)
def test_ou01_ou04_redirect_target_escaped(rd: str) -> None:
    built = pages()
    for text in (
        sign_in(built, rd),
        error(built, redirect=rd, message=rd).body.decode(),
    ):
        assert "<script>alert" not in text
        assert 'href="javascript:' not in text
        assert "49" not in re.sub(r"sha256-\S+|[0-9.]+[a-z]*", "", text)


def test_ou07_ou08_ou10_page_security_headers() -> None:
    for response in (
        pages().sign_in(REQUEST, status=200, redirect="/"),
        error(pages()),
    ):
        csp = header(response, b"content-security-policy").decode()
        assert "default-src 'none'" in csp
        assert "frame-ancestors 'none'" in csp
        assert "unsafe" not in csp
        assert header(response, b"x-frame-options") == b"DENY"
        assert header(response, b"x-content-type-options") == b"nosniff"
        assert header(response, b"referrer-policy") == b"no-referrer"
        assert b"no-store" in header(response, b"cache-control")
        for tag in ("style", "script"):
            for text in re.findall(
                f"<{tag}>(.*?)</{tag}>", response.body.decode(), re.S
            ):
                digest = base64.b64encode(hashlib.sha256(text.encode()).digest())
                assert f"'sha256-{digest.decode()}'" in csp


def test_pages_load_no_external_resources() -> None:
    for text in (sign_in(pages()), error(pages()).body.decode()):
        text = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(src|href)=\"?(https?:)?//", text)
        assert "@import" not in text
        assert "url(" not in text


def test_custom_template_gets_all_fields() -> None:
    template = (
        '{{define "sign_in.html"}}{{.ProviderName}}|{{.SignInMessage}}|{{.StatusCode}}|'
        "{{.CustomLogin}}|{{.Redirect}}|{{.Version}}|{{.ProxyPrefix}}|{{.Footer}}|"
        "{{if .LogoData}}logo{{end}}{{end}}"
    )
    built = pages(
        sign_in_template=template, banner="<b>hi</b>", footer="f", version="1.2"
    )
    response = built.sign_in(REQUEST, status=403, redirect="/a&b")
    assert response.body == (
        b"Keycloak|<b>hi</b>|403|false|/a&amp;b|1.2|/oauth2|f|logo"
    )
    csp = header(response, b"content-security-policy")
    assert b"script-src" not in csp
    assert b"frame-ancestors 'none'" in csp


def test_custom_template_with_unknown_field_rejected() -> None:
    with pytest.raises(TemplateError, match="no such field"):
        pages(error_template="{{.Nothing}}")


def test_custom_template_gets_footer_verbatim() -> None:
    template = '{{if eq .Footer "-"}}none{{else if eq .Footer ""}}default{{else}}{{.Footer}}{{end}}'
    for footer, expected in (("-", "none"), ("", "default"), ("<i>f</i>", "<i>f</i>")):
        assert sign_in(pages(sign_in_template=template, footer=footer)) == expected


def test_custom_template_not_renderable_rejected_at_startup() -> None:
    for name in ("sign_in_template", "error_template"):
        with pytest.raises(TemplateError, match="index out of range"):
            pages(**{name: "{{index .Redirect 5}}"})


def test_custom_template_failure_renders_built_in_page() -> None:
    template = '{{if ne .Redirect "/"}}{{index .Redirect 5}}{{end}}ok'
    built = pages(
        sign_in_template=template, error_template=template, show_debug_on_error=True
    )
    assert sign_in(built) == "ok"
    shown = built.sign_in(REQUEST, status=403, redirect="/x", headers=((b"x-a", b"1"),))
    failed = error(built, redirect="/x", detail="a detail")
    for response, file in ((shown, "sign_in.html"), (failed, "error.html")):
        assert b"<main" in response.body
        assert b"default-src 'none'" in header(response, b"content-security-policy")
        [event] = response.events
        assert event.kind == "page_failed"
        assert event.detail == f"{file}:1: index out of range: 5"
    assert header(shown, b"x-a") == b"1"
    assert b"it failed" in failed.body
    assert b"a detail" in failed.body


def read_policy(**changes: Any) -> str:
    response = pages(**changes).sign_in(REQUEST, status=200, redirect="/")
    return header(response, b"content-security-policy").decode()


def csp_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_policy_allows_operator_styles_but_no_scripts() -> None:
    csp = read_policy(
        banner='<b style="color:red&amp;">x</b>',
        footer="<style>p{}</style>tail<script>f()</script>",
        logo='<svg style><style>.a{fill:red}</style><path class="a"/></svg>',
    )
    styles = next(part for part in csp.split("; ") if part.startswith("style-src"))
    for text in ("p{}", ".a{fill:red}", "color:red&"):
        assert csp_hash(text) in styles
    assert styles.count("sha256") == 4
    assert "'unsafe-hashes'" in styles
    assert csp_hash("f()") not in csp
    assert "unsafe-hashes" not in read_policy(footer="<b>plain</b>")


def test_policy_allows_remote_images_only_if_used() -> None:
    assert "img-src data:;" in read_policy(footer="<img src='data:x'><img src>")
    assert "img-src data: https:;" in read_policy(footer="<img src='https://h/x.png'>")


def test_robots_text_configured() -> None:
    assert header(pages().robots(), b"x-content-type-options") == b"nosniff"
    assert pages(robots="User-agent: x\n").robots().body == b"User-agent: x\n"
