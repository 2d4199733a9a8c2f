"""The configurations in the documentation are valid."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from authproxy.config.load import load_settings
from support.certificates import make_certificate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BASE = {
    "provider": '"oidc"',
    "oidc_issuer_url": '"https://idp.example.com"',
    "client_id": '"app"',
    "client_secret": '"secret"',
    "cookie_secret": '"0123456789abcdef0123456789abcdef"',
    "email_domains": '"*"',
    "reverse_proxy": "true",
}


def blocks(language: str) -> list[Any]:
    """Return the code blocks of *language*, unless they include a file."""
    found = []
    for page in PAGES:
        texts = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)
        name = page.relative_to(ROOT).as_posix()
        found += [
            pytest.param(text, id=f"{name} {number}")
            for number, text in enumerate(texts)
            if "--8<--" not in text
        ]
    return found


def with_files(text: str, folder: Path) -> str:
    """Replace the absolute paths of files in *text* by those of real ones."""
    for path in re.findall(r'"(/(?:run|etc)/[^"]+)"', text):
        file = folder / Path(path).name
        if file.suffix == ".pem":
            Path(make_certificate(folder, "idp").cert_file).rename(file)
        else:
            file.write_text("0123456789abcdef0123456789abcdef")
        text = text.replace(path, str(file))
    return text


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_example_is_valid_configuration(text: str, tmp_path: Path) -> None:
    given = tomllib.loads(text)
    base = {key: value for key, value in BASE.items() if f"{key}_file" not in given}
    lines = [f"{key} = {value}" for key, value in base.items() if key not in given]
    file = tmp_path / "authproxy.cfg"
    file.write_text("\n".join([*lines, with_files(text, tmp_path)]))
    load_settings(["--config", str(file)], {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_example_is_valid(text: str) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(text))
