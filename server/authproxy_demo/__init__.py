"""A demonstration: OpenID provider, sample application and authproxy in front of it.

For development and for tests only. `provider` and `sample_app` also serve the tests
as real peers, so importing this package must not load the server: `main` imports what
it starts when it is called.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run the demonstration until SIGINT or SIGTERM; returns the exit status."""
    from .run import run_demo

    return run_demo(argv)


__all__ = ["main"]
