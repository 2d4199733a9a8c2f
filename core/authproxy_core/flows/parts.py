"""Puts the parts together that an `AuthProxy` and its flows are made of."""

from __future__ import annotations

from collections.abc import Callable

from ..access import EmailRule
from ..binding import HostBinding
from ..credential_settings import HTPASSWD
from ..htpasswd import Htpasswd
from ..login_loop import LoginLoops
from ..login_state import LoginStates
from ..messages import Event
from ..original import Trust
from ..pages import Pages
from ..providers.table import build
from ..redirects import RedirectPolicy
from ..rules import AccessRules, gate_and_rules, wanted_claims
from ..session_stores import Sessions
from ..settings import Settings
from .context import Context
from .ready import Readiness


def parts(
    settings: Settings,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
    on_event: Callable[[Event], None],
) -> tuple[Context, AccessRules | None]:
    """The parts for valid *settings*; raises `SettingsError` for what can't be used."""
    providers = {
        provider.id: build(
            provider,
            clock=clock,
            leeway=settings.clock_skew,
            extra_claims=wanted_claims(settings),
        )
        for provider in settings.providers
    }
    ids, users = list(providers), settings.credentials.users
    htpasswd = None
    if users is not None:
        htpasswd = Htpasswd(users, clock=clock, random_bytes=random_bytes)
    trust = Trust(settings)
    gate, access = gate_and_rules(settings, trust)
    context = Context(
        settings=settings,
        clock=clock,
        on_event=on_event,
        trust=trust,
        gate=gate,
        redirects=RedirectPolicy(settings),
        sessions=Sessions(
            settings,
            provider_ids=[*ids, HTPASSWD] if htpasswd else ids,
            clock=clock,
            random_bytes=random_bytes,
        ),
        login_states=LoginStates(
            settings, provider_ids=ids, clock=clock, random_bytes=random_bytes
        ),
        providers=providers,
        binding=HostBinding(settings),
        emails=EmailRule(settings),
        pages=Pages(settings, [(one.id, one.name) for one in providers.values()]),
        readiness=Readiness(providers, clock=clock, on_event=on_event),
        htpasswd=htpasswd,
        loops=LoginLoops(settings, clock),
    )
    return context, access
