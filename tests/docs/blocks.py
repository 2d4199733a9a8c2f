"""The code blocks of README and docs, and what they leave out."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from support.certificates import make_certificate
from support.programs import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BASE = {
    "provider": "oidc",
    "oidc_issuer_url": "https://idp.example.com",
    "client_id": "app",
    "client_secret": "secret",
    "cookie_secret": "0123456789abcdef0123456789abcdef",
    "email_domains": "*",
    "reverse_proxy": "true",
}


VARIABLES = {f"OAUTH2_PROXY_{key.upper()}": value for key, value in BASE.items()}


class Block(NamedTuple):
    """A code block: its page, its language, and its text without indentation."""

    page: Path
    language: str
    text: str

    @property
    def name(self) -> str:
        """The page's path in the repository."""
        return self.page.relative_to(ROOT).as_posix()


def blocks(language: str = "") -> list[Block]:
    """Return the blocks of *language*, or all; without those that include a file."""
    found = []
    for page in PAGES:
        for indent, kind, text in re.findall(
            r"^( *)```(\w*)\n(.*?)^\1```$", page.read_text(), re.M | re.S
        ):
            if kind == (language or kind) and "--8<--" not in text:
                found.append(Block(page, kind, textwrap.dedent(indent + text)))
    return found


def with_files(text: str, folder: Path) -> str:
    """Replace the absolute paths of files in *text* by those of real ones."""
    for path in re.findall(r"(?<![\w.])/(?:run|etc)/[\w./-]+", text):
        file = folder / Path(path).name
        if file.suffix == ".pem":
            Path(make_certificate(folder, "idp").cert_file).rename(file)
        else:
            file.write_text("0123456789abcdef0123456789abcdef")
        text = text.replace(path, str(file))
    return text
