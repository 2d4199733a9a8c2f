"""Objects of the program that only a garbage collection frees."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from types import FrameType


def is_of_program(item: object) -> bool:
    """Return whether *item* is an object or a frame of the program."""
    if isinstance(item, FrameType):
        return "/authproxy" in item.f_code.co_filename
    return type(item).__module__.startswith(("authproxy.", "authproxy_core."))


def cyclic() -> list[str]:
    """Return the types of the program's objects that only a collection frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = sorted({type(item).__name__ for item in gc.garbage if is_of_program(item)})
    gc.garbage.clear()
    return found


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Collect no garbage but that of `cyclic`, which ignores all older objects."""
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()
