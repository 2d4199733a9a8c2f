"""The configurations and other data in the documentation are valid."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from authproxy.config.load import load_settings

from .blocks import BASE, VARIABLES, Block, blocks, with_files

# The keys of an alpha configuration that an example without providers leaves out.
ALPHA_BASE: dict[str, Any] = {
    "providers": [
        {
            "id": "main",
            "provider": "oidc",
            "clientID": "app",
            "clientSecret": "secret",
            "oidcConfig": {"issuerURL": "https://idp.example.com"},
        }
    ],
    "server": {"bindAddress": "127.0.0.1:4180"},
}
# Languages whose blocks are checked, here or in another module.
CHECKED = {
    "toml",
    "yaml",
    "json",
    "html",
    "console",  # test_console
    "python",  # tests/embed
    "mermaid",  # diagrams
    "text",  # nothing to check
}


def parametrize(language: str) -> pytest.MarkDecorator:
    found = blocks(language)
    ids = [f"{block.name} {number}" for number, block in enumerate(found)]
    return pytest.mark.parametrize("block", found, ids=ids)


def test_every_block_has_a_language_that_is_checked() -> None:
    assert not [block for block in blocks() if block.language not in CHECKED]


@parametrize("toml")
def test_toml_example_is_valid_configuration(block: Block, tmp_path: Path) -> None:
    given = tomllib.loads(block.text)
    variables = {
        f"OAUTH2_PROXY_{key.upper()}": value
        for key, value in BASE.items()
        if key not in given and f"{key}_file" not in given
    }
    file = tmp_path / "authproxy.cfg"
    file.write_text(with_files(block.text, tmp_path))
    load_settings(["--config", str(file)], variables)


@parametrize("yaml")
def test_yaml_example_is_valid(block: Block, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(block.text))
    assert all(isinstance(document, dict) for document in documents)
    if {"providers", "upstreamConfig"} & documents[0].keys():
        base = "" if "providers" in documents[0] else yaml.safe_dump(ALPHA_BASE)
        alpha = tmp_path / "alpha.yaml"
        common = {
            name: value
            for name, value in VARIABLES.items()
            if name.endswith(("COOKIE_SECRET", "EMAIL_DOMAINS"))
        }
        alpha.write_text(base + with_files(block.text, tmp_path))
        load_settings([f"--alpha-config={alpha}"], common)


@parametrize("json")
def test_json_example_is_valid(block: Block) -> None:
    assert json.loads(block.text)


@parametrize("html")
def test_html_example_is_valid_template(block: Block, tmp_path: Path) -> None:
    [name] = re.findall(r'{{define "([^"]+)"}}', block.text)
    (tmp_path / name).write_text(block.text)
    load_settings([f"--custom-templates-dir={tmp_path}"], VARIABLES)
