"""Files that options name: templates, lists of addresses, a logo.

A file that can't be used is a problem of the option that names it.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from .go_csv import read_records
from .resolved import ResolvedOptions

MAX_LOGO = 1 << 20  # bytes
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
TEMPLATES = {
    "sign_in_template": "sign_in.html",
    "error_template": "error.html",
    "robots": "robots.txt",
}


def read_file(collected: ResolvedOptions, key: str, path: str) -> bytes | None:
    """The content of the file that *key* names, byte for byte; None if unreadable."""
    collected.files.add(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        collected.add_problem(key, f"can't read {path}: {error.strerror}")
    except ValueError:  # a NUL in the name
        collected.add_mismatch(key, path, "the name of a file")
    return None


def read_text(collected: ResolvedOptions, key: str, path: str) -> str | None:
    """The content of the file that *key* names as text; None if unreadable."""
    content = read_file(collected, key, path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        collected.add_problem(key, f"{path} is not UTF-8 text")
        return None


def read_addresses(collected: ResolvedOptions, key: str, path: str) -> frozenset[str]:
    """The first column of a CSV file with ``#`` comments, lower-case.

    As in oauth2-proxy all lines need as many columns as the first; it would go on
    without any address otherwise, so that is a problem here.
    """
    text = read_text(collected, key, path)
    if text is None:
        return frozenset()
    try:
        records = read_records(text, comment="#", trim=True)
    except ValueError as error:
        collected.add_problem(key, f"{path} is not CSV: {error}")
        return frozenset()
    widths = sorted({len(record) for record in records})
    if len(widths) > 1:
        columns = " and ".join(map(str, widths))
        collected.add_problem(
            key, f"{path} has lines with {columns} columns, expected as many in each"
        )
    return frozenset(record[0].strip().lower() for record in records) - {""}


def read_templates(collected: ResolvedOptions, key: str) -> dict[str, str]:
    """The files that are there in the directory that *key* names, by setting."""
    folder = Path(collected.string(key))
    if not collected.string(key):
        return {}
    # One that is not there may come.
    collected.files.update(str(folder / file) for file in TEMPLATES.values())
    present = {
        name: str(folder / file)
        for name, file in TEMPLATES.items()
        if (folder / file).exists()
    }
    if not present:
        expected = ", ".join(TEMPLATES.values())
        collected.add_warning(
            key, f"{folder} has none of {expected}; the built-in pages are used"
        )
    return {
        name: read_text(collected, key, path) or "" for name, path in present.items()
    }


def logo_html(collected: ResolvedOptions, key: str) -> str:
    """The HTML of a logo: an https image, an inlined file, or "-" for none."""
    value = collected.string(key)
    if value in ("", "-"):
        return value
    if value.startswith("https://"):
        return f'<img src="{escape(value)}" alt="Logo" />'
    suffix = Path(value).suffix.lower()
    if suffix != ".svg" and suffix not in IMAGE_TYPES:
        collected.add_mismatch(
            key, value, "an https address, a .svg, .png, .jpg or .jpeg file, or '-'"
        )
        return ""
    if suffix == ".svg":
        return read_text(collected, key, value) or ""
    content = read_file(collected, key, value) or b""
    if len(content) > MAX_LOGO:
        collected.add_problem(
            key, f"{value} has {len(content)} bytes, at most {MAX_LOGO}"
        )
    data = base64.b64encode(content).decode()
    return f'<img src="data:{IMAGE_TYPES[suffix]};base64,{data}" alt="Logo" />'
