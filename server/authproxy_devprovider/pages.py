"""Pages of provider and demonstration: no external assets, a strict CSP."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from urllib.parse import urlencode

from authproxy_core.messages import Headers

from .config import HttpResponse

STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5b6475; --line: #d9dee8;
  --paper: #fff; --ground: #eef1f6; --accent: #2f5bd8; --on-accent: #fff;
  --mark: #e8f0ff; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf2; --soft: #9aa4b8;
  --line: #333b4d; --paper: #1b2130; --ground: #10141f; --accent: #7ea2ff;
  --on-accent: #0d1220; --mark: #22304f; --bad: #ff8a7a; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center;
  padding: 1.5rem 1rem; }
main { width: 100%; max-width: 24rem; background: var(--paper); padding: 2rem;
  border: 1px solid var(--line); border-radius: 14px;
  box-shadow: 0 10px 30px rgb(0 0 0 / .07); }
main.wide { max-width: 52rem; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .25rem 0 1rem; color: var(--soft); }
label { display: block; font-weight: 600; margin: 1rem 0 .3rem; }
input { width: 100%; padding: .6rem .7rem; font: inherit; color: inherit;
  background: transparent; border: 1px solid var(--line); border-radius: 8px; }
input:focus-visible, button:focus-visible, a:focus-visible {
  outline: 3px solid var(--accent); outline-offset: 2px; }
.actions { display: flex; flex-direction: row-reverse; gap: .75rem;
  margin-top: 1.5rem; }
button, .button { flex: 1; padding: .65rem 1rem; font: inherit; font-weight: 600;
  text-align: center; text-decoration: none; color: var(--ink); cursor: pointer;
  background: transparent; border: 1px solid var(--line); border-radius: 8px; }
.primary { background: var(--accent); border-color: var(--accent);
  color: var(--on-accent); }
.error { color: var(--bad); font-weight: 600; }
.note { font-size: .85rem; margin: 1.5rem 0 0; }
.top { display: flex; gap: 1rem; align-items: flex-start;
  justify-content: space-between; flex-wrap: wrap; }
.top .button { flex: none; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th { text-align: left; white-space: nowrap; vertical-align: top; }
th, td { padding: .45rem .6rem; border-top: 1px solid var(--line); }
td { overflow-wrap: anywhere; font-family: ui-monospace, monospace; }
.identity th, .identity td { background: var(--mark); }
@media (max-width: 38rem) { main { padding: 1.25rem; } th, td { display: block; }
  td { border-top: 0; padding-top: 0; } }
"""
SUBMIT_SCRIPT = "document.forms[0].submit()"


def csp_hash(text: str) -> str:
    """Return the CSP source that allows exactly this inline style or script."""
    return (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    )


# No form-action, because browsers apply it to all redirects after the form is sent, and
# their targets depend on the client. All names and values are escaped instead.
CSP = (
    f"default-src 'none'; style-src {csp_hash(STYLE)}; "
    f"script-src {csp_hash(SUBMIT_SCRIPT)}; base-uri 'none'; frame-ancestors 'none'"
)
PAGE_HEADERS: Headers = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


def page(status: int, title: str, content: str, *, wide: bool = False) -> HttpResponse:
    """Return a page; *title* is text, *content* is HTML."""
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main{' class=wide' if wide else ''}>{content}</main></body></html>\n"
    )
    return status, PAGE_HEADERS, html.encode()


def message_page(status: int, title: str, text: str) -> HttpResponse:
    """Return a page with a message."""
    return page(status, title, f"<h1>{escape(title)}</h1><p>{escape(text)}</p>")


def sign_in_page(
    client_id: str, params: dict[str, str], username: str = "", error: str = ""
) -> HttpResponse:
    """Return the sign-in form, which posts to the URL with the request's *params*."""
    alert = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    focus_name, focus_password = ("", " autofocus") if username else (" autofocus", "")
    content = (
        "<h1>Sign in</h1>"
        f"<p>to continue to <strong>{escape(client_id)}</strong></p>{alert}"
        f'<form method="post" action="?{escape(urlencode(params))}">'
        '<label for="username">Username</label>'
        f'<input id="username" name="username" value="{escape(username)}" '
        f'autocomplete="username" autocapitalize="none" spellcheck="false"{focus_name}>'
        '<label for="password">Password</label>'
        '<input id="password" name="password" type="password" '
        f'autocomplete="current-password"{focus_password}>'
        '<div class="actions">'
        '<button class="primary" name="action" value="login">Sign in</button>'
        '<button name="action" value="cancel">Cancel</button></div></form>'
        '<p class="note">Development provider: not for production.</p>'
    )
    return page(200, "Sign in", content)


def form_post_page(redirect_uri: str, params: dict[str, str]) -> HttpResponse:
    """Return a page that posts the authorization response (Form Post Response Mode)."""
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in params.items()
    )
    content = (
        f'<h1>One moment</h1><form method="post" action="{escape(redirect_uri)}">'
        f'{fields}<div class="actions"><button class="primary">Continue</button></div>'
        f"</form><script>{SUBMIT_SCRIPT}</script>"
    )
    return page(200, "One moment", content)
