"""JSON schemas of the TOML and alpha files: published, and true for real files."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from authproxy.commands.cli import main
from authproxy.config.alpha.schema import ROOT as ALPHA
from authproxy.config.json_schema import FileKind, json_schema
from authproxy.config.options.table import OPTIONS
from support.configuration import ACCESS_RULES
from support.programs import ROOT

fastjsonschema = pytest.importorskip("fastjsonschema")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
VALIDATORS: dict[str, Callable[[Any], None]] = {
    kind: fastjsonschema.compile(json_schema(kind), use_default=False)
    for kind in ("toml", "alpha")
}


def blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        texts = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)
        found += [
            pytest.param(text, id=f"{page.relative_to(ROOT)} {number}")
            for number, text in enumerate(texts)
            if "--8<--" not in text
        ]
    return found


@pytest.mark.parametrize("kind", ["toml", "alpha"])
def test_published_schema_is_that_of_the_command(
    kind: FileKind, capsys: pytest.CaptureFixture[str]
) -> None:
    """``authproxy schema KIND > docs/schemas/KIND.json``."""
    assert main(["schema", kind]) == 0
    out, _ = capsys.readouterr()
    assert (ROOT / "docs" / "schemas" / f"{kind}.json").read_text() == out
    assert json.loads(out) == json_schema(kind)


@pytest.mark.parametrize("arguments", [[], ["yaml"], ["toml", "alpha"]])
def test_schema_of_another_file_is_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", *arguments]) == 2
    assert "usage: authproxy schema toml|alpha" in capsys.readouterr().err


def test_schema_has_each_option_with_its_help_and_a_valid_default() -> None:
    schema = json_schema("toml")
    properties = schema["properties"]
    assert set(properties) == {option.key for option in OPTIONS} | {"access_rules"}
    for option in OPTIONS:
        entry = properties[option.key]
        assert entry["description"].startswith(option.help)
        assert ("default" in entry) != option.secret
        if "default" in entry and option.default not in ("", ()):
            VALIDATORS["toml"]({option.key: entry["default"]})
    assert set(json_schema("alpha")["properties"]) == set(ALPHA)


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_example_follows_schema(text: str) -> None:
    VALIDATORS["toml"](tomllib.loads(text))


@pytest.mark.parametrize(
    "path",
    [
        "deploy/kubernetes.yaml",
        "docs/providers.md",
        "docs/access-rules.md",
    ],
)
def test_configuration_in_file_follows_schema(path: str) -> None:
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        documents = [
            document
            for block in re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
            for document in yaml.safe_load_all(block)
            if set(document) & set(ALPHA)
        ]
        for document in documents:
            VALIDATORS["alpha"](document)
    else:
        documents = [
            tomllib.loads(one["data"]["authproxy.cfg"])
            for one in yaml.safe_load_all(text)
            if one["kind"] == "ConfigMap"
        ]
        for document in documents:
            VALIDATORS["toml"](document)
    assert documents


@pytest.mark.parametrize(
    "text",
    [
        'reverse_proxy = "true"\nworkers = "2"\nemail_domains = "*"',
        'skip_auth_routes = ["GET=^/a"]\ncookie_refresh = "1h30m"\nworkers = 2',
        'clock_skew = "1.5s"\ncookie_expire = "0"\nauth_success_status = 200',
        ACCESS_RULES,
    ],
)
def test_toml_forms_of_oauth2_proxy_follow_schema(text: str) -> None:
    VALIDATORS["toml"](tomllib.loads(text))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("toml", 'email_domain = "*"'),
        ("toml", 'provider = "keycloack"'),
        ("toml", 'cookie_expire = "1d"'),
        ("toml", 'reverse_proxy = "yes"'),
        ("toml", 'workers = "two"'),
        ("toml", "email_domains = 1"),
        ("toml", 'access_rules = [{policy = "allow"}]'),
        ("alpha", 'providers = [{clientId = "web"}]'),
        ("alpha", 'providers = [{provider = "keycloack"}]'),
        ("alpha", "upstreamConfig = {upstreams = {}}"),
        ("alpha", "server = {bindAddress = 4180}"),
    ],
)
def test_mistake_violates_schema(kind: str, text: str) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        VALIDATORS[kind](tomllib.loads(text))


def test_schemas_are_published_beside_the_site() -> None:
    published = Path(ROOT / "docs" / "schemas").iterdir()
    assert {path.name for path in published} == {"toml.json", "alpha.json"}
