"""Builds the parts that an `AuthProxy` and its flows share."""

from __future__ import annotations

from collections.abc import Callable

from .access.attempts import AttemptMemory
from .access.htpasswd import Htpasswd
from .access.membership import EmailRule
from .access.rules import AccessRules, build_access_control, required_claims
from .login.context import Context
from .login.loop_guard import LoginLoopDetector
from .login.notices import LoginNotices
from .login.redirects import RedirectPolicy
from .login.state import LoginStates
from .messages import Event
from .pages.pages import Pages
from .providers.hosts import HostBinding
from .providers.readiness import Readiness
from .providers.registry import create_provider
from .request.original import TrustedProxies
from .sessions.sessions import Sessions
from .settings.credentials import HTPASSWD
from .settings.root import Settings


def build_context(
    settings: Settings,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
    on_event: Callable[[Event], None],
    attempts: AttemptMemory | None = None,
) -> tuple[Context, AccessRules | None]:
    """Build the shared parts, and the access rules if there are any.

    Password attempts are counted in *attempts*. *settings* have passed `check`. Raises `SettingsError` for values that only a part
    itself can validate, such as keys.
    """
    providers = {
        provider.id: create_provider(
            provider,
            clock=clock,
            leeway=settings.clock_skew,
            extra_claims=required_claims(settings),
        )
        for provider in settings.providers
    }
    ids, users = list(providers), settings.credentials.users
    htpasswd = None
    if users is not None:
        htpasswd = Htpasswd(
            users,
            clock=clock,
            random_bytes=random_bytes,
            attempts=attempts or AttemptMemory(random_bytes(32)),
        )
    trust = TrustedProxies(settings)
    auth_bypass, rules = build_access_control(settings, trust)
    sessions = Sessions(
        settings,
        provider_ids=[*ids, HTPASSWD] if htpasswd else ids,
        clock=clock,
        random_bytes=random_bytes,
    )
    context = Context(
        settings=settings,
        clock=clock,
        on_event=on_event,
        trusted_proxies=trust,
        auth_bypass=auth_bypass,
        redirects=RedirectPolicy(settings),
        sessions=sessions,
        login_states=LoginStates(
            settings, provider_ids=ids, clock=clock, random_bytes=random_bytes
        ),
        providers=providers,
        binding=HostBinding(settings),
        emails=EmailRule(settings),
        pages=Pages(
            settings, [(provider.id, provider.name) for provider in providers.values()]
        ),
        readiness=Readiness(providers, clock=clock, on_event=on_event),
        htpasswd=htpasswd,
        loops=LoginLoopDetector(settings, sessions, clock),
        notices=LoginNotices(settings, trust, on_event),
    )
    return context, rules
