"""Start a server: one worker in this process, or a supervisor that forks several."""

from __future__ import annotations

from collections.abc import Iterator

from authproxy_core.errors import AuthProxyError
from authproxy_core.login.context import callback_url

from .. import __version__
from ..logs.supervisor_log import configure, log, reserve_standard_fds
from ..metrics.metrics import metrics_of
from ..metrics.shared_memory import SharedMetrics
from ..net.descriptors import max_client_descriptors, raise_descriptor_limit
from ..net.listeners import ListenError, open_listeners
from ..reload.reload_settings import ConfigSource, Rebuild, error_lines
from ..server_settings import ServerSettings, StoreSettings
from ..stores.shared_state import NoDirectoryError, with_store_path


def _callback_urls(settings: ServerSettings) -> list[str]:
    """Return the callback URL to register at each provider, HOST for any host."""
    is_tls = any(
        listener.tls and not listener.metrics for listener in settings.listeners
    )
    core, scheme = settings.core, "https" if is_tls else "http"
    return [callback_url(core, scheme, "HOST", one.id) for one in core.providers]


def _descriptor_warnings(settings: ServerSettings) -> list[str]:
    """Warn if the limit of open files allows fewer clients than ``max_connections``."""
    usable, wanted = max_client_descriptors(), settings.limits.connections
    if usable >= wanted:
        return []
    return [
        f"max_connections: {wanted}, but the limit of open files allows {usable} per "
        "worker; raise it (LimitNOFILE of systemd, ulimit -n)"
    ]


def _summary(settings: ServerSettings) -> Iterator[str]:
    """Yield the lines about *settings* that a start logs; without secrets."""
    core = settings.core
    for provider in core.providers:
        issuer = f", issuer {provider.issuer}" if provider.issuer else ""
        yield f"provider {provider.id!r}: type {provider.type}{issuer}"
    for url in _callback_urls(settings):
        yield f"callback URL: {url}"
    domains = ", ".join(core.cookie.domains) or "the host of the request"
    backend = "store" if core.sessions.backend == "store" else "cookie"
    yield f"cookie: {core.cookie.name} for {domains}; sessions in the {backend}"
    yield f"store: {_store_name(settings.store)}"
    trusted = (
        ", ".join(core.trusted_proxies)
        or "loopback, private addresses and unix sockets"
    )
    yield f"trusted proxies: {trusted if core.reverse_proxy else 'none'}"


def _store_name(store: StoreSettings) -> str:
    if store.kind != "redis":
        return f"sqlite {store.path}" if store.kind == "sqlite" else "none"
    redis = store.redis
    addresses = (one.path or f"{one.host}:{one.port}" for one in redis.addresses)
    return f"redis ({redis.mode}) {', '.join(addresses)}"


def run(settings: ServerSettings, rebuild: Rebuild | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    *rebuild* reads the configuration again for a reload; without it a reload fails.
    """
    reserve_standard_fds()
    configure(settings)
    raise_descriptor_limit()
    source = ConfigSource(settings, rebuild) if rebuild is not None else None
    try:
        with (
            open_listeners(settings.listeners) as sockets,
            with_store_path(settings) as settings,
        ):
            for warning in (*settings.warnings, *_descriptor_warnings(settings)):
                log(warning, level="warning")
            log(
                f"authproxy {__version__} starts, workers: {settings.workers}",
                level="info",
            )
            for listener in sockets:
                event = "metrics" if listener.metrics else "listening"
                log(f"{event} on {listener.name}", level="info")
            for line in _summary(settings):
                log(line, level="info")
            if settings.workers == 1:
                from ..worker.serve import serve

                metrics = metrics_of(settings, SharedMetrics(), 0)
                serve(settings, sockets, source=source, metrics=metrics)
                code = 0
            else:
                from .supervisor import Supervisor

                code = Supervisor(settings, sockets, source).run()
            if code == 0:
                log("stopped", level="info")
            return code
    except (ListenError, NoDirectoryError) as error:
        log(str(error))
    except (AuthProxyError, OSError) as error:
        log(f"start failed: {'; '.join(error_lines(error))}")
    return 1
