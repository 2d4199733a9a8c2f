"""The limit of open files, and the part of it that client connections may use."""

from __future__ import annotations

import contextlib
import resource

# Clients may use one of two descriptors: a forwarded request needs another one for the
# upstream, and the store, the provider and the logs need some.
DESCRIPTORS_PER_CLIENT = 2


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard limit, as Go programs do."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_client_descriptors() -> int:
    """Return how many client connections a process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft // DESCRIPTORS_PER_CLIENT, 1)
