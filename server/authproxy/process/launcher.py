"""Start a server: one worker in this process, or a supervisor that forks several."""

from __future__ import annotations

from authproxy_core.errors import AuthProxyError
from authproxy_core.login.context import callback_url

from ..logs.supervisor_log import configure, log, reserve_standard_fds
from ..metrics.metrics import metrics_of
from ..metrics.shared_memory import SharedMetrics
from ..net.descriptors import max_client_descriptors, raise_descriptor_limit
from ..net.listeners import ListenError, open_listeners
from ..reload.reload_settings import ConfigSource, Rebuild, error_lines
from ..server_settings import ServerSettings
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
                log(f"warning: {warning}")
            for listener in sockets:
                event = "metrics" if listener.metrics else "listening"
                log(f"{event} on {listener.name}", level="info")
            for url in _callback_urls(settings):
                log(f"callback URL: {url}", level="info")
            if settings.workers == 1:
                from ..worker.serve import serve

                metrics = metrics_of(settings, SharedMetrics(), 0)
                serve(settings, sockets, source=source, metrics=metrics)
                return 0
            from .supervisor import Supervisor

            return Supervisor(settings, sockets, source).run()
    except (ListenError, NoDirectoryError) as error:
        log(str(error))
    except (AuthProxyError, OSError) as error:
        log(f"start failed: {'; '.join(error_lines(error))}")
    return 1
