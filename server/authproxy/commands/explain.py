"""``authproxy explain``: show the decision for a request, and why.

The core decides the request with a session that is built from the flags. Nothing is sent to a
provider, store or upstream.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from msgspec.structs import replace

from authproxy_core.access.path_variants import path_variants
from authproxy_core.access.rules import Rule, RuleTable, path_of
from authproxy_core.drive import decide_sync
from authproxy_core.errors import StoreError
from authproxy_core.messages import (
    Decision,
    Forward,
    Header,
    Request,
    Respond,
    ServeFile,
)
from authproxy_core.proxy import AuthProxy
from authproxy_core.session import Session
from authproxy_core.sessions.sessions import Sessions
from authproxy_core.settings.root import SessionSettings, Settings

from ..config.read.resolved import UsageError
from ..config.read.sources import parse_flags, requests_help

USAGE = (
    "usage: authproxy explain --config FILE [flags] METHOD URL [--user USER] "
    "[--email ADDRESS] [--group GROUP]... [--role ROLE]... [--claim NAME=VALUE]..."
)
HELP = (
    "Shows the decision for a request, and why. Nothing is sent anywhere.",
    "",
    "  --user USER          user of the session; without user flags: no session",
    "  --email ADDRESS      email of the user",
    "  --group GROUP        group of the user, may be repeated",
    "  --role ROLE          role of the user, may be repeated",
    "  --claim NAME=VALUE   further claim, may be repeated",
    "",
    "All flags of the configuration are accepted: authproxy --help-all.",
)
USER_FLAGS = ("--user", "--email", "--group", "--role", "--claim")
GATEWAY = "127.0.0.1"


class ExplainRequest(NamedTuple):
    """The request to explain, and the user's session; None if unauthenticated."""

    method: str
    scheme: str
    host: str
    target: str
    session: Session | None


def parse_arguments(arguments: Sequence[str]) -> tuple[ExplainRequest, list[str]]:
    """Return the request, and the remaining flags for the configuration.

    Raises `UsageError`.
    """
    user_flags: dict[str, list[str]] = {name: [] for name in USER_FLAGS}
    rest: list[str] = []
    iterator = iter(arguments)
    for argument in iterator:
        name, equals, value = argument.partition("=")
        if name in user_flags:
            user_flags[name].append(value if equals else next(iterator, ""))
        else:
            rest.append(argument)
    for at, (method, url) in enumerate(pairwise(rest)):
        if (
            method.isalpha()
            and method.isupper()
            and url.startswith(("http://", "https://"))
        ):
            del rest[at : at + 2]
            parts = urlsplit(url)
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            session = _build_session(user_flags)
            return ExplainRequest(
                method, parts.scheme, parts.netloc, target, session
            ), rest
    raise UsageError((USAGE,))


