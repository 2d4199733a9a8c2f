"""Secrets, given as values or in files.

Nothing is trimmed from a file: oauth2-proxy takes every byte, so a new line at the end
is part of the secret, and leaving it out would end all sessions of a migration.
"""

from __future__ import annotations

from authproxy_core.settings import Secret

from .collected import Collected
from .files import read_file


def read_secret(collected: Collected, key: str) -> Secret:
    """The secret *key*, or the content of the file that ``<key>_file`` names."""
    value, path = collected.string(key), collected.string(f"{key}_file")
    if value or not path:
        return Secret(value)
    content = read_file(collected, f"{key}_file", path)
    if content == b"":
        collected.wrong(f"{key}_file", f"{path} is empty")
    elif content and content.endswith(b"\n"):
        collected.warn(
            f"{key}_file",
            f"{path} ends with a new line, which is taken as part of the secret",
        )
    return Secret(content or b"")


def read_ring(collected: Collected) -> tuple[Secret, ...]:
    """The cookie secrets: cookie_secret, then cookie_secrets, each once."""
    first = read_secret(collected, "cookie_secret")
    ring = [Secret(text) for text in collected.strings("cookie_secrets")]
    if not all(ring):
        collected.wrong("cookie_secrets", "one of the secrets is empty")
    return tuple(dict.fromkeys(secret for secret in (first, *ring) if secret))
