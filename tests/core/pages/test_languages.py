"""Pages in the browser's language: its choice, complete translations, custom pages."""

from __future__ import annotations

import re
import string
from typing import Any

import pytest

from authproxy_core import PageSettings
from authproxy_core.login import failures, sign_in
from authproxy_core.messages import Header
from authproxy_core.pages import pages
from authproxy_core.pages.languages import LABELS, LANGUAGES, choose_language, texts_of
from support.harness import ISSUER, Harness, settings

# Texts that only begin or end other texts.
PARTS = {failures.CONTACT_ADMIN, failures.CLOCKS_DIFFER}
TEXTS = {
    *LABELS.values(),
    "Sign in with {name}",
    "Sign in to continue to {host}",
    pages.ONE_DOMAIN,
    pages.SEVERAL_DOMAINS,
    pages.SIGNED_OUT_TITLE,
    pages.SIGNED_OUT_MESSAGE,
    pages.STILL_SIGNED_IN,
    pages.UPSTREAM_UNAVAILABLE,
    pages.UPSTREAM_ERROR[1],
    *(text for _, text in pages.UPSTREAM_ERRORS.values()),
    *(text for pair in failures.PAGES_BY_REASON.values() for text in pair),
    *(
        value
        for name, value in vars(failures).items()
        if name.isupper() and isinstance(value, str)
    ),
    sign_in.FOREIGN_FORM,
} - PARTS


def accepting(text: str) -> Header:
    return (b"accept-language", text.encode())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("de", "de"),
        ("DE-at", "de"),
        ("zh-Hans-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("pt-BR,pt;q=0.9,en-US;q=0.8", "pt"),
        ("en-US,en;q=0.9,de;q=0.8", "en"),
        ("de;q=0.5, fr ; q=0.7", "fr"),
        ("xx, es;q=0.1", "es"),
        ("de;q=0", "en"),
        ("*", "en"),
        ("*, ja;q=0.1", "ja"),
        ("", "en"),
        ("xx", "en"),
        ("de;q=2, de;level=1, d/e, ;;", "en"),
        (",".join(["xx"] * 20 + ["de"]), "en"),
        ("de" + " " * 60_000 + "x", "de"),  # costs no more than its first 1000 bytes
    ],
)
def test_choose_language_by_accept_language(text: str, language: str) -> None:
    assert choose_language([(b"host", b"a"), accepting(text)]) == language
    assert choose_language([]) == "en"


@pytest.mark.parametrize("language", [one for one in LANGUAGES if one != "en"])
def test_each_language_has_each_text_with_its_names(language: str) -> None:
    texts = texts_of(language)
    assert set(texts._texts) == TEXTS
    for english, translated in texts._texts.items():
        assert translated.strip()
        assert names_in(translated) == names_in(english), english
        assert texts.text(english) == translated


def names_in(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("language", "heading", "button"),
    [
        ("en", "Sign in to continue to app.example.com", "Sign in with Keycloak"),
        ("de", "Anmelden, um zu app.example.com zu gelangen", "Anmelden mit Keycloak"),
        ("zh", "请登录以访问 app.example.com", "使用 Keycloak 登录"),
    ],
)
def test_sign_in_page_in_language_of_browser(
    language: str, heading: str, button: str
) -> None:
    harness = Harness(settings(pages=PageSettings()))
    text = harness.get("/oauth2/sign_in", accepting(language)).body.decode()
    assert f'<html lang="{language}">' in text
    assert f'<h1 class="center">{heading}</h1>' in text
    assert button in text


def test_sign_in_page_names_email_domains_in_language_of_browser() -> None:
    for domains, expected in (
        (("a.com",), "Verwenden Sie Ihr Konto von a.com."),
        (("a.com", "b.com"), "Konto einer dieser Domains: a.com, b.com."),
    ):
        harness = Harness(settings(email_domains=domains))
        body = harness.get("/oauth2/sign_in", accepting("de")).body
        assert expected.encode() in body


def test_access_denied_page_names_user_and_page_and_offers_another_account() -> None:
    harness = Harness()
    assert harness.log_in().status == 302
    harness.proxy = harness.new_proxy(settings(email_domains=("other.example",)))
    harness.run(harness.proxy.warm_up())
    text = harness.get("/reports/2026?token=x", accepting("fr")).body.decode()
    assert "Vous êtes connecté en tant que alice@example.com" in text
    assert "<code>/reports/2026</code>" in text
    [other] = re.findall(r'href="([^"]+)">Se connecter avec un autre compte', text)
    assert other == "/oauth2/sign_out?rd=%2Freports%2F2026%3Ftoken%3Dx"
    assert 'href="/reports/2026?token=x">Réessayer</a>' in text


def test_provider_error_page_keeps_the_code_in_each_language() -> None:
    harness = Harness()
    for language in LANGUAGES:
        url = harness.start_login()
        state = re.search("state=([^&]+)", url)
        assert state
        target = f"/oauth2/callback?error=odd_error&state={state[1]}&iss={ISSUER}"
        page = harness.get(target, accepting(language))
        assert b"odd_error" in page.body
        assert b"{code}" not in page.body


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.Message}}", "Sign-in was canceled"),
        ("{{.Language}} {{.Message}}", "de Die Anmeldung wurde abgebrochen"),
        ("{{.Texts.TryAgain}}", "Erneut versuchen"),
    ],
)
def test_custom_template_with_language_fields_is_translated(
    template: str, expected: str
) -> None:
    given: Any = settings(
        pages=PageSettings(
            error_template='{{define "error.html"}}' + template + "{{end}}"
        )
    )
    harness = Harness(given)
    url = harness.start_login()
    state = re.search("state=([^&]+)", url)
    assert state
    target = f"/oauth2/callback?error=access_denied&state={state[1]}&iss={ISSUER}"
    assert harness.get(target, accepting("de")).body.decode().startswith(expected)
