"""Start: one worker in this process, or a supervisor with several forked ones."""

from __future__ import annotations

from .listeners import ListenError, opened
from .metrics.cells import SharedCells
from .metrics.metrics import metrics_of
from .notices import hold_standard_streams, say, speak_by
from .reload import Rebuild, Source
from .server_settings import ServerSettings
from .stores.shared_state import NoPlaceError, placed


def run(settings: ServerSettings, rebuild: Rebuild | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    *rebuild* reads the configuration again for a reload; without it there is none.
    """
    hold_standard_streams()
    speak_by(settings)
    source = Source(settings, rebuild) if rebuild is not None else None
    try:
        with opened(settings.listeners) as sockets, placed(settings) as settings:
            for warning in settings.warnings:
                say(f"warning: {warning}")
            for listening in sockets:
                what = "metrics" if listening.metrics else "listening"
                say(f"{what} on {listening.name}", good=True)
            if settings.workers == 1:
                from .server import serve

                metrics = metrics_of(settings, SharedCells(), 0)
                serve(settings, sockets, source=source, metrics=metrics)
                return 0
            from .supervisor import Supervisor

            return Supervisor(settings, sockets, source).run()
    except (ListenError, NoPlaceError) as error:
        say(str(error))
        return 1
