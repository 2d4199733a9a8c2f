"""Stylesheets for custom templates that were written for oauth2-proxy."""

from __future__ import annotations

import re

import pytest

from support.harness import Harness, header, headers, settings

NAMES = ("css/bulma.min.css", "css/all.min.css")
# fmt: off
CLASSES = (
    "box", "block", "button", "card", "card-content", "card-header",
    "card-header-icon", "card-header-title", "column", "columns", "container",
    "content", "control", "field", "footer", "has-background-light",
    "has-text-centered", "has-text-grey", "has-text-left", "hero", "hero-body",
    "input", "is-1", "is-danger", "is-fullwidth", "is-hidden", "is-primary",
    "is-shadowless", "is-size-7", "label", "notification", "section", "subtitle",
    "title",
)
# fmt: on


@pytest.mark.parametrize("name", NAMES)
def test_stylesheet_is_public_and_cacheable(name: str) -> None:
    harness = Harness(settings(proxy_prefix="/p"))
    response = harness.get(f"/p/static/{name}?v=1")
    assert (response.status, response.verdict) == (200, "")
    assert header(response, b"content-type") == b"text/css; charset=utf-8"
    assert header(response, b"x-content-type-options") == b"nosniff"
    assert header(response, b"cache-control") == b"public, max-age=3600"
    assert harness.get(f"/p/static/{name}", method=b"HEAD").status == 200
    assert harness.get(f"/oauth2/static/{name}").status == 403


def test_stylesheet_loads_no_resources() -> None:
    for name in NAMES:
        text = Harness().get(f"/oauth2/static/{name}").body
        assert not re.search(rb"url\(|@import|//", text)


def test_stylesheet_has_classes_of_oauth2_proxy_pages() -> None:
    text = Harness().get(f"/oauth2/static/{NAMES[0]}").body.decode()
    missing = [name for name in CLASSES if not re.search(rf"\.{name}\b(?!-)", text)]
    assert not missing


@pytest.mark.parametrize("given", ["{}", "W/{}", '"x", {}', "*"])
def test_stylesheet_with_matching_etag_returns_304(
    harness: Harness, given: str
) -> None:
    target = f"/oauth2/static/{NAMES[0]}"
    etag = header(harness.get(target), b"etag").decode()
    same = harness.get(target, (b"if-none-match", given.format(etag).encode()))
    assert (same.status, same.body) == (304, b"")
    assert headers(same, b"etag") == [etag.encode()]
    assert harness.get(target, (b"if-none-match", b'"other"')).status == 200


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS"])
def test_stylesheet_with_other_method_returns_405(
    harness: Harness, method: bytes
) -> None:
    response = harness.get(f"/oauth2/static/{NAMES[0]}", method=method)
    assert response.status == 405
    assert header(response, b"allow") == b"GET, HEAD"


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "css/",
        "css/bulma.css",
        "css/bulma.min.css/",
        "CSS/bulma.min.css",
        "css/../css/bulma.min.css",
        "css%2Fbulma.min.css",
        "../sign_in",
        "%2e%2e/%2e%2e/etc/passwd",
        "css/../../../../etc/passwd",
        "webfonts/fa-solid-900.woff2",
        "css/classes.css",
    ],
)
def test_static_other_paths_return_404(harness: Harness, tail: str) -> None:
    response = harness.get(f"/oauth2/static/{tail}")
    assert (response.status, response.body) == (404, b"Not Found\n")
    harness.log_in()
    assert harness.get(f"/oauth2/static/{tail}").status == 404


def test_stylesheet_not_served_for_auth_check() -> None:
    harness = Harness(settings(reverse_proxy=True))
    told = (b"x-forwarded-uri", b"/deep")
    target = f"/oauth2/static/{NAMES[0]}"
    assert harness.get(target, told, peer="127.0.0.1").status == 403
    same = (b"x-forwarded-uri", target.encode())
    assert harness.get(target, same, peer="127.0.0.1").status == 200
