"""``authproxy init``: write a commented configuration, after questions.

Each question is also a flag. Questions go to standard error, so that ``--stdout`` prints
the configuration alone.
"""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from authproxy_core.encoding import is_host_name
from authproxy_core.settings.provider_types import PROVIDER_TYPES
from authproxy_core.settings.root import UNIX_PEERS

from ..config.read.resolved import ConfigError, UsageError
from .initial_file import (
    ANY_DOMAIN,
    Answers,
    callback_url,
    format_configuration,
    split_list,
)

DESCRIPTION = (
    "Asks for the provider, the client, the host, the gateway and the session store, and "
    "writes a commented configuration with a new cookie secret. Flags answer questions "
    "in advance. An existing file is not overwritten."
)
DEFAULT_FILE = "authproxy.cfg"
SECRET_BYTES = 32
MAX_ATTEMPTS = 3  # at a question
MAX_ANSWER_LENGTH = 4096  # characters
GATEWAYS = (
    "traefik", "nginx", "ingress-nginx", "caddy", "envoy", "haproxy", "gateway-api", "none",
)  # fmt: skip
STORES = ("cookie", "redis", "sqlite")
# Provider types without further required options.
PROVIDERS = tuple(
    name
    for name, kind in PROVIDER_TYPES.items()
    if kind.secret and not kind.required_options
)
# Issuers whose accounts are open to all; other public types have no issuer option.
PUBLIC_ISSUER = re.compile(
    r"https?://((www\.)?gitlab\.com|accounts\.google\.com|appleid\.apple\.com|"
    r"login\.microsoftonline\.com/(common|organizations|consumers))(?![\w.-])",
    re.IGNORECASE,
)


class Question(NamedTuple):
    """A question, its default (None: an answer is required), and when it is asked.

    If ``has_no_default`` is true of the answers so far, an answer is required as well;
    ``exception`` says so in the help.
    ``parse`` raises ValueError with what is expected; ``choices`` are all answers. A
    ``hidden`` answer is not echoed, and has no flag.
    """

    name: str
    text: str
    default: str | None
    parse: Callable[[str], str]
    is_asked: Callable[[Answers], bool] = lambda _: True
    hidden: bool = False
    choices: tuple[str, ...] = ()
    has_no_default: Callable[[Answers], bool] = lambda _: False
    exception: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


def _any(text: str) -> str:
    return text


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        expected = f"a URL such as {schemes[0]}://HOST"
        try:
            parts = urlsplit(text)
            is_valid = bool(parts.hostname) and parts.port != 0
        except ValueError:
            raise ValueError(expected) from None
        if parts.scheme not in schemes or not is_valid or " " in text:
            raise ValueError(expected)
        return text

    return parse


def _host(text: str) -> str:
    name, _, port = text.partition(":")
    if not is_host_name(name) or (port and not (port.isascii() and port.isdigit())):
        raise ValueError("a host such as app.example.com")
    return text.lower()


def _addresses(text: str) -> str:
    for entry in split_list(text):
        try:
            if entry != UNIX_PEERS:
                ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError("addresses or networks such as 10.42.0.0/16") from None
    return text


def _has_public_provider(answers: Answers) -> bool:
    """Return whether any person can have an account of the provider."""
    if not PROVIDER_TYPES[answers["provider"]].discovers:
        return True
    return PUBLIC_ISSUER.match(answers["issuer"]) is not None


def _has_gateway(answers: Answers) -> bool:
    return answers["gateway"] != "none"


def _has_no_gateway(answers: Answers) -> bool:
    return answers["gateway"] == "none"


