"""The public interface of the core: its names and its version."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import authproxy_core
from authproxy_core import settings
from authproxy_core.settings.validation import ValidatedStruct

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.mark.parametrize("module", [authproxy_core, settings], ids=lambda m: m.__name__)
def test_public_names_exist_and_are_unique(module: object) -> None:
    names: list[str] = vars(module)["__all__"]
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(module, name)] == []


def test_every_settings_class_is_public() -> None:
    classes = {
        cls.__name__ for cls in ValidatedStruct.__subclasses__() if is_of_core(cls)
    }
    assert classes | {"Secret"} == set(settings.__all__)


def is_of_core(cls: type) -> bool:
    return cls.__module__.startswith("authproxy_core.")


def test_version_of_core_and_distribution_agree() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert authproxy_core.__version__ == project["version"]
