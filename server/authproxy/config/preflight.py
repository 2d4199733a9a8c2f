"""Preflight: build what only its user can validate, and discard it.

Templates, certificates, log formats and the log file are tried before the server
starts, so an invalid configuration never leaves it half-started.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from functools import partial

from authproxy_core.errors import AuthProxyError, SettingsError
from authproxy_core.proxy import AuthProxy

from ..logs.file import LogFile
from ..logs.formatter import AUTH_FIELDS, REQUEST_FIELDS, STANDARD_FIELDS
from ..logs.redact import compile_format
from ..net.tls import client_context, server_context
from ..server_settings import LogFileSettings, ServerSettings, TlsSettings


def preflight_problems(settings: ServerSettings) -> list[str]:
    """Return the problems of using *settings*."""
    logs = settings.logs
    builders: list[Callable[[], object]] = [
        partial(AuthProxy, settings.core),
        partial(
            compile_format,
            "standard_logging_format",
            logs.standard_format,
            STANDARD_FIELDS,
        ),
        partial(compile_format, "auth_logging_format", logs.auth_format, AUTH_FIELDS),
        partial(
            compile_format,
            "request_logging_format",
            logs.request_format,
            REQUEST_FIELDS,
        ),
    ]
    if settings.client.ca_files:
        builders.append(partial(client_context, settings.client))
    problems = [problem for build in builders for problem in _build_problems(build)]
    if logs.file is not None:
        problems += _log_file_problems(logs.file)
    for listener in settings.listeners:
        if listener.tls is not None:
            prefix = "metrics_" if listener.metrics else ""
            problems += _tls_problems(listener.tls, prefix)
    return problems


def _build_problems(build: Callable[[], object]) -> Iterator[str]:
    try:
        build()
    except SettingsError as error:
        yield from error.problems
    except AuthProxyError as error:  # an invalid page template
        yield f"custom_templates_dir: {error}"


def _log_file_problems(settings: LogFileSettings) -> Iterator[str]:
    file = LogFile(settings, local_time=True)
    try:
        file.open()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        yield f"logging_filename: can't write {settings.path}: {reason}"
    file.close()


def _tls_problems(tls: TlsSettings, prefix: str) -> Iterator[str]:
    """Check the files of the options ``<prefix>tls_cert_file`` and ``…_key_file``."""
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
        reason = (error.reason or "not PEM").lower().replace("_", " ")
        yield (
            f"{prefix}tls_cert_file: can't use {tls.cert_file} with the key "
            f"{tls.key_file}: {reason}"
        )