QUESTIONS = (
    Question("provider", "provider type", "keycloak-oidc", _any, choices=PROVIDERS),
    Question(
        "issuer",
        "issuer URL (Keycloak: https://HOST/realms/REALM)",
        None,
        _url("https", "http"),
        lambda answers: PROVIDER_TYPES[answers["provider"]].discovers,
    ),
    Question("client_id", "client ID", None, _any),
    Question(
        "client_secret_file",
        "file with the client secret (empty: enter the secret)",
        "",
        _any,
    ),
    Question(
        "client_secret",
        "client secret (empty: variable OAUTH2_PROXY_CLIENT_SECRET)",
        "",
        _any,
        lambda answers: not answers["client_secret_file"],
        hidden=True,
    ),
    Question(
        "email_domains",
        "allowed email domains, separated by commas (*: any account)",
        ANY_DOMAIN,
        _any,
        has_no_default=_has_public_provider,
        exception="; required for public providers, such as google and github",
    ),
    Question("host", "host of the application", None, _host),
    Question("gateway", "gateway in front of it", "traefik", _any, choices=GATEWAYS),
    Question(
        "trusted_proxies",
        "addresses of the gateway (empty: loopback and private addresses)",
        "",
        _addresses,
        _has_gateway,
    ),
    Question(
        "upstream",
        "URL of the application behind authproxy",
        "http://127.0.0.1:8080/",
        _url("http", "https"),
        _has_no_gateway,
    ),
    Question(
        "tls_cert_file",
        "PEM file with the certificate of the host (empty: http, for tests)",
        "",
        _any,
        _has_no_gateway,
    ),
    Question(
        "tls_key_file",
        "PEM file with its private key",
        None,
        _any,
        lambda answers: bool(answers["tls_cert_file"]),
    ),
    Question("listen", "address to listen on", "127.0.0.1:4180", _any),
    Question("store", "session store", "cookie", _any, choices=STORES),
    Question(
        "redis_url",
        "URL of Redis",
        "redis://127.0.0.1:6379",
        _url("redis", "rediss"),
        lambda answers: answers["store"] == "redis",
    ),
    Question(
        "sqlite_path",
        "file of the SQLite store",
        "/var/lib/authproxy/sessions.db",
        _any,
        lambda answers: answers["store"] == "sqlite",
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Write the configuration; returns the exit code. Raises `ConfigError`."""
    options = parser().parse_args(arguments)
    path = Path(options.file)
    if not options.stdout and path.exists():
        raise UsageError((f"{path}: exists, and is not overwritten",))
    try:
        answers = _collect_answers(options)
    except (EOFError, KeyboardInterrupt):
        sys.stderr.write("\nnothing written\n")
        return 1
    text = format_configuration(answers, secrets.token_urlsafe(SECRET_BYTES))
    unchecked = check_configuration(text)
    if options.stdout:
        sys.stdout.write(text)
    else:
        _write(path, text)
    _print_next_steps(answers, path, unchecked, written=not options.stdout)
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="authproxy init", description=DESCRIPTION, allow_abbrev=False
    )
    help_ = f"file to write (default: {DEFAULT_FILE})"
    result.add_argument(
        "file", metavar="FILE", nargs="?", default=DEFAULT_FILE, help=help_
    )
    for question in QUESTIONS:
        if not question.hidden:
            default = f"; default: {question.default}" if question.default else ""
            result.add_argument(
                question.flag,
                metavar="VALUE",
                help=f"{question.text}{default}{question.exception}".replace("%", "%%"),
            )
    help_ = "use the defaults instead of asking"
    result.add_argument("--no-questions", action="store_true", help=help_)
    help_ = "print the configuration instead of writing a file"
    result.add_argument("--stdout", action="store_true", help=help_)
    return result


def _collect_answers(options: argparse.Namespace) -> dict[str, str]:
    """Return an answer for each question; raises `UsageError` and EOFError."""
    answers = {question.name: "" for question in QUESTIONS}
    for question in QUESTIONS:
        given: str | None = getattr(options, question.name, None)
        if question.has_no_default(answers):
            question = question._replace(default=None)
        if not question.is_asked(answers):
            if given is not None:
                raise UsageError(
                    (f"{question.flag}: has no effect with the other answers",)
                )
        elif given is not None:
            answers[question.name] = _parse_flag(question, given)
        elif not options.no_questions:
            answers[question.name] = _ask(question)
        elif question.default is None:
            raise UsageError((f"{question.flag}: missing; expected {question.text}",))
        else:
            answers[question.name] = question.default
    return answers


def _parse_flag(question: Question, text: str) -> str:
    problem = _problem(question, text)
    if problem:
        raise UsageError((f"{question.flag}: {problem}",))
    return question.parse(text)


def _problem(question: Question, text: str) -> str:
    """Return why *text* is not an answer, or ""; a hidden answer is not shown."""
    shown = "an answer" if question.hidden else repr(text[:80])
    if not text.isprintable():
        return f"got {shown}, expected printable characters"
    if not text and question.default is None:
        return "missing"
    try:
        if text:
            question.parse(text)
        if question.choices and text not in question.choices:
            raise ValueError(f"one of {', '.join(question.choices)}")
    except ValueError as error:
        return f"got {shown}, expected {error}"
    return ""


def _ask(question: Question) -> str:
    """Ask until there is a valid answer; raises `UsageError` after some attempts."""
    default = f" [{question.default}]" if question.default else ""
    for _ in range(MAX_ATTEMPTS):
        text = _read_line(f"{question.text}{default}: ", question.hidden).strip()
        text = text or question.default or ""
        problem = _problem(question, text)
        if not problem:
            return question.parse(text) if text else ""
        sys.stderr.write(f"  {problem}\n")
    raise UsageError((f"no valid answer for {question.flag}",))


def _read_line(prompt: str, hidden: bool) -> str:
    """Read a line of standard input; raises EOFError at its end."""
    if hidden and sys.stdin.isatty():
        return getpass.getpass(prompt, sys.stderr)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline(MAX_ANSWER_LENGTH)
    if not line:
        raise EOFError
    if len(line) == MAX_ANSWER_LENGTH:
        raise UsageError((f"an answer has more than {MAX_ANSWER_LENGTH} characters",))
    return line


def check_configuration(text: str) -> tuple[str, ...]:
    """Check the configuration as the server does at its start.

    Returns the files that are not on this machine. Raises `ConfigError`.
    """
    from ..migration.configuration import NamedText, Sources, load_configuration

    loaded = load_configuration(Sources(toml=NamedText("the new file", text)))
    missing = [one for one in loaded.missing if not one.startswith("client_secret:")]
    if loaded.problems or missing:
        raise ConfigError((*loaded.problems, *missing), loaded.warnings)
    return loaded.unchecked


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, because it contains secrets."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError((f"can't write {path}: {error.strerror}",)) from None


def _print_next_steps(
    answers: Answers, path: Path, unchecked: Sequence[str], *, written: bool
) -> None:
    lines = [f"not checked: {problem}" for problem in unchecked]
    if written:
        lines += [f"written: {path}", "next:"]
        lines += [
            f"  authproxy --config {path} --config-test",
            f"  authproxy --config {path}",
        ]
    lines.append(f"redirect URI for the provider: {callback_url(answers)}")
    is_open = ANY_DOMAIN in split_list(answers["email_domains"])
    if is_open and _has_public_provider(answers):
        name = PROVIDER_TYPES[answers["provider"]].name
        lines.append(
            f"every account of {name} can sign in, because email_domains contains *"
        )
    if _has_gateway(answers):
        lines.append(f"the gateway's side: docs/gateways/{answers['gateway']}.md")
    sys.stderr.write("\n".join(lines) + "\n")
