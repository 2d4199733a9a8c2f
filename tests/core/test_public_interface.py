"""The public interface of the core: its names and its version."""

from __future__ import annotations

import subprocess
import sys
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


def test_unknown_name_raises() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        authproxy_core.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_import_loads_the_proxy_and_joserfc_on_first_use() -> None:
    """Commands import the settings, a server the proxy, and a login joserfc."""
    code = (
        "import sys, authproxy_core\n"
        "before = set(sys.modules)\n"
        "from authproxy_core import AuthProxy\n"
        "assert AuthProxy is authproxy_core.AuthProxy\n"
        "print('authproxy_core.proxy' in before, 'authproxy_core.proxy' in sys.modules,"
        " 'joserfc' in sys.modules, 'urllib.request' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False True False False\n"


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
