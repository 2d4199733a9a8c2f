"""Files of the built-in pages in ``data``."""

from __future__ import annotations

from typing import Any

DATA = f"{__file__.rpartition('/')[0]}/data"


def read_data(name: str) -> bytes:
    """Return the content of a file.

    The loader of the package reads it, so it may be in a zip file. importlib.resources
    does the same, but importing it takes long.
    """
    loader: Any = __spec__.loader
    content: bytes = loader.get_data(f"{DATA}/{name}")
    return content
