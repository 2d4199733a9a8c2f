"""The option table is at least as strict as the settings that it sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from authproxy.config.options.option import Option
from authproxy.config.options.table import OPTIONS
from authproxy.config.read.resolved import ConfigError
from authproxy_core.errors import SettingsError
from support.configuration import settings

EXTREMES = {
    "int": ("-1", "0", "1", str(10**12)),
    "duration": ("-1h", "-1ns", "0s", "1ns", "2000000h"),
    "string": ("", "nonsense", "-1"),
    "list": ("", ",", "nonsense", "-1"),
    "bool": ("true", "false"),
    "string-bool": ("true", "false", "nonsense"),
}


def error_of(flag: str) -> SettingsError | None:
    """Return the error for a configuration with *flag*; None if it is valid."""
    try:
        settings(flag)
    except SettingsError as error:
        return error
    return None


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_option_extreme_value_accepted_or_reported_as_option(
    option: Option, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `SettingsError` that is not a `ConfigError` would come from a constructor."""
    monkeypatch.chdir(tmp_path)  # logging_filename creates the file
    errors = [error_of(f"--{option.flag}={text}") for text in EXTREMES[option.kind]]
    assert all(error is None or isinstance(error, ConfigError) for error in errors)
