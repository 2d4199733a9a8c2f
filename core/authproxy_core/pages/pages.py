"""Sign-in, error and signed-out pages: pure functions from values to responses.

The built-in pages load no external resources; their Content-Security-Policy allows
only their style and script, by hash. The policy of custom templates restricts neither
scripts nor styles, but still forbids framing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html.parser import HTMLParser
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from ..messages import Event, Forward, Headers, Request, Respond
from ..settings.root import Settings
from ..templates import Html, TemplateError, TemplateSet, compile_templates
from .languages import ENGLISH, LABELS, Texts, choose_language, texts_of
from .package_data import read_data

NO_CACHE: Headers = (
    (b"cache-control", b"no-cache, no-store, must-revalidate, max-age=0"),
    (b"expires", b"Thu, 01 Jan 1970 00:00:00 UTC"),
    (b"x-accel-expires", b"0"),
)
SECURITY_HEADERS: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
# With no-referrer, browsers send the form with "Origin: null".
SAME_ORIGIN_REFERRER = (b"referrer-policy", b"same-origin")
HTML: Headers = ((b"content-type", b"text/html; charset=utf-8"),)
CUSTOM_POLICY = b"frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
MAX_SHOWN_TARGET_LENGTH = 200  # characters
ROBOTS = "User-agent: *\nDisallow: /\n"

SIGN_IN_FIELDS = frozenset(
    {
        "CustomLogin",
        "Footer",
        "Language",
        "LogoData",
        "ProviderName",
        "ProxyPrefix",
        "Redirect",
        "SignInMessage",
        "StatusCode",
        "Texts",
        "Version",
        *LABELS,
    }
)
ERROR_FIELDS = frozenset(
    {
        "Footer",
        "Language",
        "Message",
        "ProxyPrefix",
        "Redirect",
        "RequestID",
        "StatusCode",
        "Texts",
        "Title",
        "Version",
    }
)
BUILT_IN_FIELDS = frozenset(
    {"Detail", "Heading", "OtherAccount", "Providers", "Requested", "SignIn"}
)
BUILT_IN_ITEMS = frozenset({"Label", "Name", "Start"})


def _read_data(name: str) -> str:
    return read_data(name).decode()


STYLE = _read_data("style.css")
SCRIPT = _read_data("fragment.js")
LOGO = _read_data("logo.svg").strip()
SIGN_IN = _read_data("sign_in.html")
ERROR = _read_data("error.html")
SIGNED_OUT = _read_data("signed_out.html")


def _csp_hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def content_security_policy(operator_html: str = "") -> bytes:
    """Return the Content-Security-Policy of the built-in pages.

    The banner, logo and footer in *operator_html* may contain styles and https images,
    but no scripts.
    """
    html = _OperatorHtml()
    html.feed(operator_html)
    html.close()
    styles = [_csp_hash(text) for text in (STYLE, *html.style_elements)]
    if html.style_attributes:
        styles += ["'unsafe-hashes'", *map(_csp_hash, html.style_attributes)]
    images = "data: https:" if html.has_remote_image else "data:"
    return (
        f"default-src 'none'; style-src {' '.join(styles)}; script-src {_csp_hash(SCRIPT)}; "
        f"img-src {images}; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ).encode()


UPSTREAM_UNAVAILABLE = "Application unavailable"
UPSTREAM_ERROR = (502, "The application is not reachable. Try again in a minute.")
UPSTREAM_ERRORS = {
    "timeout": (504, "The application did not respond in time. Try again."),
    "busy": (503, "The application is busy. Try again in a minute."),
}
SIGNED_OUT_TITLE = "Signed out"
SIGNED_OUT_MESSAGE = "You are signed out of this application."
STILL_SIGNED_IN = (
    "You are signed out of this application. You may still be signed in at {provider}; "
    "on a shared computer, sign out there too."
)
ONE_DOMAIN = "Use your {domain} account."
SEVERAL_DOMAINS = "Use an account from one of these domains: {domains}."


class _OperatorHtml(HTMLParser):
    """Collects the styles and remote images that the policy has to allow."""

    def __init__(self) -> None:
        super().__init__()
        self.style_attributes: list[str] = []
        self.style_elements: list[str] = []
        self.has_remote_image = False
        self._in_style = False

    def handle_starttag(
        self, tag: str, attrs: Iterable[tuple[str, str | None]]
    ) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if name == "style" and value:
                self.style_attributes.append(value)
            if name == "src" and value and value.startswith("https://"):
                self.has_remote_image = True

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.style_elements.append(data)


class Pages:
    """The pages for *settings*; *providers* are pairs of id and display name.

    Raises `TemplateError` for a custom template that cannot be compiled, or rendered
    with sample values, so mistakes show at startup.
    """

    def __init__(
        self, settings: Settings, providers: Sequence[tuple[str, str]]
    ) -> None:
        texts = settings.pages
        self._prefix = settings.proxy_prefix
        credentials = settings.credentials
        self._has_form = credentials.users is not None and credentials.display_form
        self._debug = texts.show_debug_on_error
        self._providers = providers
        self._robots = Respond(
            200,
            (
                (b"content-type", b"text/plain; charset=utf-8"),
                *NO_CACHE,
                *SECURITY_HEADERS,
            ),
            (texts.robots or ROBOTS).encode(),
        )
        custom = {
            "sign_in.html": texts.sign_in_template,
            "error.html": texts.error_template,
            "signed_out.html": texts.signed_out_template,
        }
        self._custom = frozenset(name for name, text in custom.items() if text)
        # Other custom templates are in one language, which English messages suit best.
        self._translates = frozenset(
            name
            for name, text in custom.items()
            if not text or ".Language" in text or ".Texts" in text
        )
        self._built_in_templates = _compile_built_in()
        self._templates = _compile(custom) if self._custom else self._built_in_templates
        logo = "" if texts.logo == "-" else texts.logo or LOGO
        self._banner = texts.banner
        self._domains = _named_domains(settings)
        self._headers = _page_headers(
            content_security_policy(f"{texts.banner}{logo}{texts.footer}")
        )
        self._custom_headers = _page_headers(CUSTOM_POLICY)
        self._common: dict[str, Any] = {
            "ProxyPrefix": settings.proxy_prefix,
            "Version": settings.version,
            # As configured: templates compare it with "-" and "".
            "Footer": Html(texts.footer),
        }
        self._sign_in_values = {
            **self._common,
            "ProviderName": providers[0][1],
            "CustomLogin": self._has_form,
            "LogoData": Html(logo),
        }
        self._leaves_provider = settings.logout.at_provider
        self._check_custom_templates()

    def _check_custom_templates(self) -> None:
        """Render the custom templates with sample values; raises `TemplateError`."""
        samples = {
            "sign_in.html": {
                **self._sign_in_values,
                **_language_values(texts_of(ENGLISH)),
                "SignInMessage": self._sign_in_message(texts_of(ENGLISH)),
                "StatusCode": 200,
                "Redirect": "/",
                "Providers": [{"Start": "/", "Name": "name", "Label": "label"}],
            },
            "error.html": {
                **self._common,
                **_language_values(texts_of(ENGLISH)),
                "StatusCode": 500,
                "Title": "Error",
                "Message": "message",
                "RequestID": "id",
                "Redirect": "/",
            },
            "signed_out.html": self._signed_out_values(texts_of(ENGLISH), "/"),
        }
        for name in sorted(self._custom):
            self._templates.render(name, samples[name])

    def _texts(self, name: str, request: Request) -> Texts:
        """Return the texts for the page *name* in the language of *request*."""
        translates = name in self._translates
        return texts_of(choose_language(request.headers) if translates else ENGLISH)

    def sign_in(
        self,
        request: Request,
        *,
        status: int,
        redirect: str,
        host: str = "",
        headers: Headers = (),
        events: tuple[Event, ...] = (),
        offered: Sequence[str] | None = None,
    ) -> Respond:
        """Return the sign-in page; *redirect* is the target after login.

        *host* is that of the application. *offered* are the ids of the providers to
        show, None for all of them.
        """
        texts = self._texts("sign_in.html", request)
        shown = [
            (id_, name)
            for id_, name in self._providers
            if offered is None or id_ in offered
        ]
        values = {
            **self._sign_in_values,
            **_language_values(texts),
            "SignInMessage": self._sign_in_message(texts),
            "StatusCode": status,
            "Redirect": redirect,
            "Providers": [
                {
                    "Start": self._start_url(id_, redirect),
                    "Name": name,
                    "Label": texts.text("Sign in with {name}", {"name": name}),
                }
                for id_, name in shown
            ],
        }
        heading = "Sign in to continue to {host}" if host else "Sign in to continue"
        built_in_values = {"Heading": texts.text(heading, {"host": host})}
        if self._has_form:
            headers = (*headers, SAME_ORIGIN_REFERRER)
        if shown:
            values["ProviderName"] = shown[0][1]
        return self._render("sign_in.html", values, built_in_values, headers, events)

    def _sign_in_message(self, texts: Texts) -> Html:
        """Return the banner, or a sentence about the allowed email domains."""
        if self._banner or not self._domains:
            return Html("" if self._banner == "-" else self._banner)
        names = _escape(", ".join(self._domains))
        if len(self._domains) > 1:
            return Html(texts.text(SEVERAL_DOMAINS, {"domains": names}))
        return Html(texts.text(ONE_DOMAIN, {"domain": names}))

    def _render(
        self,
        name: str,
        values: dict[str, Any],
        built_in_values: dict[str, Any],
        headers: Headers,
        events: tuple[Event, ...],
    ) -> Respond:
        """Render the template *name* with *values*: the custom one, else the built-in.

        If the custom template fails, the built-in one is rendered and an event reports
        the error. *built_in_values* extend *values* for the built-in template.
        """
        status = values["StatusCode"]
        if name in self._custom:
            try:
                body = self._templates.render(name, values)
            except TemplateError as exc:
                events = (
                    *events,
                    Event("page_failed", reason=exc.code, detail=str(exc)),
                )
            else:
                fields = _merge_headers(self._custom_headers, headers)
                return Respond(status, fields, body, events)
        body = self._built_in_templates.render(name, {**values, **built_in_values})
        return Respond(status, _merge_headers(self._headers, headers), body, events)

    def _start_url(self, provider: str, redirect: str) -> str:
        params = {"rd": redirect}
        if len(self._providers) > 1:
            params["provider"] = provider
        return f"{self._prefix}/start?{urlencode(params, errors='replace')}"

    def error(
        self,
        request: Request,
        *,
        status: int,
        message: str,
        values: Mapping[str, str] | None = None,
        redirect: str = "",
        title: str = "",
        detail: str = "",
        denied_user: str = "",
        headers: Headers = (),
        events: tuple[Event, ...] = (),
    ) -> Respond:
        """Return the error page for *request*.

        *message* and *title* are English texts; *values* are those of the message's
        names. *detail* is shown only with show_debug_on_error. *denied_user* is the
        signed-in user who may not request *redirect*.
        """
        texts = self._texts("error.html", request)
        message = texts.text(message, values)
        shown = detail if self._debug else ""
        page_values = {
            **self._common,
            **_language_values(texts),
            "StatusCode": status,
            "Title": _status_phrase(status),
            "Message": shown or message,  # custom templates have no Detail field
            "RequestID": request.id,
            "Redirect": redirect,
        }
        rd = urlencode({"rd": redirect}, errors="replace")
        built_in_values = {
            "Title": texts.text(title) if title else _status_phrase(status),
            "Message": message,
            "Detail": shown,
            "SignIn": f"{self._prefix}/sign_in?{rd}",
            "OtherAccount": f"{self._prefix}/sign_out?{rd}" if denied_user else "",
            "Requested": _shown_target(redirect) if denied_user else "",
        }
        return self._render("error.html", page_values, built_in_values, headers, events)

    def signed_out(self, request: Request, redirect: str) -> Respond:
        """Return the page after sign-out; *redirect* is the target of another sign-in."""
        texts = self._texts("signed_out.html", request)
        values = self._signed_out_values(texts, redirect)
        rd = urlencode({"rd": redirect}, errors="replace")
        built_in_values = {"SignIn": f"{self._prefix}/sign_in?{rd}"}
        return self._render("signed_out.html", values, built_in_values, (), ())

    def _signed_out_values(self, texts: Texts, redirect: str) -> dict[str, Any]:
        names = ", ".join(name for _, name in self._providers)
        message = SIGNED_OUT_MESSAGE if self._leaves_provider else STILL_SIGNED_IN
        return {
            **self._common,
            **_language_values(texts),
            "LogoData": self._sign_in_values["LogoData"],
            "StatusCode": 200,
            "Title": texts.text(SIGNED_OUT_TITLE),
            "Message": texts.text(message, {"provider": names}),
            "Redirect": redirect,
        }

    def upstream_error(
        self, request: Request, forward: Forward, reason: str
    ) -> Respond:
        """Return the page for an upstream without a response; *reason* is its code."""
        status, message = UPSTREAM_ERRORS.get(reason, UPSTREAM_ERROR)
        detail = f"upstream {forward.upstream.id}: {reason}"
        return self.error(
            request,
            status=status,
            title=UPSTREAM_UNAVAILABLE,
            message=message,
            detail=reason,
            headers=forward.response_headers,
            events=(Event("upstream_failed", forward.user, reason, detail),),
        )

    def robots(self) -> Respond:
        """Return robots.txt, which disallows all paths unless configured otherwise."""
        return self._robots


@cache  # takes 10 ms; forked workers have it from the check of the configuration
def _compile_built_in() -> TemplateSet:
    return _compile({})


def _compile(custom: Mapping[str, str]) -> TemplateSet:
    """Compile both pages; the sources in *custom* replace the built-in ones.

    Raises `TemplateError`.
    """
    # Inserted before compiling, because their bytes must match the policy's hashes.
    sources = {
        name: custom.get(name)
        or text.replace("{{.Style}}", STYLE).replace("{{.Script}}", SCRIPT)
        for name, text in (
            ("sign_in.html", SIGN_IN),
            ("error.html", ERROR),
            ("signed_out.html", SIGNED_OUT),
        )
    }
    fields = SIGN_IN_FIELDS | ERROR_FIELDS | BUILT_IN_FIELDS | BUILT_IN_ITEMS
    return compile_templates(sources, fields)


def _merge_headers(page: Headers, headers: Headers) -> Headers:
    """Append *headers* to those of a *page*; their Referrer-Policy takes precedence."""
    if SAME_ORIGIN_REFERRER in headers:
        page = tuple(field for field in page if field[0] != SAME_ORIGIN_REFERRER[0])
    return (*page, *headers)


def _page_headers(csp: bytes) -> Headers:
    return (*HTML, *NO_CACHE, *SECURITY_HEADERS, (b"content-security-policy", csp))


def _status_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _language_values(texts: Texts) -> dict[str, Any]:
    return {"Language": texts.language, "Texts": texts.labels}


def _shown_target(redirect: str) -> str:
    """Return *redirect* without its query, which may contain credentials."""
    return redirect.partition("?")[0].partition("#")[0][:MAX_SHOWN_TARGET_LENGTH]


def _named_domains(settings: Settings) -> tuple[str, ...]:
    """Return the email domains that the sign-in page names."""
    domains = settings.email_domains
    if settings.authenticated_emails is not None or domains == ("*",):
        return ()
    return tuple(domains)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
