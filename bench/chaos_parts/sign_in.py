"""Sign-in at a provider, as a browser does it."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode, urlsplit

from chaos_parts.client import Pool, Reply

FORM = "application/x-www-form-urlencoded"
KEYCLOAK_FORM = re.compile(rb'id="kc-form-login"[^>]*action="([^"]+)"')
SignIn = Callable[[Pool, str, str], Awaitable[Reply]]


async def at_development_provider(pool: Pool, url: str, user: str) -> Reply:
    """Submit the form; return the redirect to the callback."""
    form = urlencode({"username": user, "password": "pw", "action": "login"})
    return await _post(pool, url, form)


async def at_keycloak(pool: Pool, url: str, user: str) -> Reply:
    """Open the page and submit its form; return the redirect to the callback."""
    parts = urlsplit(url)
    page = await pool.ask("GET", f"{parts.path}?{parts.query}", host=parts.netloc)
    found = KEYCLOAK_FORM.search(page.body)
    if found is None:
        return page
    cookies = [
        value.partition(";")[0] for name, value in page.fields if name == "set-cookie"
    ]
    action = html.unescape(found[1].decode())
    form = urlencode({"username": user, "password": "pw"})
    return await _post(pool, action, form, "; ".join(cookies))


async def _post(pool: Pool, url: str, form: str, cookies: str = "") -> Reply:
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}"
    return await pool.ask(
        "POST", target, cookies, form.encode(), host=parts.netloc, kind=FORM
    )
