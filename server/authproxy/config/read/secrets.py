"""Secrets, given as values or in files.

Nothing is trimmed from a file: oauth2-proxy takes every byte, so a new line at the end
is part of the secret, and leaving it out would end all sessions of a migration.
"""

from __future__ import annotations

from authproxy_core.settings.root import Secret

from .files import read_file
from .resolved import ResolvedOptions


def read_secret(collected: ResolvedOptions, key: str) -> Secret:
    """The secret *key*, or the content of the file that ``<key>_file`` names."""
    value, path = collected.string(key), collected.string(f"{key}_file")
    if value and path:
        collected.add_warning(f"{key}_file", f"not read, for {key} is given too")
    if value or not path:
        return Secret(value)
    return _from_file(collected, f"{key}_file", path)


def _from_file(collected: ResolvedOptions, key: str, path: str) -> Secret:
    content = read_file(collected, key, path)
    if content == b"":
        collected.add_problem(key, f"{path} is empty")
    elif content and content.endswith(b"\n"):
        collected.add_warning(
            key, f"{path} ends with a new line, which is taken as part of the secret"
        )
    return Secret(content or b"")


def read_ring(collected: ResolvedOptions) -> tuple[Secret, ...]:
    """The key ring: cookie_secret, cookie_secrets, cookie_secrets_files, each once."""
    first = read_secret(collected, "cookie_secret")
    ring = [Secret(text) for text in collected.strings("cookie_secrets")]
    if not all(ring):
        collected.add_problem("cookie_secrets", "one of the secrets is empty")
    ring += [
        _from_file(collected, "cookie_secrets_files", path)
        for path in collected.strings("cookie_secrets_files")
    ]
    return tuple(dict.fromkeys(secret for secret in (first, *ring) if secret))
