"""Read the files that options name: secrets, email lists, templates, a logo.

An unreadable or malformed file is a problem of the option that names it.
"""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from authproxy_core.settings import Secret

from .go_csv import read_records
from .resolved import ResolvedOptions

MAX_LOGO_BYTES = 1 << 20
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
TEMPLATES = {  # setting to file name
    "sign_in_template": "sign_in.html",
    "error_template": "error.html",
    "signed_out_template": "signed_out.html",
    "robots": "robots.txt",
}


def read_file(options: ResolvedOptions, key: str, path: str) -> bytes | None:
    """Return the bytes of the file *path* of option *key*; None if unreadable."""
    options.files.add(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        options.add_problem(key, f"can't read {path}: {error.strerror}")
    except ValueError:  # a NUL in the name
        options.add_mismatch(key, path, "a file name")
    return None


def read_text(options: ResolvedOptions, key: str, path: str) -> str | None:
    """Return the text of the file *path* of option *key*; None if unreadable.

    A byte order mark, which some editors write, is not part of the text.
    """
    content = read_file(options, key, path)
    try:
        return None if content is None else content.decode("utf-8-sig")
    except UnicodeDecodeError:
        options.add_problem(key, f"{path} is not UTF-8 text")
        return None


def read_secret(options: ResolvedOptions, key: str) -> Secret:
    """Return the secret *key*, or the content of the file that ``<key>_file`` names."""
    value, path = options.string(key), options.string(f"{key}_file")
    if value and path:
        options.add_warning(f"{key}_file", f"ignored because {key} is set")
    if value or not path:
        return Secret(value)
    return _read_secret_file(options, f"{key}_file", path)


def _read_secret_file(options: ResolvedOptions, key: str, path: str) -> Secret:
    """Return the content of *path*, byte for byte.

    oauth2-proxy does not trim secrets either: without its final newline the secret
    would differ, and a migration would end all sessions.
    """
    content = read_file(options, key, path)
    if content == b"":
        options.add_problem(key, f"{path} is empty")
    elif content and content.endswith(b"\n"):
        options.add_warning(
            key, f"{path} ends with a newline, which is part of the secret"
        )
    return Secret(content or b"")


def read_key_ring(options: ResolvedOptions) -> tuple[Secret, ...]:
    """Return the distinct cookie secrets; the first one seals."""
    first = read_secret(options, "cookie_secret")
    ring = [Secret(text) for text in options.strings("cookie_secrets")]
    if not all(ring):
        options.add_problem("cookie_secrets", "one of the secrets is empty")
    ring += [
        _read_secret_file(options, "cookie_secrets_files", path)
        for path in options.strings("cookie_secrets_files")
    ]
    return tuple(dict.fromkeys(secret for secret in (first, *ring) if secret))


def read_emails(options: ResolvedOptions, key: str, path: str) -> frozenset[str]:
    """Return the first column of a CSV file with ``#`` comments, in lower case.

    As in oauth2-proxy, all records need the same number of columns. oauth2-proxy
    continues with an empty list otherwise; here that is a problem.
    """
    text = read_text(options, key, path)
    if text is None:
        return frozenset()
    try:
        records = read_records(text, comment="#", trim=True)
    except ValueError as error:
        options.add_problem(key, f"{path} is not CSV: {error}")
        return frozenset()
    widths = sorted({len(record) for record in records})
    if len(widths) > 1:
        columns = " and ".join(map(str, widths))
        options.add_problem(
            key, f"{path} has lines with {columns} columns, expected the same number"
        )
    return frozenset(record[0].strip().lower() for record in records) - {""}


def read_templates(options: ResolvedOptions, key: str) -> dict[str, str]:
    """Return the templates in the directory of option *key*, by setting."""
    directory = Path(options.string(key))
    if not options.string(key):
        return {}
    # Absent files are watched as well, because they may be created later.
    options.files.update(str(directory / name) for name in TEMPLATES.values())
    present = {
        setting: str(directory / name)
        for setting, name in TEMPLATES.items()
        if (directory / name).exists()
    }
    if not present:
        expected = ", ".join(TEMPLATES.values())
        options.add_warning(
            key, f"{directory} contains none of {expected}; built-in pages are used"
        )
    return {
        setting: read_text(options, key, path) or ""
        for setting, path in present.items()
    }


def read_logo(options: ResolvedOptions, key: str) -> str:
    """Return the logo as HTML: a linked or inlined image, or "-" for no logo."""
    value = options.string(key)
    if value in ("", "-"):
        return value
    if value.startswith("https://"):
        return f'<img src="{escape(value)}" alt="Logo" />'
    suffix = Path(value).suffix.lower()
    if suffix != ".svg" and suffix not in IMAGE_TYPES:
        options.add_mismatch(
            key, value, "an https URL, a .svg, .png, .jpg or .jpeg file, or '-'"
        )
        return ""
    if suffix == ".svg":
        return read_text(options, key, value) or ""
    content = read_file(options, key, value) or b""
    if len(content) > MAX_LOGO_BYTES:
        options.add_problem(
            key, f"{value} has {len(content)} bytes, expected at most {MAX_LOGO_BYTES}"
        )
    data = base64.b64encode(content).decode()
    return f'<img src="data:{IMAGE_TYPES[suffix]};base64,{data}" alt="Logo" />'
