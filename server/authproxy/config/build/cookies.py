"""Build the cookie settings: the limit of login cookies, domains, name prefixes."""

from __future__ import annotations

import re

from authproxy_core.settings import Secret
from authproxy_core.settings.root import CookieSettings

from ..read.resolved import ResolvedOptions
from .sections import option_fields

MAX_CSRF_SLOTS = 64  # cookies
DOMAINS = "cookie_domains"
DOMAIN = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:\*?\.)*([^/:@?#]+?)\.?(?::[0-9]*)?(?:/.*)?",
    re.IGNORECASE | re.ASCII,
)


def build_cookie(
    options: ResolvedOptions, secrets: tuple[Secret, ...]
) -> CookieSettings:
    """Build the settings of the cookies, which *secrets* seal."""
    fields = option_fields(options, CookieSettings)
    fields["csrf_slots"] = options.integer("cookie_csrf_slots")
    limit = options.integer("cookie_csrf_per_request_limit")
    if limit > 0 and options.boolean("cookie_csrf_per_request"):
        # oauth2-proxy limits the existing cookies, without the new one.
        fields["csrf_slots"] = min(limit + 1, MAX_CSRF_SLOTS)
    cookie = CookieSettings(
        **{**fields, "secrets": secrets, "domains": _domains(options)}
    )
    _warn_name_prefix(options, cookie)
    return cookie


def _domains(options: ResolvedOptions) -> tuple[str, ...]:
    """Return the domains of ``cookie_domains``.

    oauth2-proxy starts with entries that are URLs, patterns or several domains, and
    writes cookies without a Domain attribute for most of them.
    """
    domains = []
    for entry in ",".join(options.strings(DOMAINS)).split(","):
        text = entry.strip()
        domain = _parse_domain(text)
        if domain != text.lstrip("."):
            options.add_warning(
                DOMAINS, f"{text!r} is not a domain; {domain!r} is used instead"
            )
        domains.append(domain)
    return tuple(filter(None, domains))


def _parse_domain(text: str) -> str:
    """Return the domain in a URL, ``host:port`` or ``*.domain``, else *text*."""
    match = DOMAIN.fullmatch(text)
    if match is None:
        return text
    try:
        return match[1] if match[1].isascii() else match[1].encode("idna").decode()
    except UnicodeError:
        return text


def _warn_name_prefix(options: ResolvedOptions, cookie: CookieSettings) -> None:
    """Warn about a name prefix whose requirements the cookie does not meet.

    Browsers drop such cookies without notice (RFC 6265bis §4.1.3).
    """
    name = cookie.name.lower()
    if not name.startswith(("__host-", "__secure-")):
        return
    prefix = cookie.name[: name.index("-") + 1]
    causes = [] if cookie.secure else ["without cookie_secure"]
    if prefix.lower() == "__host-":
        causes += ["with cookie_domains"] if cookie.domains else []
        causes += ["with a cookie_path other than '/'"] if cookie.path != "/" else []
    for cause in causes:
        options.add_warning(
            "cookie_name",
            f"browsers drop cookies whose name starts with {prefix!r} {cause}",
        )
