"""Files that options name: secrets, templates, lists of addresses, a logo."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

from .collected import Collected

MAX_LOGO = 1 << 20  # bytes
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def read_file(collected: Collected, key: str, path: str) -> bytes | None:
    """The content of the file that *key* names, byte for byte; None if unreadable."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        collected.wrong(key, f"can't read {path}: {error.strerror}")
        return None


def read_text(collected: Collected, key: str, path: Path) -> str:
    """The text of an optional file, "" when it is absent or not readable as text."""
    if not path.exists():
        return ""
    content = read_file(collected, key, str(path))
    try:
        return (content or b"").decode()
    except UnicodeDecodeError:
        collected.wrong(key, f"{path} is not UTF-8 text")
        return ""


def read_addresses(collected: Collected, key: str, path: str) -> frozenset[str] | None:
    """The first column of a CSV file with ``#`` comments, lower-case."""
    content = read_file(collected, key, path)
    if content is None:
        return None
    try:
        lines = content.decode().splitlines()
        rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    except (UnicodeDecodeError, csv.Error) as error:
        collected.wrong(key, f"{path} is not a CSV file: {error}")
        return None
    addresses = frozenset(row[0].strip().lower() for row in rows if row)
    return addresses - {""}


def logo_html(collected: Collected, key: str, value: str) -> str:
    """The HTML of a logo: an https image, an inlined file, or "-" for none."""
    if value in ("", "-"):
        return value
    if value.startswith("https://"):
        if set(value) & set("\"'<> "):
            collected.got(key, value, "an https URL without quotes and blanks")
            return ""
        return f'<img src="{value}" alt="Logo" />'
    suffix = Path(value).suffix.lower()
    if suffix != ".svg" and suffix not in IMAGE_TYPES:
        collected.got(key, value, "an https URL, a .svg, .png or .jpg file, or '-'")
        return ""
    content = read_file(collected, key, value)
    if content is None or len(content) > MAX_LOGO:
        if content is not None:
            collected.wrong(key, f"{value} has {len(content)} bytes, allowed {MAX_LOGO}")
        return ""
    if suffix == ".svg":
        return content.decode("utf-8", "replace")
    data = base64.b64encode(content).decode()
    return f'<img src="data:{IMAGE_TYPES[suffix]};base64,{data}" alt="Logo" />'
