"""``authproxy explain``: what becomes of a request, and which rule decides about it.

The decision is that of the core itself, asked with a session made for the purpose; the
lines about rules say how it came about. Nothing is sent anywhere.
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

from authproxy_core.access.rules import Rule, RuleTable, path_of, path_variants
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

USAGE = (
    "usage: authproxy explain --config FILE [flags] METHOD URL [--user USER] "
    "[--email ADDRESS] [--group GROUP]... [--role ROLE]... [--claim NAME=VALUE]..."
)
USER_FLAGS = ("--user", "--email", "--group", "--role", "--claim")
GATEWAY = "127.0.0.1"


class ExplainRequest(NamedTuple):
    """What is asked: a request, and the session of whoever sends it (None: nobody)."""

    method: str
    scheme: str
    host: str
    target: str
    session: Session | None


def parse(arguments: Sequence[str]) -> tuple[ExplainRequest, list[str]]:
    """The question, and the flags that are left for the configuration.

    Raises `UsageError`.
    """
    said: dict[str, list[str]] = {name: [] for name in USER_FLAGS}
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        name, equals, value = argument.partition("=")
        if name in said:
            said[name].append(value if equals else next(given, ""))
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
            person = _session(said)
            return ExplainRequest(
                method, parts.scheme, parts.netloc, target, person
            ), rest
    raise UsageError((USAGE,))


def _session(said: dict[str, list[str]]) -> Session | None:
    if not any(said.values()):
        return None
    claims: dict[str, Any] = {}
    for text in said["--claim"]:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError((f"--claim: got {text!r}, expected NAME=VALUE",))
        claims.setdefault(name, []).append(value)
    [user, *_] = [*said["--user"], *said["--email"], "somebody"]
    [email, *_] = [*said["--email"], user if "@" in user else ""]
    now = time.time()
    return Session(
        created_at=now,
        login_at=now,
        user=user,
        email=email,
        groups=(*said["--group"], *(f"role:{role}" for role in said["--role"])),
        claims=claims,
    )


def explained(core: Settings, question: ExplainRequest) -> Iterator[str]:
    """The explanation, line by line."""
    person = question.session
    if person is not None and not person.email:
        person = replace(person, email=f"{person.user}@{_a_domain(core)}")
        question = question._replace(session=person)
    who = "nobody in particular" if person is None else f"{person.name!r}"
    groups = ", ".join(person.groups) if person and person.groups else "none"
    yield f"{question.method} {question.scheme}://{question.host}{question.target}"
    yield f"  from {who}" + (f", groups: {groups}" if person else "")
    if core.access.any:
        yield "access rules:"
        yield from (f"  {line}" for line in _rules(core, question))
    else:
        yield "access rules: there are none"
    yield f"carried by authproxy: {_describe(_decision(core, question))}"
    yield f"asked about by a gateway: {_describe(_decision(core, question, asked=True))}"


def _a_domain(core: Settings) -> str:
    """One whose addresses are let in, if there is any: nobody said which."""
    domains = [one.removeprefix("*").removeprefix(".") for one in core.email_domains]
    return next(filter(None, domains), "example.com")


def _rules(core: Settings, question: ExplainRequest) -> Iterator[str]:
    table = RuleTable(core.access)
    method, path = question.method.encode(), path_of(question.target.encode())
    seen, sure = path_variants(path)
    if not sure:
        yield "the path can be read in several ways; no rule makes it public, and it must"
        yield "satisfy what each reading demands: " + ", ".join(map(repr, seen))
    for reading in seen:
        for rule, match in table.trace(question.host, method, reading):
            if rule is None:
                yield f"none of them is about it: {table.default} (access_rules_default)"
            elif match.mismatch:
                yield f"{rule.name}: is about another {match.mismatch}"
            else:
                yield _about(rule, question.session)


def _about(rule: Rule, session: Session | None) -> str:
    policy = rule.settings.policy
    if policy != "login":
        return f"{rule.name}: {policy}"
    if session is None:
        return f"{rule.name}: needs a login"
    lacking = rule.users.missing(session)
    if not lacking:
        return f"{rule.name}: is satisfied"
    return f"{rule.name}: is not satisfied by the user's {', '.join(lacking)}"


def _decision(
    core: Settings, question: ExplainRequest, *, asked: bool = False
) -> Decision:
    """What the core decides; as a trusted gateway's auth request when *asked*."""
    core = replace(
        core,
        sessions=SessionSettings(),
        cookie=replace(core.cookie, refresh=0.0, minimal=False),
        reverse_proxy=core.reverse_proxy or asked,
        trusted_proxies=(GATEWAY,),
    )
    host = question.host.encode()
    headers: list[Header] = [(b"host", host), (b"accept", b"text/html")]
    method, target = question.method.encode(), question.target.encode()
    if asked:
        headers += [
            (b"x-forwarded-method", method),
            (b"x-forwarded-proto", question.scheme.encode()),
            (b"x-forwarded-uri", target),
        ]
        method, target = b"GET", f"{core.proxy_prefix}/auth".encode()
    if question.session is not None:
        headers.append((b"cookie", _cookie(core, question.session)))
    secure = question.scheme == "https"
    request = Request(method, target, tuple(headers), GATEWAY, secure, "explain")
    return decide_sync(AuthProxy(core).handle(request), _perform)


def _cookie(core: Settings, session: Session) -> bytes:
    ids = [provider.id for provider in core.providers]
    sessions = Sessions(
        core, provider_ids=ids, clock=time.time, random_bytes=os.urandom
    )
    value = sessions.formats.write_session(replace(session, provider=ids[0]))
    return core.cookie.name.encode() + b"=" + value


def _perform(effect: object) -> Any:
    raise StoreError(f"nothing is asked when explaining, got {type(effect).__name__}")


def _describe(decision: Decision) -> str:
    match decision:
        case Forward():
            return f"passes, to the upstream {decision.upstream.id!r}"
        case ServeFile():
            return f"passes, to the files of {decision.upstream!r}"
        case Respond():
            return _answered(decision)


def _answered(answer: Respond) -> str:
    why = f" ({answer.reason})" if answer.reason else ""
    if answer.verdict == "unauthenticated":
        return f"needs a login: {answer.status}{why}"
    if answer.verdict == "denied":
        details = [event.detail for event in answer.events if event.detail]
        return f"denied: {answer.status}{why}" + "".join(f", {one}" for one in details)
    if answer.verdict == "allowed":
        return f"passes: {answer.status}{why}"
    return f"answered with {answer.status}{why}"


def main(arguments: Sequence[str]) -> int:
    """Print the explanation; raises `ConfigError`."""
    from ..config.load import build_settings
    from ..config.read.sources import parse_flags

    question, rest = parse(arguments)
    settings = build_settings(parse_flags(rest), os.environ)
    for line in explained(settings.core, question):
        sys.stdout.write(f"{line}\n")
    return 0
