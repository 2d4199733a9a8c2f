"""Logins that a third party starts: iss, login_hint, target_link_uri (OIDC Core §4).

A third party, often the provider, sends the browser to the start endpoint with the
parameters of the specification in place of authproxy's. It can choose no more than a
link to that endpoint can: one of the offered providers, and a checked redirect target.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..effects import Outcome
from ..errors import ProviderError
from ..messages import Request
from .context import Context
from .error_pages import login_failed_page
from .failures import login_failure
from .flow import start_login_when_ready

MAX_HINT_LENGTH = 1024  # characters


def start_requested_login(
    context: Context, request: Request, form: Mapping[str, str]
) -> Outcome:
    """Start the login that *request* to the start endpoint asks for."""
    if "iss" not in form:
        return start_login_when_ready(context, request, form)
    try:
        hint = _login_hint(form)
        form = _with_own_names(context, request, form)
    except ProviderError as error:
        return login_failed_page(context, request, login_failure(error), "/")
    return start_login_when_ready(context, request, form, login_hint=hint)


def _login_hint(form: Mapping[str, str]) -> str:
    hint = form.get("login_hint", "")
    if len(hint) > MAX_HINT_LENGTH or not hint.isprintable():
        raise ProviderError(
            f"expected at most {MAX_HINT_LENGTH} printable characters in login_hint",
            reason="third_party",
        )
    return hint


def _with_own_names(
    context: Context, request: Request, form: Mapping[str, str]
) -> dict[str, str]:
    """Return *form* with ``rd`` and ``provider``; raises `ProviderError`."""
    form = {"rd": form.get("target_link_uri", ""), **form}
    host = context.host(request)
    host = context.redirect_host(host, context.redirect_target(request, form))
    issued = [
        provider_id
        for provider_id in context.binding.offered_providers(host)
        if form["iss"] in context.providers[provider_id].issuers
    ]
    named = form.get("provider") or next(iter(issued), "")
    if named not in issued:
        raise ProviderError(
            f"no provider that is offered on {host} has the issuer {form['iss'][:200]!r} "
            "of the request",
            reason="third_party",
            hint="iss must be the exact issuer of the provider (OIDC Core section 4)",
        )
    return {**form, "provider": named}
