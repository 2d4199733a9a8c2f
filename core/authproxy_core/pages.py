"""Sign-in and error pages: pure functions from values to answers.

The built-in pages load nothing from anywhere and carry a policy that allows just their
own style and script, by hash. A custom template is the operator's: its policy leaves
scripts and styles alone and still forbids framing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from .messages import Event, Headers, Respond
from .settings import Settings
from .templates import Html, TemplateSet, compile_templates

NO_CACHE: Headers = (
    (b"cache-control", b"no-cache, no-store, must-revalidate, max-age=0"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
    (b"x-accel-expires", b"0"),
)
SECURITY: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
HTML: Headers = ((b"content-type", b"text/html; charset=utf-8"),)
CUSTOM_POLICY = b"frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
ROBOTS = "User-agent: *\nDisallow: /\n"

SIGN_IN_FIELDS = frozenset(
    {
        "CustomLogin",
        "Footer",
        "LogoData",
        "ProviderName",
        "ProxyPrefix",
        "Redirect",
        "SignInMessage",
        "StatusCode",
        "Version",
    }
)
ERROR_FIELDS = frozenset(
    {
        "Footer",
        "Message",
        "ProxyPrefix",
        "Redirect",
        "RequestID",
        "StatusCode",
        "Title",
        "Version",
    }
)
BUILT_IN_FIELDS = frozenset({"Detail", "Providers", "SignIn"})
BUILT_IN_ITEMS = frozenset({"Start", "Name"})


def _data(name: str) -> str:
    return files(__package__).joinpath("page_data", name).read_text("utf-8")


STYLE = _data("style.css")
SCRIPT = _data("fragment.js")
LOGO = _data("logo.svg").strip()
SIGN_IN = _data("sign_in.html")
ERROR = _data("error.html")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def policy(*, images: str = "data:") -> bytes:
    """The Content-Security-Policy of the built-in pages."""
    return (
        f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
        f"img-src {images}; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ).encode()


class Pages:
    """The pages for given settings; *providers* are ids and display names."""

    def __init__(
        self, settings: Settings, providers: Sequence[tuple[str, str]]
    ) -> None:
        texts = settings.pages
        self._prefix = settings.proxy_prefix
        self._debug = texts.show_debug_on_error
        self._providers = providers
        self._robots = Respond(
            200,
            ((b"content-type", b"text/plain; charset=utf-8"),),
            (texts.robots or ROBOTS).encode(),
        )
        self._custom_sign_in = bool(texts.sign_in_template)
        self._custom_error = bool(texts.error_template)
        self._templates = _compiled(settings)
        remote_logo = texts.logo.startswith("<img") and "https://" in texts.logo
        images = "data: https:" if remote_logo else "data:"
        self._sign_in_headers = _headers(self._custom_sign_in, images)
        self._error_headers = _headers(self._custom_error, "data:")
        self._common: dict[str, Any] = {
            "ProxyPrefix": settings.proxy_prefix,
            "Version": settings.version,
            "Footer": Html("" if texts.footer == "-" else texts.footer),
        }
        logo = "" if texts.logo == "-" else texts.logo or LOGO
        self._sign_in_values = {
            **self._common,
            "ProviderName": providers[0][1],
            "SignInMessage": Html(_message(settings)),
            "CustomLogin": False,
            "LogoData": Html(logo),
        }

    def sign_in(
        self,
        *,
        status: int,
        redirect: str,
        headers: Headers = (),
        events: tuple[Event, ...] = (),
    ) -> Respond:
        """The page that offers the login; *redirect* is where it leads in the end."""
        values = {**self._sign_in_values, "StatusCode": status, "Redirect": redirect}
        if not self._custom_sign_in:
            values["Providers"] = [
                {"Start": self._start(name, redirect), "Name": shown}
                for name, shown in self._providers
            ]
        body = self._templates.render("sign_in.html", values)
        return Respond(status, (*self._sign_in_headers, *headers), body, events)

    def _start(self, provider: str, redirect: str) -> str:
        params = {"rd": redirect}
        if len(self._providers) > 1:
            params["provider"] = provider
        return f"{self._prefix}/start?{urlencode(params, errors='replace')}"

    def error(
        self,
        *,
        status: int,
        message: str,
        request_id: str,
        redirect: str = "",
        title: str = "",
        detail: str = "",
        headers: Headers = (),
        events: tuple[Event, ...] = (),
    ) -> Respond:
        """The page that says what is wrong; *detail* only shows when debugging."""
        values = {
            **self._common,
            "StatusCode": status,
            "Title": title or _phrase(status),
            "Message": message,
            "RequestID": request_id,
            "Redirect": redirect,
        }
        if self._custom_error:
            values["Message"] = detail if self._debug and detail else message
        else:
            values["Detail"] = detail if self._debug else ""
            sign_in = urlencode({"rd": redirect}, errors="replace")
            values["SignIn"] = f"{self._prefix}/sign_in?{sign_in}"
        body = self._templates.render("error.html", values)
        return Respond(status, (*self._error_headers, *headers), body, events)

    def robots(self) -> Respond:
        """robots.txt: nothing here is for crawlers."""
        return self._robots


def _compiled(settings: Settings) -> TemplateSet:
    """Both pages in one set; custom files replace the built-in ones.

    Raises `TemplateError`.
    """
    texts = settings.pages
    # Style and script are put in before compiling: their bytes must match their hash.
    own = {
        name: text.replace("{{.Style}}", STYLE).replace("{{.Script}}", SCRIPT)
        for name, text in (("sign_in.html", SIGN_IN), ("error.html", ERROR))
    }
    sources = {
        "sign_in.html": texts.sign_in_template or own["sign_in.html"],
        "error.html": texts.error_template or own["error.html"],
    }
    fields = SIGN_IN_FIELDS | ERROR_FIELDS | BUILT_IN_FIELDS | BUILT_IN_ITEMS
    return compile_templates(sources, fields)


def _headers(custom: bool, images: str) -> Headers:
    csp = CUSTOM_POLICY if custom else policy(images=images)
    return (*HTML, *NO_CACHE, *SECURITY, (b"content-security-policy", csp))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _message(settings: Settings) -> str:
    """The banner, or a sentence about the domains that are let in."""
    banner = settings.pages.banner
    if banner:
        return "" if banner == "-" else banner
    if settings.authenticated_emails is not None or not settings.email_domains:
        return ""
    if len(settings.email_domains) > 1:
        return "Authenticate using one of the following domains: " + _escaped(
            ", ".join(settings.email_domains)
        )
    [domain] = settings.email_domains
    return "" if domain == "*" else f"Authenticate using {_escaped(domain)}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