def _build_session(user_flags: dict[str, list[str]]) -> Session | None:
    if not any(user_flags.values()):
        return None
    claims: dict[str, Any] = {}
    for text in user_flags["--claim"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError((f"--claim: got {text!r}, expected NAME=VALUE",))
        claims.setdefault(name, []).append(value)
    emails = user_flags["--email"]
    [user, *_] = [*user_flags["--user"], *emails, "user"]
    [email, *_] = [*emails, user if "@" in user else ""]
    roles = (f"role:{role}" for role in user_flags["--role"])
    now = time.time()
    return Session(
        created_at=now,
        login_at=now,
        user=user,
        email=email,
        groups=(*user_flags["--group"], *roles),
        claims=claims,
    )


def explain_request(core: Settings, request: ExplainRequest) -> Iterator[str]:
    """Yield the lines of the explanation."""
    session = request.session
    if session is not None and not session.email:
        session = replace(session, email=f"{session.user}@{_allowed_domain(core)}")
        request = request._replace(session=session)
    yield f"{request.method} {request.scheme}://{request.host}{request.target}"
    if session is None:
        yield "  unauthenticated"
    else:
        yield f"  as {session.name!r}, groups: {', '.join(session.groups) or 'none'}"
    if core.access.is_active:
        yield "access rules:"
        yield from (f"  {line}" for line in _explain_rules(core, request))
    else:
        yield "access rules: none"
    forwarded = _decide(core, request)
    checked = _decide(core, request, auth_check=True)
    yield f"forwarded by authproxy: {_describe_decision(forwarded)}"
    yield f"auth check of a gateway: {_describe_decision(checked)}"


def _allowed_domain(core: Settings) -> str:
    """Return an allowed email domain, for a user without an email."""
    domains = [
        domain.removeprefix("*").removeprefix(".") for domain in core.email_domains
    ]
    return next(filter(None, domains), "example.com")


def _explain_rules(core: Settings, request: ExplainRequest) -> Iterator[str]:
    table = RuleTable(core.access)
    method, path = request.method.encode(), path_of(request.target.encode())
    variants, unambiguous = path_variants(path)
    explained: set[Rule] = set()
    if not unambiguous:
        yield "the path is ambiguous: it can't be public, and must satisfy the rules of"
        yield "each variant: " + ", ".join(map(repr, variants))
    for variant in variants:
        for rule, match in table.trace(request.host, method, variant):
            if rule is None:
                yield f"no rule matches: {table.default} (access_rules_default)"
            elif match.mismatch:
                yield f"{rule.name}: {match.mismatch} does not match"
            else:
                yield _explain_match(rule, request.session)
            if rule is not None and match.matches is not False:
                explained.add(rule)
    for rule in table.rules_of_other_spellings(request.host, method, variants):
        if rule not in explained:
            explained.add(rule)
            yield (
                "for servers that ignore case, and dots or spaces at the end of a "
                f"segment: {_explain_match(rule, request.session)}"
            )


def _explain_match(rule: Rule, session: Session | None) -> str:
    policy = rule.settings.policy
    if policy != "login":
        return f"{rule.name}: {policy}"
    if session is None:
        return f"{rule.name}: requires a login"
    missing = rule.users.missing(session)
    if not missing:
        return f"{rule.name}: allowed"
    return f"{rule.name}: denied, because of the user's {', '.join(missing)}"


def _decide(
    core: Settings, request: ExplainRequest, *, auth_check: bool = False
) -> Decision:
    """Let the core decide *request*, or the auth check of a gateway for it."""
    core = replace(
        core,
        sessions=SessionSettings(),
        cookie=replace(core.cookie, refresh=0.0, minimal=False),
        reverse_proxy=core.reverse_proxy or auth_check,
        trusted_proxies=(GATEWAY,),
    )
    host = request.host.encode()
    headers: list[Header] = [(b"host", host), (b"accept", b"text/html")]
    method, target = request.method.encode(), request.target.encode()
    if auth_check:
        headers += [
            (b"x-forwarded-host", host),
            (b"x-forwarded-method", method),
            (b"x-forwarded-proto", request.scheme.encode()),
            (b"x-forwarded-uri", target),
        ]
        method, target = b"GET", f"{core.proxy_prefix}/auth".encode()
    if request.session is not None:
        headers.append((b"cookie", _seal_cookie(core, request.session)))
    secure = request.scheme == "https"
    sent = Request(method, target, tuple(headers), GATEWAY, secure, "explain")
    return decide_sync(AuthProxy(core).handle(sent), _reject_effect)


def _seal_cookie(core: Settings, session: Session) -> bytes:
    ids = [provider.id for provider in core.providers]
    sessions = Sessions(
        core, provider_ids=ids, clock=time.time, random_bytes=os.urandom
    )
    value = sessions.formats.write_session(replace(session, provider=ids[0]))
    return core.cookie.name.encode() + b"=" + value


def _reject_effect(effect: object) -> Any:
    raise StoreError(f"explain performs no effects, got {type(effect).__name__}")


def _describe_decision(decision: Decision) -> str:
    match decision:
        case Forward():
            return f"allowed, to the upstream {decision.upstream.id!r}"
        case ServeFile():
            return f"allowed, to the files of {decision.upstream!r}"
        case Respond():
            return _describe_response(decision)


def _describe_response(response: Respond) -> str:
    reason = f" ({response.reason})" if response.reason else ""
    status = f"{response.status}{reason}"
    match response.verdict:
        case "unauthenticated":
            return f"requires a login: {status}"
        case "denied":
            details = [event.detail for event in response.events if event.detail]
            return ", ".join([f"denied: {status}", *details])
        case "allowed":
            return f"allowed: {status}"
    return f"response: {status}"


def main(arguments: Sequence[str]) -> int:
    """Print the explanation; raises `ConfigError`."""
    from ..config.load import build_settings

    if requests_help(arguments):
        sys.stdout.write("\n".join((USAGE, "", *HELP, "")))
        return 0
    request, flags = parse_arguments(arguments)
    settings = build_settings(parse_flags(flags), os.environ)
    for line in explain_request(settings.core, request):
        sys.stdout.write(f"{line}\n")
    return 0
