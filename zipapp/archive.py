"""Reproducible zip files."""

from __future__ import annotations

import io
import os
import time
import zipfile

EARLIEST = 315532800  # seconds since 1970: a zip file cannot have an earlier time
MODE = 0o644  # of all files


def timestamp() -> tuple[int, int, int, int, int, int]:
    """Return the time of all files: SOURCE_DATE_EPOCH, or 1980 without it."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = max(int(epoch) if epoch.isdigit() else 0, EARLIEST)
    year, month, day, hour, minute, second, *_ = time.gmtime(seconds)
    return year, month, day, hour, minute, second


def zip_of(files: dict[str, bytes], method: int) -> bytes:
    """Return a zip of *files*, without times of this machine and users."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name, timestamp())
            info.compress_type = method
            info.external_attr = MODE << 16
            archive.writestr(info, data)
    return buffer.getvalue()
