"""The demonstration: authproxy in front of a sample application.

`main` imports the server only when it is called, because tests import `sample_app`.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the demonstration until SIGINT or SIGTERM; returns the exit code."""
    from .run import run_demo

    return run_demo(argv)


__all__ = ["main"]
