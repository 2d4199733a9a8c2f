"""Try what settings lead to: templates, certificates, formats of log lines.

Only these know whether they can be used, so they are made once and dropped; a
configuration that starts is one that works, and nothing is half-started.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

from authproxy_core.errors import AuthProxyError, SettingsError
from authproxy_core.proxy import AuthProxy

from ..logs.file import LogFile
from ..logs.formatter import AUTH_FIELDS, REQUEST_FIELDS, STANDARD_FIELDS
from ..logs.redact import compile_format
from ..net.tls import client_context, server_context
from ..server_settings import LogFileSettings, ServerSettings, TlsSettings


def preflight_problems(settings: ServerSettings) -> list[str]:
    """What goes wrong when *settings* are used."""
    trials: list[Callable[[], object]] = [
        lambda: AuthProxy(settings.core),
    ]
    if settings.client.ca_files:  # nothing else can be wrong with it
        trials.append(lambda: client_context(settings.client))
    for kind, fields in (
        ("standard", STANDARD_FIELDS),
        ("auth", AUTH_FIELDS),
        ("request", REQUEST_FIELDS),
    ):
        template = getattr(settings.logs, f"{kind}_format")
        trials.append(_compiling(f"{kind}_logging_format", template, fields))
    problems = [problem for trial in trials for problem in _failures(trial)]
    if settings.logs.file is not None:
        problems += _file_problems(settings.logs.file)
    for listener in settings.listeners:
        if listener.tls is not None:
            prefix = "metrics_" if listener.metrics else ""
            problems += _tls_problems(listener.tls, prefix)
    return problems


def _compiling(
    option: str, template: str, fields: tuple[str, ...]
) -> Callable[[], object]:
    return lambda: compile_format(option, template, fields)


def _failures(trial: Callable[[], object]) -> Iterator[str]:
    try:
        trial()
    except SettingsError as error:
        yield from error.problems
    except AuthProxyError as error:  # a page that is no template
        yield f"custom_templates_dir: {error}"


def _file_problems(settings: LogFileSettings) -> Iterator[str]:
    file = LogFile(settings, local_time=True)
    try:
        file.open()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        yield f"logging_filename: can't write {settings.path}: {reason}"
    file.close()


def _tls_problems(tls: TlsSettings, prefix: str) -> Iterator[str]:
    """What is wrong with the files of the options whose names begin with *prefix*."""
    files = (
        (f"{prefix}tls_cert_file", tls.cert_file),
        (f"{prefix}tls_key_file", tls.key_file),
    )
    for option, path in () if tls.pem else files:
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            yield f"{option}: can't read {path}: {error.strerror}"
            return
    try:
        server_context(tls)
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").lower().replace("_", " ")
        yield (
            f"{prefix}tls_cert_file: {tls.cert_file} and {tls.key_file} can't be used "
            f"together: {reason}"
        )
