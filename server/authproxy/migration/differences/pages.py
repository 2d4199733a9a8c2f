"""Pages, templates and their headers."""

from __future__ import annotations

from ..conditions import (
    EVERY,
    given,
)
from .row import SECURITY, Difference

PAGES: tuple[Difference, ...] = (
    Difference(
        "security-headers",
        "pages and other responses of authproxy have security headers "
        "(Content-Security-Policy, X-Frame-Options, X-Content-Type-Options, "
        "Referrer-Policy, Cross-Origin-Opener-Policy)",
        "clickjacking, content sniffing, codes in the Referer",
        SECURITY,
    ),
    Difference(
        "static-files",
        "`{prefix}/static/` has only two stylesheets, with oauth2-proxy's names "
        "and classes",
        "authproxy's pages include their styles; templates written for "
        "oauth2-proxy stay readable",
        "serve oauth2-proxy's files at these paths in the gateway, or change the "
        "paths in the templates",
        when=given("custom_templates_dir"),
        look=EVERY,
    ),
    Difference(
        "page-texts",
        "pages have authproxy's texts, in the language of the browser",
        "they name the next step",
        "`banner`, custom templates",
    ),
    Difference(
        "content-security-policy",
        "pages have a strict Content-Security-Policy; scripts of custom templates "
        "are permitted",
        "clickjacking, injected scripts",
        "custom templates for scripts and styles; otherwise not available: it "
        "would weaken security",
        when=given("custom_templates_dir", "banner", "footer", "custom_sign_in_logo"),
        look=given("custom_templates_dir"),
    ),
)
